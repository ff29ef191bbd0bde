"""Jobs on several labels and on values, from a user's file to the report."""

import json

import pytest
import torch
from safetensors.torch import load_file

from buttress import tasks
from buttress.cli import main
from buttress.data import load as load_data
from buttress.errors import UserError

FILE = """
import numpy as np

def labels(seed=0):
    random = np.random.default_rng(seed)
    x = random.random((60, 1, 6, 6), dtype=np.float32)
    y = (x.reshape(60, -1) - 0.5) @ random.normal(size=(36, 3)) > 0
    return (x[:48], y[:48]), (x[48:], y[48:])

def values(seed=0):
    (x, y), (x_test, y_test) = labels(seed)
    return (x, x.mean((1, 2, 3))), (x_test, x_test.mean((1, 2, 3)))

def counts(seed=0):
    (x, y), (x_test, y_test) = values(seed)
    return (x, np.arange(48) % 7 - 3), (x_test, np.full(12, 9))

def column(seed=0):
    (x, y), (x_test, y_test) = labels(seed)
    return (x, 3 * y[:, :1].astype(int)), (x_test, 3 * y_test[:, :1].astype(int))
"""
SMALL = ["--epochs", "1", "--model-args", "{width: 2}"]


@pytest.fixture(autouse=True)
def tags(tmp_path, monkeypatch):
    (tmp_path / "tags.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("task", "data", "score"),
    [("multi-label", "labels", "exact match"), ("regression", "values", "share within tolerance")],
)
def test_train_audit_attack_and_compare(task, data, score, tags):
    assert (
        main(
            [
                "train",
                "run",
                "--data",
                f"tags.py:{data}",
                "--task",
                task,
                "--defence",
                "trades",
                "--threat.eps",
                "0.05",
                *SMALL,
            ]
        )
        == 0
    )
    assert json.loads((tags / "run/model.json").read_text())["task"]["name"] == task
    audit = ["audit", "run", "--attacks", "pgd", "--attacks.steps", "2", "--precision", "fp32", "--out", "audit"]
    assert main(audit) == 0  # the run's own task
    findings = json.loads((tags / "audit/findings.json").read_text())
    kinds = {finding["kind"]: finding for finding in next(iter(findings["networks"].values()))}
    assert set(kinds) == {"robustness", "layers", "examples"}
    assert kinds["robustness"]["data"]["score"] == score
    page = (tags / "audit/report.html").read_text()
    assert f"Robust {score}" in page
    assert "classified" not in page
    assert main(["attack", "run", "--by", "fmn", "--by.steps", "30", "--out", "examples"]) == 0
    made = load_file(tags / "examples/examples.safetensors")
    assert made["y"].shape == ((12, 3) if data == "labels" else (12,))
    assert made["beaten"].bool().any()


def test_what_needs_classes_is_refused_before_anything_is_written(tags, capsys):
    settings = ["--data", "tags.py:labels", "--task", "multi-label", *SMALL]
    assert main(["train", "run", "--defence", "mart", *settings]) == 2
    assert "mart needs classes, which multi-label has not: use at, trades, " in capsys.readouterr().err
    assert not (tags / "run").exists()
    assert main(["train", "run", *settings]) == 0
    for words, name in (
        (["audit", "run", "--audits", "masking"], "masking"),
        (["attack", "run", "--by", "fab"], "FAB-"),
    ):
        capsys.readouterr()
        assert main([*words, "--out", "out"]) == 2
        assert f"{name}" in (line := capsys.readouterr().err)
        assert "needs classes, which multi-label has not: use " in line
        assert not (tags / "out").exists()


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        ("labels", "for several labels per input, use task=tasks.MultiLabel(), or --task multi-label"),
        ("values", "for values, use task=tasks.Regression(), or --task regression"),
        ("column", "use y.squeeze(1)"),
    ],
)
def test_without_the_task_it_is_named(data, hint, capsys):
    assert main(["train", "run", "--data", f"tags.py:{data}", *SMALL]) == 2
    assert hint in capsys.readouterr().err


def test_integers_are_values_under_regression(tags):
    """The network has one output, not one for each number; none of them has to be a class."""
    settings = ["--data", "tags.py:counts", "--task", "regression", "--defence", "standard", *SMALL]
    assert main(["train", "run", *settings]) == 0
    assert json.loads((tags / "run/model.json").read_text())["classes"] == ["0"]
    audit = ["audit", "run", "--attacks", "pgd", "--attacks.steps", "2", "--precision", "fp32", "--out", "audit"]
    assert main(audit) == 0
    assert load_data("tags.py:counts", task=tasks.Regression()).test.y.tolist() == [9.0] * 12


def test_float_labels_are_not_cut_off():
    """Arrays of values stay values, whatever whole numbers are near."""
    data = load_data("tags.py:values")
    assert data.train.y.dtype == torch.float32
    assert data.classes == ("0",)
    assert data.limited(10).train.y.shape == (10,)
    with pytest.raises(UserError, match="expected labels of type int64"):
        load_data("tags.py:column")
