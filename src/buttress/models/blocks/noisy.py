"""Noise inside a network, at training and at test time alike, and the mean answer over its draws."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from buttress import registry
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.models.create import create, spec_of
from buttress.models.libraries import library_options
from buttress.validation import not_negative, whole

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class GaussianNoise:
    """Adds normal noise to what enters a module; a forward pre-hook, so that no weight gets another name.

    It draws from torch's global random state, as dropout does: training and attacks seed that.

    Args:
        std: standard deviation, in units of the module's input; 0 draws nothing.
    """

    def __init__(self, std: float) -> None:
        self.std = std

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The module's arguments, the first one with noise."""
        return (args[0] + self.std * torch.randn_like(args[0]), *args[1:]) if self.std else None


def add_noise(model: nn.Module, first: float = 0.2, inner: float = 0.1) -> nn.Module:
    """Put a noise layer before each convolution, in place (random self-ensemble; Liu et al., ECCV 2018).

    In a network without convolutions the linear layers take their place. The noise is there in eval mode, too; weights
    and their names do not change. What ``models.create`` made remembers its noise, so that a run's folder gives it
    back; a module of another origin needs this call again after its weights are loaded.

    Args:
        model: the network.
        first: standard deviation before the first convolution (in the order in which the modules were made), in units
            of what enters it: inputs, or normalised inputs.
        inner: before all others.

    Returns:
        The same module.

    Raises:
        UserError: for deviations that are negative or not finite, a network without such layers, or with noise already.
    """
    for name, std in (("first", first), ("inner", inner)):
        not_negative(name, std)
    if is_noisy(model):
        raise UserError("the network has noise layers already: make a new one to change them")
    places: list[nn.Module] = [m for m in model.modules() if isinstance(m, CONVOLUTIONS)]
    places = places or [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not places:
        raise UserError(f"noise goes before convolutions or linear layers; {type(model).__name__} has none")
    for number, place in enumerate(places):
        place.register_forward_pre_hook(GaussianNoise(inner if number else first))
    spec = spec_of(model)
    if spec is not None:
        options = {**spec["options"], "network": spec["name"], "first": first, "inner": inner}
        model._buttress_spec = {**spec, "name": f"{__name__}:noisy", "options": options}  # type: ignore[assignment]  # modules know no plain data
    return model


def is_noisy(model: nn.Module) -> bool:
    """Whether the network has noise layers of `add_noise`, be it of deviation 0."""
    return any(isinstance(hook, GaussianNoise) for m in model.modules() for hook in m._forward_pre_hooks.values())


def noisy(
    *,
    network: str = "cnn",
    first: float = 0.2,
    inner: float = 0.1,
    classes: int | None = None,
    channels: int | None = None,
    image_size: int | None = None,
    features: int | None = None,
    **options: Any,
) -> nn.Module:
    """A network of any architecture, with noise layers.

    As ``models.create("buttress.models.blocks.noisy:noisy", network="vgg19")`` it is made like any other model.

    Args:
        network: the architecture's name.
        first: standard deviation before the first convolution.
        inner: before all others.
        classes: of the data, this and the next three; left to the architecture where it is not given, and
            dropped where the architecture does not take it.
        channels: of the images.
        image_size: their side in pixels.
        features: numbers per input.
        **options: the architecture's own.
    """
    data = {"classes": classes, "channels": channels, "image_size": image_size, "features": features}
    accepted = library_options(network)
    if accepted is None:
        accepted = frozenset(inspect.signature(registry.model.get(network)).parameters)
    shape: dict[str, Any] = {name: value for name, value in data.items() if value is not None and name in accepted}
    return add_noise(create(network, **shape, **options), first, inner)


class Averaged(nn.Module):
    """A network that draws at random, answering with the mean of its probabilities over several draws.

    The prediction of random self-ensemble. It remains random, and costs as many passes as draws. To attack it, give the
    noisy network itself to ``EoT(draws=n)``, whose gradients and verdicts are means over n draws: this predictor's.

    Args:
        model: the network; kept as ``.model``.
        draws: passes for one answer.

    Raises:
        UserError: for draws that are no whole number of 1 or more.
    """

    def __init__(self, model: nn.Module, draws: int = 10) -> None:
        super().__init__()
        self.model, self.draws = model, whole("draws", draws, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) logits whose softmax is the mean over the draws."""
        several = torch.stack([call_model(self.model, x).log_softmax(1) for _ in range(self.draws)])
        return several.logsumexp(0) - math.log(self.draws)
