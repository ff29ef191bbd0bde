"""Jobs on networks of tokens: analysed from the embedding on, and where that is not possible one line says so."""

import json

import pytest
import torch

from buttress import models
from buttress.cli.main import main
from buttress.jobs.settings import Network, Source, open_network
from buttress.jobs.tokens import tokens_remark

FILE = """
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


def data():
    random = np.random.default_rng(0)
    x, y = random.integers(0, 9, (60, 6)), np.arange(60) % 3
    return (x[:40], y[:40]), (x[40:], y[40:])


def larger():
    train, (x, y) = data()
    return train, (x + 1, y)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "reader.py"
    path.write_text(FILE)
    return path


def test_a_network_of_tokens_is_opened_from_its_embedding_on(file):
    reference, source = f"{file}:Reader", Source(data=f"{file}:data")
    model, dataset, _ = open_network(reference, Network(), source, 0)
    assert isinstance(model, models.FromEmbedding)
    assert tokens_remark(model).startswith("the inputs are tokens: the network is analysed from words on")
    assert dataset.box is None
    tokens, _ = source.load(0)
    torch.testing.assert_close(dataset.test.x, model.model.words.weight[tokens.test.x.long()], rtol=0, atol=0)
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
        (["harden", "--model", "{}:Reader", "--data", "{}:data"], "takes tokens, and the inputs are torch.float32"),
        (["harden", "{}:Reader", "--data", "{}:data"], "harden takes networks of numbers"),
        (["train", "--model", "{}:Reader", "--data", "{}:data"], "takes tokens, and the inputs are torch.float32"),
        (["audit", "{}:Reader", "--data", "digits"], "takes tokens, and the inputs are torch.float32"),
    ],
)
def test_what_cannot_be_is_one_line(file, tmp_path, capsys, words, line):
    assert main([word.format(file) for word in words] + ["--out", str(tmp_path / "out")]) == 2
    assert line in capsys.readouterr().err
