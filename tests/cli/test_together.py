"""One command in two processes: it prints and writes once, finds what one process finds, and ends as one."""

import contextlib
import io
import json
import os
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file
from tests import forked

from buttress import fit, models, processes
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import layers
from buttress.audits.base import subject
from buttress.audits.base.evaluation.sharing import idle_remark
from buttress.cli import last_words, main
from buttress.data.sets.moons import moons
from buttress.layers.tolerance import tolerance
from buttress.training.loop import Loop

SHAPE = {"samples": 96, "val": 20, "test": 60}
DATA = ["--data", "moons", "--data-args", json.dumps(SHAPE)]
TRAIN = ["--model", "mlp", "--epochs", "3", "--batch-size", "12", "--seed", "1", *DATA]
AUDIT = ["--threat.eps", "0.1", "--audits", "robustness,examples", "--seed", "2", "--precision", "fp32"]
HARDEN = ["--model", "mlp", "--epochs", "1", "--gamma", "0.5", "--layers", "act1", "--attacks", "fgsm", *DATA]
GROUP = 16  # inputs of an audit attacked together, so that there is something to share


def command(folder, name, *words):
    """The status of a command in this process, and what it printed, into files of this process's own."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main([str(word) for word in words])
    text = json.dumps([status, out.getvalue(), error.getvalue()])
    (folder / f"{name}-{os.environ['RANK']}.json").write_text(text)
    return status


def ends(target, *arguments):
    """Run it in two processes of which one at least ends with another status than 0, as torchrun then does, too."""
    process = forked.start(forked._launch, target, *arguments)
    process.join(120)
    assert process.exitcode == 1


def told(folder, name):
    """Of both processes: the statuses, what they printed, and what they wrote as errors."""
    return zip(*(json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in (0, 1)), strict=True)


def short_search(*args, **settings):
    return tolerance(*args, **settings | {"steps": 2, "bisections": 1})


def crafted_by(folder):
    """Notes who attacks how many inputs."""
    own = PGD.perturb

    def perturb(self, oracle, x, y, random):
        with (folder / f"crafted-{os.environ['RANK']}").open("a") as file:
            file.write(f"{len(x)}\n")
        return own(self, oracle, x, y, random)

    PGD.perturb = perturb


def all_commands(folder, run):
    """In each of two processes; the last one is refused."""
    subject._GROUP = GROUP
    layers.tolerance = short_search
    command(folder, "train", "train", folder / "trained", *TRAIN)
    command(folder, "resume", "train", folder / "stopped", *TRAIN, "--resume")
    command(folder, "harden", "harden", "--out", folder / "hardened", *HARDEN)
    command(folder, "attack", "attack", run, "--out", folder / "examples", "--group", GROUP)
    crafted_by(folder)
    command(folder, "audit", "audit", run, "--out", folder / "audited", *AUDIT)
    command(folder, "list", "list", "attacks")
    sys.exit(command(folder, "refused", "train", folder / "trained", *TRAIN))


def stopped_by_a_signal_to_one(folder):
    """A signal reaches the second process alone, in the middle of an epoch."""
    own = Loop._step

    def step(self, batch, epoch):
        if self.index == 10 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGINT)
        own(self, batch, epoch)

    Loop._step = step
    sys.exit(command(folder, "stopped", "train", folder / "stopped", *TRAIN))


def killed(folder):
    """The second process is killed while the first attacks."""
    subject._GROUP = GROUP
    own = PGD.perturb

    def perturb(self, oracle, x, y, random):
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return own(self, oracle, x, y, random)

    PGD.perturb = perturb
    sys.exit(command(folder, "killed", "audit", folder / "run", "--out", folder / "audited", *AUDIT))


def broken(folder):
    """The second process meets an error of its own."""

    def perturb(self, oracle, x, y, random):
        raise LookupError("nothing is known of this")

    PGD.perturb = perturb if os.environ["RANK"] == "1" else PGD.perturb
    subject._GROUP = GROUP
    sys.exit(command(folder, "broken", "audit", folder / "run", "--out", folder / "audited", *AUDIT))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    source = {"data": "moons", "data_dir": None, "data_args": SHAPE, "seed": 0}
    fit(models.create("mlp", hidden=[8], seed=0), moons(**SHAPE), epochs=1, out=folder, facts={"source": source})
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory, run):
    """Where two processes have left what they made: one training stopped by a signal before, and all commands."""
    folder = tmp_path_factory.mktemp("both")
    ends(stopped_by_a_signal_to_one, folder)
    ends(all_commands, folder, run)
    return folder


def test_a_signal_to_one_process_stops_both_after_the_same_step_with_one_line(both):
    statuses, printed, errors = told(both, "stopped")
    assert statuses == (130, 130)
    line = "stopped after step 11; everything is saved, go on with --resume\n"
    assert (printed[0] + errors[1]).count(line) == 1
    assert (printed[1], errors[0]) == ("", "")


def test_what_was_stopped_goes_on_and_ends_with_the_same_bits(both):
    assert next(told(both, "resume")) == (0, 0)
    for name in ("last.safetensors", "model.safetensors", "history.json"):
        assert (both / "stopped" / name).read_bytes() == (both / "trained" / name).read_bytes()


@pytest.mark.parametrize("name", ["train", "harden", "attack", "audit", "list"])
def test_both_end_well_and_one_prints(name, both):
    statuses, printed, errors = told(both, name)
    assert statuses == (0, 0)
    assert printed[0]
    assert (printed[1], errors) == ("", ("", ""))


def test_two_processes_train_to_the_weights_of_one(both, tmp_path):
    assert main(["train", str(tmp_path / "alone"), *TRAIN]) == 0
    alone, shared = (load_file(folder / "last.safetensors") for folder in (tmp_path / "alone", both / "trained"))
    torch.testing.assert_close(shared, alone)


def test_two_processes_audit_as_one_does_and_each_attacks_a_share(both, run, tmp_path, monkeypatch):
    """The same findings but for times, to the last bit: groups are attacked whole, whoever attacks them."""
    monkeypatch.setattr(subject, "_GROUP", GROUP)
    assert main(["audit", str(run), "--out", str(tmp_path / "alone"), *AUDIT]) == 0
    alone, shared = (findings(folder) for folder in (tmp_path / "alone", both / "audited"))
    assert shared == alone
    shares = [(both / f"crafted-{rank}").read_text().split() for rank in (0, 1)]
    assert shares[0][:2] == ["16", "16"]  # of 60 inputs: the first and the third group
    assert shares[1][:2] == ["16", "12"]


def findings(folder):
    """Those of a report, without times."""

    def timeless(value):
        if isinstance(value, dict):
            return {key: timeless(part) for key, part in value.items() if "seconds" not in key}
        return [timeless(part) for part in value] if isinstance(value, list) else value

    return timeless(json.loads((folder / "findings.json").read_text())["networks"])


def test_processes_without_a_share_are_told(monkeypatch):
    monkeypatch.setattr(processes, "rank_and_count", lambda: (0, 3))
    assert idle_remark(1025) == (
        "1025 inputs are attacked in groups of 1024, 2 in all, so 1 of 3 processes have nothing to attack"
    )
    assert idle_remark(2049) == ""


def test_two_processes_harden_and_write_one_report(both):
    assert [path.name for path in sorted((both / "hardened").iterdir())] == ["base", "hardened", "original", "report"]
    assert list(findings(both / "hardened" / "report")) == ["original", "AT", "AT-LR"]


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_not_shared_is_done_by_the_first_alone(rank, both, tmp_path, capsys, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, str(rank) if "RANK" in name else "2")
    assert main(["compare", str(both / "audited"), str(both / "audited"), "--out", str(tmp_path / "compared")]) == 0
    assert ("report:" in capsys.readouterr().out) == (rank == 0)
    assert (tmp_path / "compared").exists() == (rank == 0)


def test_a_mistake_ends_both_with_one_line(both):
    statuses, _, errors = told(both, "refused")
    assert statuses == (2, 2)
    assert len("".join(errors).splitlines()) == 1
    assert "holds a run already" in "".join(errors)


def test_when_a_process_is_killed_the_other_ends_with_one_line(run, tmp_path):
    (tmp_path / "run").symlink_to(run)
    ends(killed, tmp_path)
    status, printed, error = json.loads((tmp_path / "killed-0.json").read_text())
    assert status == 128 + signal.SIGTERM
    assert error in (last_words.LOST, "buttress: stopped\n")  # whichever notices first, it or torchrun
    assert "report:" not in printed
    assert not (tmp_path / "audited").exists()


def test_an_error_in_one_process_ends_both_with_its_message(run, tmp_path):
    (tmp_path / "run").symlink_to(run)
    ends(broken, tmp_path)
    statuses, _, errors = told(tmp_path, "broken")
    assert statuses == (2, 2)  # the attack is the user's
    assert "nothing is known of this" in errors[1]
    assert errors[0] == ""


def test_alone_who_ends_tells(capsys):
    assert last_words.settle is None
    assert last_words.tell("a line\n", 5) == 5
    assert capsys.readouterr().err == "a line\n"
