"""What is done to inputs before a network of any kind: an option counts, or is refused; what was done is said."""

import sys
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from buttress import fit, models, tasks
from buttress.data.sets.digits import digits
from buttress.defences import Standard
from buttress.errors import UserError
from buttress.jobs.hardening_start import Start
from buttress.jobs.settings import Network, Source, open_network
from buttress.models.onnx import export_onnx

MEAN, STD = 0.6, 0.05
SOURCE = Source(data="digits", limit=100)


class Net(nn.Module):
    """With an activation and a convolution, for all surgery to act on; two outputs, for one to be picked."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Linear(width, 10)

    def forward(self, x):
        features = self.act(self.conv(x)).mean((2, 3))
        return self.fc(features)


def net(width: int = 4):
    return Net(width)


def inside(width: int = 4):
    return models.Normalized(net(width), MEAN, STD)


HERE = f"{__file__}:net"


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A reference of each kind of network, with what it takes besides."""
    folder = tmp_path_factory.mktemp("kinds")
    data = SOURCE.load(0)[0]
    made = Network(model=HERE).create(data, 0)
    fit(made, data, Standard(), epochs=1, validate_with="none", out=folder / "run", facts={"source": SOURCE.load(0)[1]})
    models.save_weights(net(), folder / "net.safetensors")
    cnn = Network(model="cnn", model_args={"width": 4}).create(data, 0)
    models.save_weights(cnn, folder / "cnn.safetensors")
    export_onnx(net().eval(), folder / "net.onnx", data.test.take(torch.arange(3))[0])
    return {
        "run": (str(folder / "run"), Network()),
        "function": (HERE, Network()),
        "function with weights": (HERE, Network(weights=folder / "net.safetensors")),
        "architecture": ("cnn", Network(weights=folder / "cnn.safetensors", model_args={"width": 4})),
        "onnx": (str(folder / "net.onnx"), Network()),
    }


# A value of each option that is not its default and that a network takes where the option counts.
OTHER = {
    "model": lambda folder: "resnet18",
    "model_args": lambda folder: {"width": 5},
    "normalise": lambda folder: f"{MEAN}/{STD}",
    "weights": lambda folder: folder / "other.safetensors",
    "weights_key": lambda folder: "ema",
    "strict": lambda folder: False,
    "head": lambda folder: "new",
    "output": lambda folder: "0",
    "activation": lambda folder: "silu",
    "stem_stride": lambda folder: 2,
    "task": lambda folder: tasks.Ordinal(),
}


KINDS = ("run", "function", "function with weights", "architecture", "onnx")

# Refused for what the option says, not for saying it.
LOOKED_AT = {
    **{(kind, "weights"): "other.safetensors does not fit" for kind in ("run", "function", "architecture")},
    ("function with weights", "weights"): "other.safetensors does not fit",
    ("function with weights", "model_args"): "net.safetensors does not fit",
    ("architecture", "model_args"): "cnn.safetensors does not fit",
    **{(kind, "output"): "returns a Tensor" for kind in ("run", "function", "function with weights", "architecture")},
    **{(kind, "weights_key"): "has no tensors under 'ema'" for kind in ("function with weights", "architecture")},
    **{(kind, "strict"): "--strict false has no effect" for kind in ("function with weights", "architecture")},
    **{(kind, "head"): "--head new gives an untrained last layer" for kind in KINDS if kind != "run"},
    ("onnx", "output"): "has no output '0'",
    ("architecture", "normalise"): "--normalise has no effect on .*cnn.safetensors, which has its own mean and std",
}


def seen(network, dataset):
    x = dataset.test.take(torch.arange(20))[0]
    with torch.no_grad():
        return network(x)


