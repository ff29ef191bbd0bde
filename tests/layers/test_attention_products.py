"""Attention that is written by hand is told once, by its softmax; other products beside a softmax are told."""

import pytest
import torch
from torch import nn

from buttress import models
from buttress.layers.paths import trace

X = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))


def missed(network):
    return trace(nn.Sequential(network, nn.Flatten()), X, (), check=False).missed


class Attention(nn.Module):
    def __init__(self, change=lambda scores: scores):
        super().__init__()
        self.qkv, self.change = nn.Linear(4, 12), change

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = self.change(q @ k.transpose(1, 2) / 2)
        return (scores.softmax(-1)[:, None] @ v[:, None]).mean(1)


CHANGES = {
    "plain": lambda scores: scores,
    "a bias": lambda scores: scores + torch.eye(3),
    "causal": lambda scores: scores.masked_fill(torch.ones(3, 3).triu(1) > 0, float("-inf")),
    "a view": lambda scores: scores.contiguous().view(2, 3, 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_attention_is_told_by_its_softmax(change):
    assert missed(Attention(CHANGES[change])) == ["0.softmax of the input"]


class Einsum(Attention):
    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return torch.einsum("nts,nsd->ntd", torch.einsum("ntd,nsd->nts", q, k).softmax(-1), v)


class Linear(Attention):
    """Without a softmax."""

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return q @ (k.transpose(1, 2) @ v)


class Classified(nn.Module):
    """A product, a layer, and the softmax of the output, which has nothing to do with it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        return self.head(x @ x.transpose(1, 2)).softmax(-1)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Einsum, ["0.softmax of the input"]),
        (Linear, ["0.matmul of the input (2 times)"]),
        (Classified, ["0.matmul of the input", "0.softmax of the input"]),
    ],
)
def test_products_that_are_attentions_and_others(network, told):
    assert missed(network()) == told


class Torch(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def test_attention_of_torch_is_known():
    assert missed(Torch()) == []


def test_a_vision_transformer_is_told_its_softmax_in_each_block():
    network = models.create("vit", classes=3, channels=1, image_size=8).eval()
    told = trace(network, torch.rand(1, 1, 8, 8), "activations").missed
    assert [line.partition(" ")[0] for line in told] == [f"blocks.{k}.mixer.softmax" for k in range(4)]
