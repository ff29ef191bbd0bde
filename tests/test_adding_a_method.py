"""A new method is one file: used by its path from outside the package, discovered in any folder inside it."""

import contextlib
import json
from pathlib import Path

import pytest
from tests import forked

from buttress import attacks, audits, registry
from buttress.audits.base.finding import read
from buttress.cli import main

ATTACK = '''
"""Moves every input by the same amount."""

from dataclasses import dataclass

from buttress.attacks import Attack
from buttress.registry import attack
from buttress.threat import Threat


@attack("shift")
@dataclass(frozen=True, kw_only=True)
class Shift(Attack):
    """All coordinates go up by a share of eps."""

    threat: Threat = Threat()
    share: float = 1.0

    def perturb(self, oracle, x, y, random):
        return x + self.share * self.threat.eps
'''
AUDIT = '''
"""Which of several attacks is the strongest."""

from collections.abc import Sequence
from dataclasses import dataclass

from buttress.attacks import Attack
from buttress.audits import Audit, Finding
from buttress.registry import audit


@audit("strongest")
@dataclass(frozen=True)
class Strongest(Audit):
    """The attack with the most successes."""

    rivals: Sequence[Attack] = ()

    def ask(self, subject):
        successes = {}
        for attack in self.rivals:
            result = attack(subject.model, subject.x, subject.y, ids=subject.ids)
            successes[type(attack).__name__] = [int(result.success.sum()), attack.threat.eps]
        best = max(successes, key=successes.get)
        return Finding("strongest", "Strongest", f"{best} is the strongest.", "info", successes)
'''


def discover(folder):
    """In a process that has discovered nothing: the folders as parts of the package, and the list of attacks."""
    assert not any(role._discovered for role in registry.ROLES.values())
    attacks.__path__.append(str(folder / "attacks"))
    audits.__path__.append(str(folder / "audits"))
    assert registry.attack.get("shift") is attacks.Shift
    assert attacks.Shift.__module__ == "buttress.attacks.family.translations.shift"
    assert registry.audit.get("strongest") is audits.Strongest
    with (folder / "listed.json").open("w") as file, contextlib.redirect_stdout(file):
        assert main(["list", "attacks", "shift", "--json"]) == 0


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with the two files; what they register is gone after the test."""
    for role in (registry.attack, registry.audit):
        monkeypatch.setattr(role, "_members", {name: role.get(name) for name in role.names()})
    (tmp_path / "shift.py").write_text(ATTACK)
    (tmp_path / "strongest.py").write_text(AUDIT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_attack_and_an_audit_of_several_attacks_are_used_by_path(here, capsys):
    moons = "--data moons --data-args.samples 60 --data-args.test 24 --model mlp --epochs 1 --seed 3"
    assert main(f"train run {moons}".split()) == 0
    by = "--by shift.py:Shift --by.share 0"
    assert main(f"attack run --out made {by} --threat.eps 0.5".split()) == 0
    assert json.loads(Path("made/examples.json").read_text())["settings"]["share"] == 0
    attacks = "--audits.rivals fgsm --audits.rivals shift.py:Shift --audits.rivals.share 0.5"
    words = f"audit run --out seen --audits strongest.py:Strongest {attacks} --threat.eps 0.25"
    assert main(words.split()) == 0
    assert capsys.readouterr().err == ""
    ((finding,),) = read(Path("seen/findings.json"))[0].values()
    successes = finding.data
    assert list(successes) == ["FGSM", "Shift"]
    assert [eps for _, eps in successes.values()] == [0.25, 0.25]
    assert finding.verdict == f"{max(successes, key=successes.get)} is the strongest."
    assert "is the strongest." in Path("seen/report.html").read_text()


def test_a_file_in_a_nested_folder_is_discovered(here):
    """As one dropped into the package: its folder is made part of that, in a process that has discovered nothing."""
    for role, file in (("attacks", "shift.py"), ("audits", "strongest.py")):
        nested = here / role / "family" / "translations"
        nested.mkdir(parents=True)
        for folder in (nested, nested.parent):
            (folder / "__init__.py").touch()
        (here / file).rename(nested / file)
    forked.run(discover, here)
    (row,) = json.loads((here / "listed.json").read_text())
    assert (row["name"], row["options"]["share"]) == ("shift", 1.0)
    assert row["class"] == "buttress.attacks.family.translations.shift.Shift"
