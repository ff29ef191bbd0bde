"""Every option of every command, given another value: what comes out is another, or a line says that it is not."""

import json
import re
import shlex
from typing import Literal, get_args, get_origin

import pytest

from buttress.cli.commands import JOBS, job
from buttress.config.annotations import alternatives
from buttress.config.job_spec import job_spec

COMMANDS = {
    "train": "train {out} --data moons --data-args.samples 60 --data-args.test 20 --model mlp --epochs 2"
    " --batch-size 16 --defence at --defence.attack fgsm --threat.eps 0.3",
    "audit": "audit {runs}/moons --out {out} --audits robustness --inputs 30",
    "attack": "attack {runs}/moons --out {out} --inputs 30",
    "harden": "harden {runs}/moons --out {out} --epochs 2 --inputs 10 --gamma 0.1 --warmup 1 --base at"
    " --base.attack fgsm",
    "export": "export {runs}/moons --onnx {out}/net.onnx",
    "compare": "compare {runs}/audit {runs}/audit --out {out}",
    "reproduce": "reproduce lsa-table2-moon --dry-run",
}
# Other values where the annotation does not say one.
ANOTHER = {
    "data": "digits",
    "model": "cnn",
    "model_args": "{hidden: [5]}",
    "data_args": "{samples: 50}",
    "classes": "a,b",
    "threat": "{norm: l2}",
    "attacks": "pgd",
    "audits": "layers",
    "defence": "trades",
    "base": "trades",
    "by": "fgsm",
    "monitors": "catastrophic-overfitting",
    "optimiser": "{name: sgd}",
    "schedule": "{name: cyclic}",
    "average": "0.5",
    "normalise": "imagenet",
    "activation": "elu",
    "layers": "act1",
    "measure": "centred",
    "task": "regression",
    "scale": "full",
}
# What may be the same, and why.
SAME = {
    "accelerator": "the best there is may be the one given",
    "devices": "one device is what there is",
    "num_nodes": "one host is what there is",
    "strategy": "of one process it is refused, and auto is the same",
    "batch_size": "figures of audits and attacks hang on no batch; in training they do, see below",
    "audit_batch": "likewise",
    "group": "likewise",
    "precision": "where the search runs in another precision the verdicts are float32 all the same",
    "search_precision": "on so few inputs the signs of the gradients are the same",
    "checkpoint_seconds": "when is saved changes no figure",
    "validate_on": "more than there are are all",
    "keep": "the best epoch may be the last",
    "resume": "of an audit and an attack: start where there is nothing yet",
    "overwrite": "there is nothing yet",
    "dry_run": "the base of a reproduction is one",
    "seeds": "a dry run says so, but not what is first run",
    "workers": "a dry run runs nothing",
    "fail_under": "a gate that is met",
    "seed": "of a file that is checked on data that are not drawn anew",
}
PLACES = ("out", "onnx", "network", "folders", "name", "document", "work", "data_dir", "weights", "labels")
OPTIONS = [
    (command, name) for command in JOBS for name in job_spec(job(command)).known if name not in (*PLACES, "dry_run")
]
FIRST = [("train", "epochs"), ("train", "search_precision"), ("audit", "threat"), ("attack", "inputs")]


def another(name, parameter):
    """A value that is not the default."""
    if name in ANOTHER:
        return ANOTHER[name]
    (kind, *_) = alternatives(parameter.annotation)
    if get_origin(kind) is Literal:
        return next(str(choice) for choice in get_args(kind) if choice != parameter.default)
    if kind is bool:
        return str(not parameter.default).lower()
    return {int: "3", float: "0.5"}.get(kind, "other")


def outcome(words, run, out):
    """What a command says, and all that it says and leaves, but for times, places and what it was asked."""
    told = run(words)
    lines = [re.sub(r"\S*[\d.]+ (m?s|minutes?|hours?)\b", "", line) for line in told.out.splitlines()]
    found = [told.status, [line.replace(str(out), "") for line in lines if not line.startswith("report")]]
    for path in sorted(out.rglob("*")):
        if path.name in ("findings.json", "history.json"):
            tree = json.loads(path.read_text())
            found.append(_figures(tree["networks"] if isinstance(tree, dict) else tree))
        elif path.name in ("model.safetensors", "examples.safetensors", "net.onnx"):
            found.append(path.read_bytes())
    return told, found


def _figures(tree):
    if isinstance(tree, dict):
        return {key: _figures(part) for key, part in tree.items() if "second" not in key and key != "precision"}
    return [_figures(part) for part in tree] if isinstance(tree, list) else tree


@pytest.fixture(scope="session")
def usual(run, runs, tmp_path_factory):
    """What each command comes to without further options."""
    known = {}

    def find(command):
        if command not in known:
            out = tmp_path_factory.mktemp("usual") / "new"
            told, known[command] = outcome(COMMANDS[command].format(runs=runs, out=out), run, out)
            assert told.status == 0, told.err
        return known[command]

    return find


@pytest.mark.representatives(option=FIRST)
@pytest.mark.parametrize("option", OPTIONS, ids=" ".join)
def test_an_option_changes_something_or_is_refused(option, run, runs, usual, tmp_path, monkeypatch):
    command, name = option
    monkeypatch.chdir(tmp_path)
    value = another(name, job_spec(job(command)).known[name])
    words = [
        *shlex.split(COMMANDS[command].format(runs=runs, out=tmp_path / "new")),
        f"--{name.replace('_', '-')}",
        value,
    ]
    told, found = outcome(words, run, tmp_path / "new")
    assert told.status in (0, 2), told.err
    if told.status == 2:
        assert told.err.count("\n") == 1
    elif found == usual(command):
        assert name in SAME, f"--{name} {value} changes nothing"
