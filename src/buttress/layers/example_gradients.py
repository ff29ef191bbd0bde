"""Gradients of the loss with respect to a network's parameters: how long each example's is, and a batch's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from buttress.engine.input_dtype import suited
from buttress.engine.preserved_model import preserved
from buttress.errors import NoGradientError, UserError
from buttress.layers.parameter_gradients import parameters_require_grad
from buttress.model_call import call_model, half_precision
from buttress.tasks import Task

Statistic = Callable[[Tensor], Tensor]  # from (..., N) norms to (...)

STATISTICS: Mapping[str, Statistic] = {
    "max": lambda norms: norms.amax(-1),
    "p95": lambda norms: norms.quantile(0.95, dim=-1),
    "mean": lambda norms: norms.mean(-1),
}

_AT_ONCE = 2**24  # numbers that the gradients of the examples computed together may have: 64 MiB
_MOST = 128  # examples computed together


@dataclass(frozen=True)
class ExampleGradients:
    """The lengths of gradients, example by example.

    Attributes:
        norms: (N,) float64, the l2 norm over all parameters together.
        vectorised: whether `torch.func` computed them; else a loop over the examples did, with the same figures.
    """

    norms: Tensor
    vectorised: bool


def example_gradients(model: nn.Module, x: Tensor, y: Tensor, task: Task, seed: int = 0) -> ExampleGradients:
    """The l2 norm of the gradient of each example's training loss over all parameters, in eval mode.

    By `torch.func.vmap` over `torch.func.grad`, so many examples at once that their gradients are 64 MiB. A network
    that these cannot follow (one that reads a number off a tensor, writes into a buffer, draws in eval mode) is asked
    about one example after the other.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        y: the truth of each.
        task: whose training loss it is.
        seed: of what the network draws.

    Raises:
        NoGradientError: for a network without parameters, or whose output does not depend on them by differentiable
            operations.
    """
    parameters, x = _parameters(model), _taken(model, x)
    with preserved(model, "eval", seed, x.device), parameters_require_grad(model, True):
        try:
            return ExampleGradients(_by_vmap(model, parameters, x, y, task), True)
        except (UserError, torch.OutOfMemoryError):
            raise
        except Exception:  # whatever torch.func or a network inside it raises; the loop tells what is wrong with both
            return ExampleGradients(_by_loop(model, list(parameters.values()), x, y, task), False)


def batch_gradient(model: nn.Module, x: Tensor, y: Tensor, task: Task, seed: int = 0) -> Tensor:
    """(P,) float64 gradient of the mean training loss over a batch, all parameters in one row, in eval mode.

    Raises:
        NoGradientError: for a network without parameters, or whose output does not depend on them by differentiable
            operations.
    """
    parameters, x = list(_parameters(model).values()), _taken(model, x)
    with preserved(model, "eval", seed, x.device), parameters_require_grad(model, True):
        return torch.cat([part.flatten().double() for part in _gradient(model, parameters, x, y, task)])


def lengths(norms: Tensor) -> dict[str, float]:
    """Largest, 95th percentile and mean of (N,) norms, as in `STATISTICS`."""
    return {name: float(statistic(norms.double())) for name, statistic in STATISTICS.items()}


def ratios(above: Tensor, below: Tensor) -> dict[str, float]:
    """By statistic, that of (N,) norms over that of (M,) others; without those whose divisor is 0."""
    divisors = lengths(below)
    return {name: value / divisors[name] for name, value in lengths(above).items() if divisors[name]}


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """Those that a training moves, by name; all of a network that is frozen as a whole, as for use."""
    every: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    if not every:
        raise NoGradientError("the network has no parameters, whose gradients are asked for")
    return {name: value for name, value in every.items() if value.requires_grad} or every


def _taken(model: nn.Module, x: Tensor) -> Tensor:
    """Inputs in the data type that the network takes: what `call_model` would see to, were it handed the module."""
    half = half_precision(model)
    return suited(model, x) if half is None else x.to(half)


def _objective(outputs: Any, y: Tensor, task: Task) -> Tensor:
    return task.objective(task.read(outputs).double(), y)


def _by_vmap(model: nn.Module, parameters: dict[str, Tensor], x: Tensor, y: Tensor, task: Task) -> Tensor:
    free = {name: value.detach() for name, value in parameters.items()}

    def loss(values: dict[str, Tensor], one: Tensor, truth: Tensor) -> Tensor:
        with_values: Callable[[Tensor], Any] = partial(torch.func.functional_call, model, values)
        return _objective(call_model(with_values, one[None]), truth[None], task)

    def norm(one: Tensor, truth: Tensor) -> Tensor:
        return _length(list(torch.func.grad(loss)(free, one, truth).values()))

    count = sum(value.numel() for value in free.values())
    at_once = max(1, min(_MOST, _AT_ONCE // count))
    parts = zip(torch.split(x, at_once), torch.split(y, at_once), strict=True)
    return torch.cat([torch.func.vmap(norm)(*part) for part in parts]).detach()


def _by_loop(model: nn.Module, parameters: list[Tensor], x: Tensor, y: Tensor, task: Task) -> Tensor:
    rows = zip(torch.split(x, 1), torch.split(y, 1), strict=True)
    return torch.stack([_length(_gradient(model, parameters, *row, task)) for row in rows])


def _gradient(model: nn.Module, parameters: list[Tensor], x: Tensor, y: Tensor, task: Task) -> list[Tensor]:
    """By parameter; zeros for one that has no part in the output."""
    with torch.enable_grad():
        value = _objective(call_model(model, x), y, task)
    if value.grad_fn is None:
        raise NoGradientError("the network's output does not depend on its parameters by differentiable operations")
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return [torch.zeros_like(parameter) if part is None else part for part, parameter in pairs]


def _length(gradient: list[Tensor]) -> Tensor:
    """The l2 norm of all parts together, in float64: a gradient of 1e-25 has one, too."""
    return torch.stack([part.double().square().sum() for part in gradient]).sum().sqrt()
