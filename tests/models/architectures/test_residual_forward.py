"""The residual networks against their papers' formulas, written with functions on the state dict alone."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from buttress import models

State = dict[str, Tensor]


def norm(state: State, name: str, x: Tensor) -> Tensor:
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    scale = state[f"{name}.weight"] / (var + 1e-5).sqrt()
    return (x - mean[:, None, None]) * scale[:, None, None] + state[f"{name}.bias"][:, None, None]


def convolve(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def post_activation(state: State, at: str, x: Tensor, stride: int, shortcut: str) -> Tensor:
    h = F.relu(norm(state, f"{at}.bn1", convolve(state, f"{at}.conv1", x, stride)))
    h = norm(state, f"{at}.bn2", convolve(state, f"{at}.conv2", h))
    if f"{at}.{shortcut}.weight" in state:
        x = norm(state, f"{at}.shortcut.1", convolve(state, f"{at}.{shortcut}", x, stride))
    return F.relu(h + x)


def pre_activation(state: State, at: str, x: Tensor, stride: int, shortcut: str) -> Tensor:
    a = F.relu(norm(state, f"{at}.bn1", x))
    h = F.relu(norm(state, f"{at}.bn2", convolve(state, f"{at}.conv1", a, stride)))
    if f"{at}.{shortcut}.weight" in state:
        x = convolve(state, f"{at}.{shortcut}", a, stride)
    return convolve(state, f"{at}.conv2", h) + x


@pytest.mark.parametrize(
    ("name", "options", "stages", "block", "shortcut", "after_stem", "before_pool", "last"),
    [
        ("resnet18", {"width": 4}, "layer{}.{}", post_activation, "shortcut.0", "bn1", None, "linear"),
        ("preactresnet18", {"width": 4}, "layer{}.{}", pre_activation, "shortcut.0", None, None, "linear"),
        (
            "preactresnet18",
            {"width": 4, "final_activation": True},
            "layer{}.{}",
            pre_activation,
            "shortcut.0",
            None,
            "bn",
            "linear",
        ),
        ("wrn", {"depth": 16, "width": 2}, "block{}.layer.{}", pre_activation, "convShortcut", None, "bn1", "fc"),
        ("wrn", {"depth": 10, "width": 1}, "block{}.layer.{}", pre_activation, "convShortcut", None, "bn1", "fc"),
    ],
)
def test_the_logits_are_those_of_the_formula(name, options, stages, block, shortcut, after_stem, before_pool, last):
    model = models.create(name, seed=0, **options).double().eval()
    random = torch.Generator().manual_seed(1)
    state = model.state_dict()
    for key, value in state.items():
        if key.endswith("running_var"):
            value.add_(torch.rand(value.shape, generator=random, dtype=value.dtype))
        elif value.is_floating_point():  # of either sign, so that every ReLU cuts something
            value.add_(0.3 * torch.randn(value.shape, generator=random, dtype=value.dtype))
    x = torch.rand(2, 3, 16, 16, generator=random, dtype=torch.float64)

    h = convolve(state, "conv1", x)
    if after_stem:
        h = F.relu(norm(state, after_stem, h))
    for stage in (1, 2, 3, 4):
        for k in range(8):
            at = stages.format(stage, k)
            if f"{at}.conv1.weight" in state:
                h = block(state, at, h, 2 if stage > 1 and k == 0 else 1, shortcut)
    if before_pool:
        h = F.relu(norm(state, before_pool, h))
    by_hand = h.mean((2, 3)) @ state[f"{last}.weight"].T + state[f"{last}.bias"]
    torch.testing.assert_close(model(x), by_hand, rtol=1e-9, atol=1e-9)
