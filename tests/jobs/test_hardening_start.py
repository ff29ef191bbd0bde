"""What harden takes is what audit takes; two spellings mean one thing; where trainings start is said and so."""

import pytest
import torch
from torch import nn

from buttress import models
from buttress.errors import UserError
from buttress.jobs import Network, Source
from buttress.jobs.hardening_start import Start
from buttress.jobs.settings import open_network

SOURCE = Source(data="moons", data_args={"samples": 60, "test": 24})


def net(hidden: int = 4):
    return nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 2))


def pretrained():
    made = net()
    with torch.no_grad():
        for value in made.parameters():
            value.fill_(0.5)
    return made


HERE = f"{__file__}:net"


@pytest.fixture
def weights(tmp_path):
    torch.save({"model": pretrained().state_dict()}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_two_spellings_of_one_command_mean_one_thing(weights):
    starts = [
        Start.of(HERE, Network(weights=weights), SOURCE, 0),
        Start.of(None, Network(model=HERE, weights=weights), SOURCE, 0),
    ]
    for start in starts:
        assert (start.given, start.name) == (True, HERE)
        assert equal(start.original, pretrained())
        assert not equal(start.fresh(), pretrained())
        assert start.words == (
            f"original is {HERE} as it is; base and hardened start from new weights (--start given: from its own)"
        )
    assert equal(starts[0].fresh(), starts[1].fresh())


def test_trainings_start_from_the_given_weights_when_asked_and_leave_the_original_alone(weights):
    start = Start.of(HERE, Network(weights=weights), SOURCE, 0, "given")
    assert start.words == (
        f"original is {HERE} as it is; base and hardened start from its weights (--start given); figures of validation "
        "images that it was trained on are too good"
    )
    fresh = start.fresh()
    assert equal(fresh, start.original)
    with torch.no_grad():
        fresh[0].weight.zero_()
    assert equal(start.original, pretrained())
    assert models.spec_of(fresh)["name"] == HERE
    with pytest.raises(UserError, match="--start given needs a trained network"):
        Start.of(None, Network(model=HERE), SOURCE, 0, "given")


def test_a_function_that_brings_its_weights_is_told():
    start = Start.of(f"{__file__}:pretrained", Network(), SOURCE, 0)
    assert start.words.endswith(
        "the weights that " + f"{__file__}:pretrained gives its network, which are those of original"
    )


def test_what_audit_refuses_harden_refuses_in_the_same_words(tmp_path, weights):
    (tmp_path / "net.pt").write_bytes(b"")
    for reference, network in (
        ("nowhere", Network()),
        (str(tmp_path), Network()),
        (str(tmp_path / "net.pt"), Network()),
        (HERE, Network(weights=tmp_path / "none.pt")),
        (HERE, Network(weights=weights, head="new")),
        (HERE, Network(weights=weights, weights_key="ema")),
    ):
        lines = []
        for call in (open_network, Start.of):
            with pytest.raises(UserError) as error:
                call(reference, network, SOURCE, 0)
            lines.append(str(error.value))
        assert lines[0] == lines[1]
    with pytest.raises(UserError, match="give --weights, or type --model mlp to have one trained first"):
        Start.of("mlp", Network(), SOURCE, 0)
