"""What a user's network does wrong, as a command tells it."""

NETWORKS = """
import torch
from torch import nn


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.first(x).exp()
        output = self.last(hidden)
        hidden.add_(1)
        return output


def stock():
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


class Named(nn.Module):
    def forward(self, *, pixels, mask=None):
        return pixels

"""


def test_what_comes_of_a_backward_pass_is_the_networks(here, run, runs):
    (here / "nets.py").write_text(NETWORKS)
    told = run("train new --data moons --data-args.samples 60 --model nets.py:InPlace --epochs 1")
    assert told.status == 2
    assert told.err.startswith(
        "buttress: the network InPlace (nets.py, line 6, InPlace), in its backward pass: RuntimeE"
    )
    assert "modified by an inplace operation" in told.err


def test_a_network_of_libraries_modules_alone_is_the_users_too(here, run):
    """Torch refuses a batch of one in training mode, and no line of the user's is in the traceback."""
    (here / "nets.py").write_text(NETWORKS)
    told = run("train new --data moons --data-args.samples 60 --model nets.py:stock --epochs 1 --batch-size 1")
    assert (told.status, told.err.count("\n")) == (2, 1)
    assert told.err.startswith("buttress: the network Sequential: ValueError: Expected more than 1 value per channel")


def test_a_forward_that_inputs_alone_cannot_call_is_told_with_the_adapter(here, run):
    (here / "nets.py").write_text(NETWORKS)
    told = run("audit nets.py:Named --out new --data moons")
    assert told.status == 2
    assert told.err == (
        "buttress: Named.forward(*, pixels, mask=None) cannot be called with the inputs alone (too many positional "
        "arguments): write a module around it with def forward(self, x): return self.network(pixels=x)\n"
    )
