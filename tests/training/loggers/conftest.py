"""Runs for loggers, and the packages that they call, in the form of fakes."""

import importlib.machinery
import json
import sys
import types

import pytest

from buttress.training.loggers import Run
from buttress.training.run_folder import MARK

SETTINGS = {"defence": {"class": "buttress.PGD", "threat": {"eps": 0.1}}, "epochs": 3}


@pytest.fixture
def run(tmp_path):
    """A run that starts."""
    (tmp_path / "runs" / "at").mkdir(parents=True)
    (tmp_path / "runs" / "at" / MARK).write_text(json.dumps({"settings": SETTINGS}))
    return Run(tmp_path / "runs" / "at", 0)


@pytest.fixture
def package(monkeypatch):
    """Put a module of these contents in the place of an installed package's."""

    def put(name, **contents):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(contents)
        monkeypatch.setitem(sys.modules, name, module)

    return put
