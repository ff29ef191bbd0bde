"""Smooth activations and larger first strides: the same network as one that is written so."""

import inspect
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress import data, models, registry
from buttress.errors import UserError
from buttress.jobs.settings import Network
from buttress.models.surgery import first_layer, replace_activation, set_stem_stride

SMALL = {"preactresnet18": {"width": 4}, "resnet18": {"width": 4}, "vgg19": {"width": 1 / 16}}
SMALL["wrn"] = SMALL["cifs-wrn"] = {"depth": 10, "width": 1}
SMALL["cifs-resnet18"] = SMALL["cas-resnet18"] = {"width": 4}
SMALL["odenet"] = SMALL["tisode"] = SMALL["odenet-cnn"] = {"width": 4}
UNLIKE = ("covit", "self-gradient", "snode", "vit", "vit-hybrid")
# Not those without ReLU or a stem of the image's channels; a transformer would get another number of tokens.
IMAGES = [
    name
    for name in models.names()
    if "channels" in inspect.signature(registry.model.get(name)).parameters and name not in UNLIKE
]
SMOOTH = {
    "elu": lambda z: torch.where(z > 0, z, z.exp() - 1),
    "gelu": lambda z: z * 0.5 * (1 + torch.erf(z / 2**0.5)),
    "silu": lambda z: z / (1 + (-z).exp()),
    "softplus": lambda z: (1 + (10 * z).exp()).log() / 10,
}


def told(make, *args, **kwargs):
    with pytest.raises(UserError) as error:
        make(*args, **kwargs)
    return str(error.value)


def images(model, count=3):
    (_, stem), side = first_layer(model), getattr(model, "image_size", 16)
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, stem.in_channels, side, side, generator=generator, dtype=stem.weight.dtype)


class Blocks(nn.Module):
    """One activation module used in two places, and one inside of a block."""

    def __init__(self, activation=nn.ReLU):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.act = activation()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), activation())
        self.same = self.act
        self.last = nn.Linear(3, 4)

    def forward(self, x):
        return self.last(self.same(self.block(self.act(self.conv(x)))).mean((2, 3)))


