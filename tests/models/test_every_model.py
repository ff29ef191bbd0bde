"""What holds for every registered model, found by discovery."""

import inspect

import pytest
import torch

from buttress import layers, models, registry
from buttress.attacks.corruptions.noises import Uniform
from buttress.errors import UserError

# Options that make the larger ones quick; a model not named here is made with its defaults.
SMALL = {
    "alt-node": {"width": 8},
    "cas-resnet18": {"width": 4},
    "cifs-cnn": {"width": 4},
    "cifs-resnet18": {"width": 4},
    "cifs-wrn": {"depth": 16, "width": 1},
    "covit": {"width": 8, "depth": 1, "heads": 2},
    "lt-node": {"width": 8},
    "odenet": {"width": 8},
    "odenet-cnn": {"width": 8},
    "preactresnet18": {"width": 4},
    "resnet18": {"width": 4},
    "snode": {"resolution": 5},
    "tisode": {"width": 8},
    "vgg19": {"width": 1 / 16},
    "vit": {"width": 8, "depth": 1, "heads": 2},
    "vit-hybrid": {"width": 8, "depth": 1, "heads": 2},
    "wrn": {"depth": 10, "width": 1},
    "zerosnet": {"blocks": 2, "width": 4},
}
# One GELU a block and projections without any; and a state that no layer, but an equation changes.
UNLAYERED = ("covit", "snode", "vit", "vit-hybrid")
every_model = pytest.mark.parametrize("name", models.names())


def inputs(name: str, count: int = 3) -> torch.Tensor:
    parameters = inspect.signature(registry.model.get(name)).parameters
    if "features" in parameters:
        shape = (parameters["features"].default,)
    else:
        size = parameters["image_size"].default if "image_size" in parameters else 16
        shape = (parameters["channels"].default, size, size)
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def make(name: str, seed: int = 0, **more: object) -> torch.nn.Module:
    return models.create(name, seed=seed, **SMALL.get(name, {}), **more).eval()


def scramble(model: torch.nn.Module) -> None:
    """Weights and statistics that no initialisation gives."""
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.1 * torch.rand(value.shape, generator=random))


def test_the_published_names_are_there():
    published = {"lsa-a", "lsa-b", "vgg19", "wrn", "resnet18", "preactresnet18", "smallcnn", "mlp", "cnn"}
    assert published <= set(models.names())


@every_model
def test_logits_have_one_column_per_class(name):
    assert make(name, classes=7)(inputs(name)).shape == (3, 7)


@every_model
def test_an_input_is_answered_alone_as_in_a_batch(name):
    model, x = make(name), inputs(name)
    scramble(model)
    assert torch.allclose(model(x)[1:2], model(x[1:2]), rtol=1e-4, atol=1e-5)


@every_model
def test_the_gradient_reaches_the_input_and_every_weight(name):
    model, x = make(name), inputs(name).requires_grad_()
    scramble(model)
    # Some weights are reached by a training term alone.
    labelled = getattr(model, "forward_with_auxiliary", lambda x, y: (model(x), 0.0))
    logits, auxiliary = labelled(x, torch.arange(len(x)) % 2)
    weights = torch.arange(1.0, logits.shape[1] + 1)
    gradients = torch.autograd.grad((logits * weights).sum() + auxiliary, [x, *model.parameters()])
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


@every_model
def test_a_seed_fixes_the_weights_and_leaves_the_global_state_alone(name):
    before = torch.get_rng_state()
    first, again, other = (make(name, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_model
def test_a_model_is_made_again_from_its_description(name, tmp_path):
    model, x = make(name, mean=0.4, std=0.2), inputs(name)
    scramble(model)
    models.save_weights(model, tmp_path / "w.safetensors")
    before = torch.get_rng_state()
    again = models.from_spec(models.spec_of(model)).eval()
    assert torch.equal(torch.get_rng_state(), before)
    models.load_weights(again, tmp_path / "w.safetensors")
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize("name", [name for name in models.names() if name not in UNLAYERED])
def test_activations_are_modules_of_their_own(name):
    modules = make(name).named_modules()
    layers = [module for path, module in modules if not list(module.children()) and ".probe." not in path]
    learnable = sum(isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) for layer in layers)
    activations = sum(isinstance(layer, torch.nn.ReLU | torch.nn.ELU) for layer in layers)
    # One after every layer but the last; a residual network has shortcuts without one.
    projections = sum(isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (1, 1) for layer in layers)
    final = name == "preactresnet18"  # nothing follows its last block
    assert activations == learnable - 1 - projections - final


@every_model
@pytest.mark.representatives(name=["cnn", "preactresnet18", "vit", "odenet-cnn", "wrn"])
def test_the_clean_value_of_a_layer_that_every_path_crosses_restores_everything(name):
    model, x = make(name), inputs(name, count=6)
    scramble(model)
    names = layers.layer_names(model, x, "learnable")[:6]
    with torch.no_grad():
        y = model(x).argmax(1)
    found = layers.patching(model, [(x, y)], Uniform(eps=2.0, box=None), names, doses=1, paths=3)
    for right, crossed in zip(found.right, found.crossed, strict=True):
        assert not crossed or bool(right.all())


@every_model
def test_inputs_that_do_not_fit_are_told_in_one_line(name):
    x = inputs(name)
    wrong = torch.rand(2, x.shape[1] + 1, *x.shape[2:])
    with pytest.raises(UserError) as told:
        models.forward_checked(make(name), wrong)
    shape = "x".join(map(str, wrong.shape))
    assert f"cannot take inputs of shape {shape}: its first layer, " in str(told.value)
    assert f"takes {x.shape[1]} " in str(told.value)
    assert "\n" not in str(told.value)