@pytest.mark.parametrize("option", [field.name for field in fields(Network) if field.name != "model"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_network_changes_it_or_is_refused_by_its_name(kind, option, kinds, tmp_path):
    reference, given = kinds[kind]
    before, dataset, facts = open_network(reference, given, SOURCE, seed=0)
    if option == "weights" and kind != "onnx":
        models.save_weights(models.Normalized(nn.Identity(), 0, 1), tmp_path / "other.safetensors")
    changed, line = replace(given, **{option: OTHER[option](tmp_path)}), f"--{option.replace('_', '-')} has no effect"
    if (kind, option) in LOOKED_AT:
        line = LOOKED_AT[kind, option]
    try:
        after, _, now = open_network(reference, changed, SOURCE, seed=0)
    except UserError:
        with pytest.raises(UserError, match=line):
            open_network(reference, changed, SOURCE, seed=0)
        return
    if option == "task":
        assert now.get("task") != facts.get("task")
        return
    one, other = seen(before, dataset), seen(after, dataset)
    assert one.shape != other.shape or not torch.equal(one, other), f"{option} has no effect on a {kind}"


def test_statistics_stand_before_a_network_of_the_users_own():
    """It was trained on normalised inputs; as they are, they are another thing to it."""
    torch.manual_seed(0)
    own = net()
    dataset = digits().limited(100)
    x = dataset.test.take(torch.arange(10))[0]
    for normalise, mean, std in ((f"{MEAN}/{STD}", MEAN, STD), ("half", 0.5, 0.5), ("0..255", 0, 1 / 255)):
        made = Network(model=HERE, normalise=normalise).create(dataset, seed=3)
        plain = Network(model=HERE).create(dataset, seed=3)
        torch.testing.assert_close(made(x), plain((x - mean) / std))
    for normalise in ("data", "true", True):
        made = Network(model=HERE, normalise=normalise).create(dataset, seed=3)
        torch.testing.assert_close(made(x), plain((x - dataset.mean[0]) / dataset.std[0]))
    for normalise in ("none", "false", False):
        torch.testing.assert_close(Network(model=HERE, normalise=normalise).create(dataset, 3)(x), plain(x))
    assert type(own) is Net


def test_what_is_done_is_said():
    advice = "; if it expects normalised ones type --normalise MEAN/STD, or imagenet"
    for normalise, sentence in (
        ("auto", f"inputs are given to {HERE} as they are, from 0 to 1{advice}"),
        ("none", f"inputs are given to {HERE} as they are, from 0 to 1"),
        ("0.5/0.25", "inputs are normalised before the network: mean 0.5, std 0.25"),
        ("half", "inputs are normalised before the network: mean 0.5, std 0.5 (half)"),
    ):
        assert open_network(HERE, Network(normalise=normalise), SOURCE, 0)[2]["preprocessing"] == sentence
    inner = f"{__file__}:inside"
    told = open_network(inner, Network(), SOURCE, 0)[2]["preprocessing"]
    assert told == "inputs are normalised before the network: mean 0.6, std 0.05"
    with pytest.raises(UserError, match=r"normalises its inputs itself .* twice: type --normalise none"):
        open_network(inner, Network(normalise="half"), SOURCE, 0)
    assert open_network(f"{__file__}:flat", Network(), Source(data="moons"), 0)[2]["preprocessing"] == ""


def flat():
    return nn.Linear(2, 2)


def test_a_configuration_beside_the_weights_is_read_and_named(tmp_path):
    models.save_weights(net(), tmp_path / "model.safetensors")
    config = tmp_path / "preprocessor_config.json"
    config.write_text('{"image_mean": [0.25], "image_std": [0.5]}')
    given = Network(weights=tmp_path / "model.safetensors")
    model, dataset, facts = open_network(HERE, given, SOURCE, 0)
    assert facts["preprocessing"] == f"inputs are normalised before the network: mean 0.25, std 0.5 (from {config})"
    x = dataset.test.take(torch.arange(5))[0]
    torch.testing.assert_close(model(x), model.model((x - 0.25) / 0.5))
    unread = open_network(HERE, replace(given, normalise="none"), SOURCE, 0)[0]
    torch.testing.assert_close(unread(x), model.model(x))


def test_what_timm_records_is_used(monkeypatch):
    class Colour(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).mean((2, 3))

    recorded = SimpleNamespace(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    fake = SimpleNamespace(
        is_model=lambda name: True,
        get_pretrained_cfg=lambda name: recorded,
        create_model=lambda name, num_classes, in_chans: Colour(in_chans, num_classes, 3),
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    colour = SimpleNamespace(shape=(3, 8, 8), channels=3, name="colour", box=(0, 1), mean=(0,) * 3, std=(1,) * 3)
    grey = SimpleNamespace(**{**vars(colour), "shape": (1, 8, 8), "channels": 1})
    found = Network(model="timm:net").statistics(colour)
    assert (found.mean, found.std, found.origin) == (recorded.mean, recorded.std, "as timm records it")
    assert Network(model="timm:net").statistics(grey) is None
    assert Network(model="timm:net", normalise="none").statistics(colour) is None


def test_harden_trains_its_networks_with_the_originals_statistics(tmp_path):
    models.save_weights(net(), tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.3], "image_std": [0.7]}')
    given = Network(weights=tmp_path / "model.safetensors", activation="silu")
    start = Start.of(HERE, given, SOURCE, seed=0)
    for model in (start.original, start.fresh()):
        assert (model.mean.tolist(), model.std.tolist()) == ([pytest.approx(0.3)], [pytest.approx(0.7)])
        assert isinstance(model.model.act, nn.SiLU)
    with pytest.raises(UserError, match=f"--model has no effect on {HERE}, which is the network: leave it out"):
        Start.of(HERE, replace(given, model="resnet18"), SOURCE, seed=0)


def test_harden_trains_networks_as_the_runs_surgery_and_all(tmp_path):
    data, where = SOURCE.load(0)
    made = Network(model=HERE, activation="silu", normalise="half").create(data, 0)
    fit(made, data, Standard(), epochs=1, validate_with="none", out=tmp_path / "run", facts={"source": where})
    fresh = Start.of(str(tmp_path / "run"), Network(), SOURCE, seed=0).fresh()
    assert isinstance(fresh.model.act, nn.SiLU)
    assert (fresh.mean.tolist(), fresh.std.tolist()) == ([0.5], [0.5])