class Functional(nn.Module):
    """A module and a function."""

    def __init__(self, call):
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Linear(3, 4)
        self.call = call

    def forward(self, x):
        return self.last(self.call(self.act(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("activation", SMOOTH)
def test_outputs_are_those_of_the_formula(activation):
    model = models.create("cnn", seed=3, activation=activation).double().eval()
    x = images(model)
    act, w = SMOOTH[activation], model.state_dict()
    h = F.max_pool2d(act(F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1)), 2)
    h = F.max_pool2d(act(F.conv2d(h, w["conv2.weight"], w["conv2.bias"], padding=1)), 2).flatten(1)
    expected = act(h @ w["fc1.weight"].T + w["fc1.bias"]) @ w["fc2.weight"].T + w["fc2.bias"]
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)


@pytest.mark.representatives(stride=[2])
@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("stride", [1, 2])
def test_any_registered_network_has_no_relu_left_and_the_same_initial_weights(name, stride):
    plain = models.create(name, seed=3, **SMALL.get(name, {}))
    model = models.create(name, seed=3, activation="silu", stem_stride=stride, **SMALL.get(name, {}))
    kinds = [type(module) for module in model.modules()]
    assert nn.ReLU not in kinds
    assert kinds.count(nn.SiLU) == sum(isinstance(module, nn.ReLU) for module in plain.modules())
    for (one, value), (other, theirs) in zip(model.state_dict().items(), plain.state_dict().items(), strict=True):
        assert one == other
        assert torch.equal(value, theirs)
    assert model.training
    assert first_layer(model)[1].stride == (stride, stride)
    assert model.eval()(images(model)).shape == (3, 10)


def test_a_module_in_two_places_stays_one():
    model = Blocks()
    model.eval()
    replace_activation(model, "gelu", 6)
    assert isinstance(model.act, nn.GELU)
    assert model.same is model.act
    assert isinstance(model.block[2], nn.GELU)
    assert not model.act.training
    built = Blocks(nn.GELU).eval()
    built.load_state_dict(model.state_dict())
    x = torch.rand(3, 1, 6, 6)
    assert torch.equal(model(x), built(x))


def test_trying_a_network_out_leaves_no_trace():
    model, state = Blocks().train(), torch.get_rng_state()
    model.block[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replace_activation(model, "silu")
    set_stem_stride(model, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.block[1].training
    assert model.block.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("call", [F.relu, torch.relu, torch.relu_, lambda z: z.relu(), lambda z: F.relu(z, True)])
def test_relu_as_a_function_is_refused_in_words(call):
    line = "Functional calls relu as a function, which cannot be replaced: use nn.ReLU modules in its code"
    assert told(replace_activation, Functional(call), "silu") == line


def test_other_functions_are_let_be():
    model = Functional(torch.tanh)
    replace_activation(model, "silu")
    assert isinstance(model.act, nn.SiLU)


def test_what_cannot_be_swapped_is_told():
    line = "there is no smooth activation 'silo'; did you mean 'silu'?"
    assert told(models.create, "cnn", activation="silo") == line
    assert told(models.create, "lsa-a", activation="silu") == "LSAA has no ReLU that silu could replace"
    odd = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU())
    assert told(replace_activation, odd, "silu").startswith("Sequential cannot be tried out, and may call relu")


def test_a_strided_network_equals_one_that_is_written_so():
    """The stride does the work of the first pooling; the linear layer sees as many numbers as before."""
    model = models.create("cnn", seed=3, stem_stride=2).double().eval()
    x, w = images(model), model.state_dict()
    h = F.conv2d(x, w["conv1.weight"], w["conv1.bias"], padding=1, stride=2).relu()
    h = F.max_pool2d(F.conv2d(h, w["conv2.weight"], w["conv2.bias"], padding=1).relu(), 2).flatten(1)
    expected = (h @ w["fc1.weight"].T + w["fc1.bias"]).relu() @ w["fc2.weight"].T + w["fc2.bias"]
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12)


def test_a_network_that_pools_all_in_the_end_changes_its_stride_alone():
    model, plain = models.create("resnet18", seed=3, width=4, stem_stride=2), models.create("resnet18", seed=3, width=4)
    plain.conv1.stride = (2, 2)
    x = images(model)
    assert torch.equal(model.eval()(x), plain.eval()(x))
    assert [str(a) for a in model.modules()] == [str(b) for b in plain.modules()]


@pytest.mark.parametrize(("name", "size"), [("cnn", 28), ("cnn", 31), ("cnn", 32), ("smallcnn", 28), ("lsa-b", 28)])
def test_networks_made_for_one_size_fit_it_with_a_larger_stride(name, size):
    model = models.create(name, seed=3, image_size=size, stem_stride=2).eval()
    x = images(model).requires_grad_()
    (slope,) = torch.autograd.grad(model(x).logsumexp(1).sum() + model(x)[:, 0].sum(), x)
    assert slope.isfinite().all()


@pytest.mark.parametrize(("name", "size", "stride"), [("lsa-b", 20, 2), ("smallcnn", 28, 4), ("cnn", 8, 8)])
def test_too_small_a_map_is_told(name, size, stride):
    kind = type(models.create(name)).__name__
    line = f"stem_stride {stride} leaves {kind} too small a map of {size}x{size} images: take larger ones or"
    assert told(models.create, name, image_size=size, stem_stride=stride).startswith(line)


def test_what_has_no_stem_or_no_stride_is_told():
    assert told(models.create, "mlp", stem_stride=2) == "MLP has no convolution"
    assert told(models.create, "cnn", stem_stride=0) == "stem_stride must be a whole number of 1 or more; got 0"
    flat = nn.Sequential(nn.Conv1d(1, 2, 3))
    assert told(set_stem_stride, flat, 2).startswith(
        "Sequential cannot be tried out on images: set the stride of its 0"
    )
    fixed = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    assert told(set_stem_stride, fixed, 2, 8).startswith(
        "stem_stride 2 leaves Sequential too small a map of 8x8 images"
    )


def test_an_option_of_the_architecture_itself_comes_first():
    model = models.create("mlp", activation="tanh")
    assert isinstance(model.act1, nn.Tanh)
    expected = {"name": "mlp", "options": {"activation": "tanh"}, "mean": None, "std": None}
    assert models.spec_of(model) == expected


def test_the_description_tells_of_swaps_and_older_ones_still_load(tmp_path):
    model = models.create("cnn", width=4, mean=0.5, seed=1, activation="softplus", stem_stride=2).eval()
    spec = models.spec_of(model)
    assert (spec["activation"], spec["stem_stride"], spec["options"]) == ("softplus", 2, {"width": 4})
    again = models.from_spec(json.loads(json.dumps(spec))).eval()
    models.save_weights(model, tmp_path / "w.safetensors")
    models.load_weights(again, tmp_path / "w.safetensors")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(again(x), model(x))
    assert set(models.spec_of(models.create("cnn"))) == {"name", "options", "mean", "std"}


def test_a_users_open_factory_keeps_its_options_in_a_description(tmp_path):
    """What an older run's description holds among the options goes to the factory, as it did."""
    code = "from torch import nn\ndef net(**options):\n    return nn.Linear(2, len(options['activation']))\n"
    (tmp_path / "nets.py").write_text(code)
    spec = {"name": f"{tmp_path / 'nets.py'}:net", "options": {"activation": "abc"}, "mean": None, "std": None}
    assert models.from_spec(spec).weight.shape == (3, 2)


@pytest.mark.parametrize(("model", "stride"), [("cnn", 2), ("mlp", None)])
def test_a_job_asks_for_them_by_name(model, stride):
    """As `--architecture.activation gelu --architecture.stem_stride 2` do; mlp has an option of the former name."""
    network = Network(
        model=model, model_args={} if stride is None else {"width": 4}, activation="gelu", stem_stride=stride
    )
    made = network.create(data.load("digits"), seed=0)
    assert sum(isinstance(module, nn.GELU) for module in made.modules()) == (2 if model == "mlp" else 3)
    assert models.spec_of(made).get("stem_stride") == stride
    assert not any(isinstance(module, nn.ReLU) for module in made.modules())


def test_a_wrong_name_in_a_job_is_told():
    network = Network(activation="swish")
    assert told(network.create, data.load("digits"), 0).startswith("there is no smooth activation 'swish'; ")
