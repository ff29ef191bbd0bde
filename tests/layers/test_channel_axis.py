"""Where the channels are: maps of images, features of tokens, in every order that networks have them."""

import pytest
import torch
from torch import nn

from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.channels import Channels
from buttress.errors import UserError
from buttress.layers.channel_axis import channel_axis
from buttress.layers.rows import layouts
from buttress.threat import Threat

X = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(0))  # as many inputs as tokens as features


class Tokens(nn.Module):
    """A token layer with an activation, and its map of images; the sequence first where asked for."""

    def __init__(self, sequence_first=False):
        super().__init__()
        self.sequence_first = sequence_first
        self.embed, self.act, self.head = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x):
        h = self.act(self.embed(x.transpose(0, 1) if self.sequence_first else x))
        return self.head(h.mean(0 if self.sequence_first else 1))


class Patches(nn.Module):
    """A convolution whose maps become tokens, 9 of them or 4, as many as it has channels."""

    def __init__(self, size):
        super().__init__()
        self.patch, self.tokens, self.side = nn.Conv2d(1, 4, 2, 2), nn.Tanh(), size
        self.images, self.both = nn.Tanh(), nn.Tanh()
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        maps = self.images(self.patch(x))
        self.both(torch.cat([maps, maps], 1))
        return self.head(self.tokens(maps.flatten(2).mT).mean(1))


class Passed(Tokens):
    """Hands its features on through a module that does nothing."""

    def __init__(self):
        super().__init__()
        self.act = nn.Identity()


def seeded(build):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return build().eval()


def axis(model, x, layer):
    return channel_axis(model, x, layer, layouts(model, x, [layer])[layer])


@pytest.mark.parametrize("sequence_first", [False, True])
def test_features_of_tokens_are_on_the_last_axis(sequence_first):
    model = seeded(lambda: Tokens(sequence_first))
    assert [axis(model, X, name) for name in ("embed", "act")] == [2, 2]
    assert axis(model, X, "head") == 1
    assert axis(seeded(Passed), X, "act") == 2


def test_maps_that_become_tokens():
    model, x = seeded(lambda: Patches(6)), torch.rand(2, 1, 6, 6)
    assert {name: axis(model, x, name) for name in ("patch", "images", "both", "tokens")} == {
        **dict.fromkeys(("patch", "images", "both"), 1),
        "tokens": 2,
    }
    square = torch.rand(2, 1, 4, 4)
    with pytest.raises(UserError, match=r"which axis of tokens \(N, 4, 4\) its channels are on cannot be told"):
        axis(seeded(lambda: Patches(4)), square, "tokens")


def test_a_recurrent_layer_and_one_number_for_each_input():
    lstm = seeded(lambda: nn.Sequential(nn.LSTM(4, 5, batch_first=True), First(), nn.Linear(5, 2), nn.Flatten(0)))
    assert axis(lstm, X, "0") == 2


class First(nn.Module):
    def forward(self, x):
        return x[0][:, -1]


def test_the_audit_reads_a_layer_of_one_number_for_each_channel():
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3)))
    y = torch.tensor([0, 1, 2, 0])
    data = Channels(attack=FGSM(threat=Threat(eps=0.01)), layer="2", classes=[0])(model, [(X, y)]).data
    with torch.no_grad():
        means = model[:3](X)[y == 0].mean(0)
    order = means.argsort(descending=True)
    torch.testing.assert_close(torch.tensor(data["curves"][0]["clean"]), (means / means.max())[order])


@pytest.mark.parametrize("sequence_first", [False, True])
def test_the_audit_takes_features_of_tokens_for_channels(sequence_first):
    """Activations by hand: the mean over tokens of each feature, and the head's weights over the number of tokens."""
    model = seeded(lambda: Tokens(sequence_first))
    y = torch.tensor([0, 1, 2, 0])
    finding = Channels(attack=FGSM(threat=Threat(eps=0.01)), layer="act")(model, [(X, y)])
    assert finding.data["channels"] == 4
    curve = finding.data["curves"][0]
    k = int(curve["class"])
    with torch.no_grad():
        means = torch.relu(model.embed(X)).mean(1)[y == k].mean(0)
    order = means.argsort(descending=True)
    torch.testing.assert_close(torch.tensor(curve["clean"]), (means / means.max())[order], check_dtype=False)
    relevance = model.head.weight[k].detach()[order]
    torch.testing.assert_close(torch.tensor(curve["relevance"]), relevance, check_dtype=False)
