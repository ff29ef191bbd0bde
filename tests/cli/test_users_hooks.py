"""Whatever method of a user's class fails, the line names their file, and nothing is called our fault."""

import inspect

import pytest

from buttress import registry
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.robustness import Robustness
from buttress.certificates.verifiers.crown import CROWN
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.tasks.classes import Classification
from buttress.training.monitors.early_stopping import EarlyStopping

TRAIN = "train {out} --data moons --data-args.samples 60 --data-args.test 24 --model mlp --epochs 1"
AUDIT = "audit {runs}/moons --out {out} --inputs 8"
KINDS = {
    FGSM: f"{AUDIT} --audits robustness --attacks hooks.py:Mine",
    AdversarialTraining: f"{TRAIN} --defence hooks.py:Mine",
    Robustness: f"{AUDIT} --attacks fgsm --audits hooks.py:Mine",
    EarlyStopping: f"{TRAIN} --monitors hooks.py:Mine",
    CROWN: f"{AUDIT} --audits certificates --audits.verifiers hooks.py:Mine",
    Classification: f"{TRAIN} --defence at --defence.attack fgsm --task hooks.py:Mine",
}
FILE = """
from dataclasses import dataclass
from {module} import {base}


class Mine({base}):
    {decorator}
    def {name}(self, *args, **kwargs):
        raise {error}("mine failed")
"""


def hooks(kind):
    """The public methods and properties that a user's subclass may override."""
    for name, member in inspect.getmembers(kind):
        found = inspect.getattr_static(kind, name)
        owner = next(base for base in kind.__mro__ if name in vars(base))
        if not name.startswith("_") and owner is not object and owner.__module__.startswith("buttress"):
            if isinstance(found, property):
                yield name, "@property"
            elif inspect.isfunction(member):
                yield name, ""


@pytest.mark.parametrize("kind", KINDS)
def test_every_hook_that_fails_is_the_users_by_file_and_line(kind, here, run, runs):
    failed = []
    errors = ("ValueError", "RuntimeError", "SystemExit", "StopIteration", "RecursionError", "AssertionError")
    for k, (name, decorator) in enumerate(hooks(kind)):
        error = errors[k % len(errors)]
        file = here / f"hooks{k}.py"
        file.write_text(
            FILE.format(module=kind.__module__, base=kind.__name__, decorator=decorator, name=name, error=error)
        )
        told = run(KINDS[kind].replace("hooks.py", file.name).format(runs=runs, out=here / f"out{k}"))
        assert told.status in (0, 2), (name, told.err)
        if told.status == 2:
            assert told.err.count("\n") == 1, told.err
            assert told.err.startswith(f"buttress: {file.name}, line 9, in {name}: {error}: mine failed"), told.err
            failed.append(name)
    assert failed


NEEDED = {
    FGSM: "perturb",
    AdversarialTraining: "loss",
    Robustness: "ask",
    EarlyStopping: "after_epoch",
    CROWN: "bound",
    Classification: "read",
}
BODIES = {
    "*args, **kwargs): return 'nonsense'": "returned a str; expected ",
    "a, b, c, d, e, f, g): return None": "missing ",
    "*args, **kwargs): return self.nothing": "object has no attribute 'nothing'",
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("kind", KINDS)
def test_hooks_that_return_nonsense_or_take_other_arguments_are_the_users(kind, body, here, run, runs):
    name = NEEDED[kind]
    file = here / f"nonsense{list(BODIES).index(body)}.py"
    base = kind.__name__
    file.write_text(f"from {kind.__module__} import {base}\n\n\nclass Mine({base}):\n    def {name}(self, {body}\n")
    told = run(KINDS[kind].replace("hooks.py", file.name).format(runs=runs, out="new"))
    assert (told.status, told.err.count("\n")) == (2, 1), told.err
    assert f"{file.name}, line 5" in told.err
    assert BODIES[body] in told.err


def test_all_roles_that_users_write_are_tried():
    roles = {role for role in registry.ROLES if role not in ("models", "datasets")}
    assert len(KINDS) == len(roles)
