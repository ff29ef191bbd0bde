"""Where the channels are: maps of images, features of tokens, in every order that networks have them."""

import pytest
import torch
import torch.nn.functional as F
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


class Raw(nn.Module):
    """Tokens (N, 6, 4) by parameters of the network's own, 5 features of each, in the way that ``product`` has."""

    def __init__(self, product):
        super().__init__()
        self.w, self.v, self.b = (nn.Parameter(torch.randn(*size)) for size in ((4, 5), (6, 4, 5), (6, 5)))
        self.table, self.gate = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(6, 4))
        self.register_buffer("neighbours", torch.rand(6, 6))
        self.linear = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
        self.product = product

    def forward(self, x):
        return torch.relu(self.product(self, x)).flatten(1)[:, :3]


PRODUCTS = {
    "@": (lambda net, x: x @ net.w, 2),
    "of a transposed weight": (lambda net, x: net.w.T @ x.mT, 1),
    "of a masked weight": (lambda net, x: x @ (net.w * torch.ones(4, 1)), 2),
    "of a normalised weight": (lambda net, x: net.linear(x), 2),
    "by linear": (lambda net, x: F.linear(x, net.w.T), 2),
    "by addmm": (lambda net, x: torch.addmm(net.b[0], x.flatten(0, 1), net.w).view(-1, 6, 5), 2),
    "by each token's weight": (lambda net, x: torch.bmm(x.transpose(0, 1), net.v), 2),
    "by einsum": (lambda net, x: torch.einsum("ntc,cd->ndt", x, net.w), 1),
    "by einsum with dots": (lambda net, x: torch.einsum("...c,cd->...d", x, net.w), 2),
    "of experts": (lambda net, x: x[:, 0] @ net.v, 2),
    "before a table": (lambda net, x: x @ net.w + net.table, 2),
    "after a gate": (lambda net, x: (x * net.gate) @ net.w, 2),
    "before neighbours are mixed": (lambda net, x: net.neighbours @ (x @ net.w), 2),
    "before tokens are mixed": (lambda net, x: (x @ net.w).transpose(0, 1), 2),
    "by a kernel": (lambda net, x: F.conv1d(x.mT, net.w.T[..., None]), 1),
    "beside another one that is computed later": (lambda net, x: (x @ net.w, x.mean(1) @ net.w)[0], 2),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_weights_of_the_networks_own_tell_their_features(product):
    compute, expected = PRODUCTS[product]
    model, x = seeded(lambda: Raw(compute)), torch.rand(5, 6, 4)
    assert axis(model, x, "relu") == expected


UNTOLD = {
    "einsum with two axes of the weights": lambda net, x: torch.einsum("nc,ecd->end", x[:, 0], net.v),
    "no weights": lambda net, x: x,
    "a gate alone": lambda net, x: x * net.gate,
    "weights under vmap": lambda net, x: torch.vmap(lambda w: x[:, 0] @ w)(net.v),
}


@pytest.mark.parametrize("product", UNTOLD)
def test_what_cannot_be_told_is_refused_and_not_guessed(product):
    with pytest.raises(UserError, match=r"which axis of relu \(N, 6, [45]\) its channels are on cannot be told"):
        axis(seeded(lambda: Raw(UNTOLD[product])), torch.rand(5, 6, 4), "relu")


def test_images_before_all_weights_have_their_maps_first():
    model = seeded(lambda: nn.Sequential(nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten()))
    assert axis(model, torch.rand(4, 3, 5, 5), "0") == 1


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
