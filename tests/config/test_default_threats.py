"""A threat of which a part is typed has the method's own default for the rest."""

import math

import pytest

from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.cw import CW
from buttress.config.command_words import arguments
from buttress.config.default_threats import completed
from buttress.config.job_options import options
from buttress.jobs.attack import attack
from buttress.jobs.audit import audit

L2 = "--by.threat={box: [0.0, 1.0], eps: .inf, norm: l2}"


def words(job, line):
    return arguments(line.split(), options(job, {}, {"reporter", "architecture", "source"}))


@pytest.mark.parametrize(
    ("line", "threats"),
    [
        ("--by cw", []),
        ("--by cw --by.threat.eps 0.5", [L2, "--by.threat.eps=0.5"]),
        ("--by cw --by.threat.eps 0.5 --by.threat.eps 1", [L2, "--by.threat.eps=0.5", "--by.threat.eps=1"]),
        ("--by pgd --by cw --by.threat.eps 0.5", [L2, "--by.threat.eps=0.5"]),
        ("--threat.eps 0.5", ["--threat.eps=0.5"]),
    ],
)
def test_the_first_part_comes_after_the_methods_default(line, threats):
    assert [word for word in words(attack, line) if "threat" in word.partition("=")[0]] == threats


def test_a_threat_in_a_file_is_begun_already(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("by: {name: cw, threat: {eps: 0.3}}\n")
    (config, eps) = words(attack, f"--config {file} --by.threat.eps 0.5")
    assert "threat: {norm: l2, eps: 0.3, box: [0.0, 1.0]}" in config or "eps: 0.3, norm: l2" in config
    assert eps == "--by.threat.eps=0.5"
    file.write_text("by: {name: cw}\n")
    assert words(attack, f"--config {file} --by.threat.eps 0.5")[1:] == [L2, "--by.threat.eps=0.5"]


def test_of_several_the_last_is_meant():
    (threat,) = [word for word in words(audit, "--attacks cw,pgd --attacks.threat.eps 0.5") if "threat=" in word]
    assert "norm: linf" in threat


def test_options_are_completed():
    assert completed(CW, {"threat": {"eps": 0.5}})["threat"] == {"norm": "l2", "eps": 0.5, "box": [0.0, 1.0]}
    assert completed(CW, {"threat": {"box": None}})["threat"] == {"norm": "l2", "eps": math.inf, "box": None}
    assert completed(PGD, {"steps": 3}) == {"steps": 3}
