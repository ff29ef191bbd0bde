"""Defences that read or change layers find each input's part of them, whatever axis it is on."""

import pytest
import torch
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.defences import Batch
from buttress.defences.apart.defence import APART
from buttress.defences.dial.defence import DIAL
from buttress.defences.iat import IAT
from buttress.defences.ladder.latent_space import Encoder
from buttress.errors import UserError
from buttress.threat import Threat

THREAT = Threat(eps=0.07)


class Rows(nn.Module):
    """An image's rows are tokens, read by a recurrent layer with the sequence or the inputs first; the same weights."""

    def __init__(self, sequence_first):
        super().__init__()
        self.sequence_first = sequence_first
        self.table = nn.Linear(6, 6)
        self.position = nn.Parameter(torch.eye(6))
        self.recurrent = nn.GRU(6, 6, batch_first=not sequence_first)
        self.act, self.inner, self.out = nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        h = x.squeeze(1) + self.table(self.position)
        h = self.recurrent(h.transpose(0, 1) if self.sequence_first else h)[0]
        h = self.inner(self.act(h))
        return self.out(h).mean(0 if self.sequence_first else 1)


@pytest.fixture
def both(nets):
    """The network in both orders, in float64."""
    return [nets.seeded(lambda order=order: Rows(order)).double().train() for order in (True, False)]


@pytest.fixture
def square(images):
    """As many inputs as tokens, so that no length tells which axis is which."""
    x, y, ids = images.train.take(torch.arange(6))
    return Batch(x.double(), y, ids)


def losses(defences, both, square, images, context):
    found = []
    for model, defence in zip(both, defences, strict=True):
        defence.prepare(model, images, 3)
        values = [defence.loss(model, square, context(model, square, index=i)).value for i in range(6)]
        found.append([value.item() for value in values])
    return found


@pytest.mark.parametrize("layer", [None, "act", "recurrent"])
def test_dial(layer, both, square, images, context):
    """The last linear layer's input, or a named layer, is the features of each input in either order."""
    defences = [DIAL(THREAT, steps=1, layer=layer) for _ in both]
    first, second = losses(defences, both, square, images, context)
    assert first == pytest.approx(second, rel=1e-9)


def test_iat(both, square, images, context):
    attack = PGD(threat=THREAT, steps=1)
    defences = [IAT(attack, variant="manifold", layers=["recurrent", "act"]) for _ in both]
    first, second = losses(defences, both, square, images, context)
    assert first == pytest.approx(second, rel=1e-9)


@pytest.mark.parametrize("layer", ["recurrent", "act", "out:input"])
def test_latent_layers(layer, both, square):
    if layer == "recurrent":  # a tuple, which is no latent vector
        layer = "inner"
    one, other = (Encoder(model, layer)(square.x) for model in both)
    assert one.shape == (6, 36)
    torch.testing.assert_close(one, other)


def test_what_is_the_same_for_all_inputs_is_refused(both, images):
    line = r"^the layer 'table' has no part for each input, for it does not depend on the input: name another$"
    for defence in (
        DIAL(THREAT, layer="table"),
        IAT(PGD(threat=THREAT), variant="manifold", layers=["table"]),
        APART(THREAT, layers=["table"]),
    ):
        with pytest.raises(UserError, match=line):
            defence.prepare(both[0], images, 0)
    with pytest.raises(UserError, match="the latent layer 'table' has no part for each input"):
        Encoder(both[0], "table")(torch.zeros(6, 1, 6, 6, dtype=torch.float64))
