"""The checks for a GPU run in a tiny form on the CPU, keep what they find, and end in time."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
FIGURES = {
    "attacks": {"plain loop", "buttress fp32", "buttress twin"},
    "training": {f"{m}, {way}" for m in ("PGD-10", "N-FGSM") for way in ("plain loop", "fp32", "twin and bf16")},
    "autoattack": {"buttress fp32", "buttress twin"},
    "scratch": {"synthetic"},
}


@pytest.fixture(scope="module")
def gpu():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gpu")
        for name in ("gpu", "training"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize("name", FIGURES)
def test_a_check_tells_each_contender(gpu, name, capsys):
    size = replace(gpu.TINY, width=2, images=20)
    assert gpu.BY_NAME[name](gpu.Work(torch.device("cpu"), size, None))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(gpu.MARK)]
    rows = {row["row"]: row for row in (json.loads(line.removeprefix(gpu.MARK)) for line in lines)}
    assert rows.keys() - {"torchattacks"} == FIGURES[name]
    for row in rows.values():
        assert 0 <= row.get("robust", 0) <= 1
        assert row.get("seconds", 1) > 0
        assert row.get("images_per_second", 1) > 0


def test_a_point_outside_the_threat_fails_the_check(gpu, capsys):
    work, x, y = gpu.Work(torch.device("cpu"), gpu.TINY, None), torch.full((4, 3), 0.5), torch.arange(4) % 3
    assert gpu.compared(work, torch.nn.Linear(3, 3), x, y, {"fair": lambda: x + gpu.EPS})
    assert not gpu.compared(work, torch.nn.Linear(3, 3), x, y, {"unfair": lambda: x + 2 * gpu.EPS})
    assert '"outside_the_threat": true' in capsys.readouterr().out


def test_a_check_that_takes_too_long_is_ended_and_kept(gpu, monkeypatch, tmp_path):
    kept = tmp_path / "gpu.jsonl"
    words = ["--accelerator", "cpu", "--tiny", "--only", "attacks", "scratch", "--limit", "0.2", "--out", str(kept)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    assert gpu.main() == 1
    first, *ended = [json.loads(line) for line in kept.read_text().splitlines()]
    assert first["device"] == "CPU"
    assert [(row["check"], row["ended"]) for row in ended] == [("attacks", "out of time"), ("scratch", "out of time")]


def test_all_limits_together_are_under_twelve_minutes(gpu):
    assert sum(gpu.CHECKS.values()) < 12 * 60
