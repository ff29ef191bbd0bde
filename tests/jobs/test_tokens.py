"""Jobs on networks of tokens, from the embedding on; where that is not possible one line says so."""

import json

import numpy as np
import pytest
import torch

from buttress import models
from buttress.audits.base.finding import read
from buttress.cli.main import main
from buttress.jobs.settings import Network, Source, open_network
from buttress.jobs.tokens import tokens_remark
from buttress.threat import Threat
from buttress.training import load

pytestmark = pytest.mark.usefixtures("_short_searches")

FILE = """
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Reader(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(9, 8), nn.Embedding(6, 8)
        self.block, self.act, self.head = nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, classes)

    def forward(self, tokens):
        h = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        return self.head(self.act(self.block(h)).mean(1))


class Masked(Reader):
    def forward(self, tokens):
        return super().forward(tokens) * (tokens != 0).sum(1, keepdim=True)


def data():
    kept = np.load(Path(__file__).with_name("reviews.npz"))
    return (kept["x"][:40], kept["y"][:40]), (kept["x"][40:], kept["y"][40:])


def larger():
    train, (x, y) = data()
    return train, (x + 1, y)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "reader.py"
    path.write_text(FILE)
    x = np.random.default_rng(0).integers(0, 9, (60, 6))
    np.savez(tmp_path / "reviews.npz", x=x, y=np.array([np.bincount(row // 3, minlength=3).argmax() for row in x]))
    return path


def test_a_network_of_tokens_is_opened_from_its_embedding_on(file):
    reference, source = f"{file}:Reader", Source(data=f"{file}:data")
    model, dataset, _ = open_network(reference, Network(), source, 0)
    assert isinstance(model, models.FromEmbedding)
    remark = tokens_remark(model, dataset, Threat(eps=0.5, box=None))
    assert remark.startswith("the inputs are tokens: the network is analysed from words on, whose values the attacks")
    spread = model.model.words.weight[dataset.test.x.long()].flatten(0, 1).double().var(0, correction=0).mean().sqrt()
    assert remark.endswith(f"standard deviation of {spread:.3g}, of which eps 0.5 is {0.5 / spread:.2g}")
    assert dataset.box is None
    tokens, _ = source.load(0)
    values, _, _ = dataset.test.take(torch.arange(len(dataset.test)))
    assert torch.equal(values, model.model.words.weight[tokens.test.x.long()])
    assert not model.training


@pytest.mark.parametrize("audits", [["--audits", "layers"], ["--audits", "lipschitz,channels"], []])
def test_audits_on_the_command_line(file, tmp_path, capsys, audits):
    out = tmp_path / "out"
    words = ["audit", f"{file}:Reader", "--data", f"{file}:data", "--threat.eps", "0.3", "--out", str(out), *audits]
    assert main(words) == 0
    said = capsys.readouterr()
    assert "the inputs are tokens: the network is analysed from words on" in said.out + said.err
    kept = json.loads((out / "findings.json").read_text())
    assert "analysed from words on" in json.dumps(kept)
    if audits == ["--audits", "layers"]:
        assert "act" in json.dumps(kept["networks"])


def test_an_attack_on_the_command_line(file, tmp_path):
    out = tmp_path / "out"
    words = ["attack", f"{file}:Reader", "--data", f"{file}:data", "--by", "fgsm", "--out", str(out)]
    assert main([*words, "--threat.eps", "0.3"]) == 0
    assert (out / "examples.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["audit", "{}:Reader", "--data", "{}:larger"], "words has 9 tokens, from 0 on; the data have 1 to 9"),
        (
            ["train", "--model", "{}:Reader", "--data", "{}:larger"],
            "words has 9 tokens, from 0 on; the data have 1 to 9",
        ),
        (
            ["harden", "--model", "{}:Masked", "--data", "{}:data"],
            "the network reads its tokens not only through words",
        ),
        (["train", "--model", "{}:Reader", "--data", "{}:data", "--defence", "gat"], "gat keeps what it made of"),
        (["audit", "{}:Reader", "--data", "digits"], "takes tokens, and the inputs are torch.float32"),
    ],
)
def test_what_cannot_be_is_one_line(file, tmp_path, capsys, words, line):
    assert main([word.format(file) for word in words] + ["--out", str(tmp_path / "out")]) == 2
    assert line in capsys.readouterr().err


def test_from_training_to_the_comparison_on_the_command_line(file, tmp_path, capsys):
    """Each network is audited on its own values of the same tokens, so they are compared input by input."""
    reader, eps = ["--model", f"{file}:Reader", "--data", f"{file}:data"], ["--threat.eps", "0.3"]
    few = ["--epochs", "1", "--attacks", "fgsm", "--gamma", "0.1", *eps]

    def run(*words):
        assert main([str(word) for word in words]) == 0, capsys.readouterr().err

    run("train", *reader, "--epochs", "2", "--defence", "fast", *eps, "--out", tmp_path / "at")
    network = load(tmp_path / "at")
    assert type(network).__name__ == "Reader"
    assert network(torch.zeros(2, 6, dtype=torch.int64)).shape == (2, 3)
    run("train", *reader, "--epochs", "2", "--out", tmp_path / "plain", "--dry-run")
    run("harden", tmp_path / "at", "--base", "fast", *few, "--out", tmp_path / "hardened")
    for name, folder in (("before", tmp_path / "at"), ("after", tmp_path / "hardened" / "hardened")):
        run("audit", folder, "--audits", "robustness", "--attacks", "fgsm", *eps, "--out", tmp_path / name)
    run("compare", tmp_path / "before", tmp_path / "after", "--out", tmp_path / "both")
    capsys.readouterr()
    _, about = read(tmp_path / "both" / "findings.json")
    assert about["robust accuracy against the last"][0]["change"] in ("none", "gain", "loss")
    _, about = read(tmp_path / "hardened" / "report" / "findings.json")
    assert about["settings"]["regularised layers"] == ["act"]


def test_a_trained_network_is_exported_with_integer_inputs(file, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    words = ["train", "--model", f"{file}:Reader", "--data", f"{file}:data", "--epochs", "1"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--onnx", str(tmp_path / "reader.onnx")]) == 0
    assert "x (N, 6) to logits (N, classes)" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(tmp_path / "reader.onnx"))
    assert session.get_inputs()[0].type == "tensor(int64)"
    x = torch.randint(0, 9, (7, 6))
    (logits,) = session.run(["logits"], {"x": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), load(tmp_path / "run")(x))
