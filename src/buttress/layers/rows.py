"""Which part of a layer's value belongs to which input: the axis that grows with the number of inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress.ambient_state import in_usual_state
from buttress.engine.preserved_model import Mode, preserved
from buttress.errors import UserError
from buttress.layers.capture import capture
from buttress.layers.chosen_rows import Choice, chosen_rows, same_choice
from buttress.layers.compared_passes import CHECKED, compared, distinct, found_again
from buttress.layers.layout import CONSTANT, FILLED, PART, UNPAIRED, Layout, Unaligned
from buttress.layers.network_code import NetworkCode, given_or_new
from buttress.layers.parameter_gradients import parameters_require_grad
from buttress.layers.same_rows import CLOSE, gap
from buttress.layers.select import LayerSelection
from buttress.model_call import call_model
from buttress.random import derive, seed_torch

__all__ = [
    "CHECKED",
    "CONSTANT",
    "PART",
    "UNPAIRED",
    "Layout",
    "Single",
    "Unaligned",
    "compared",
    "layout_of",
    "layouts",
    "of_inputs",
    "one_at_a_time",
    "one_or_all",
]


@in_usual_state
def layouts(
    model: nn.Module,
    x: Tensor,
    layers: LayerSelection = "activations",
    *,
    values: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    code: NetworkCode | None = None,
) -> dict[str, Layout | Unaligned]:
    """Where the inputs are in each layer's value, found by passes in eval mode; see `compared`.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs; the more there are, up to 32, the surer is the answer.
        layers: which layers; those alone are answered for which these inputs call.
        values: what a pass of all of ``x`` has shown, where one was made; see `found_again`. The answer is the same.
        seed: of what a random network draws.
        code: what has been read of the network's code.
    """
    code = given_or_new(code)

    def read(some: Tensor, draw: int) -> dict[str, Tensor]:
        return _values(model, some, layers, seed + draw, code)

    again = {} if values is None else found_again(read, x, values)
    if again and values is not None and again.keys() == values.keys():
        return {**again}
    found = compared(read, x)
    if isinstance(found, Unaligned):
        with preserved(model, "eval", seed, x.device), torch.no_grad(), capture(model, layers, code=code) as values:
            call_model(model, x)
        return dict.fromkeys(values, found)
    alone = {name: layout for name, layout in found.items() if isinstance(layout, Unaligned) and layout.one_at_a_time}
    if alone and len(one_or_all(model, x, seed)) > 1:
        for name, layout in alone.items():
            found[name] = Unaligned(f"{layout.reason}; and the network takes no input alone", False)
    elif alone:
        found.update(dict.fromkeys(_filled_up(read, x, alone), FILLED))
    return found


def _filled_up(read: Callable[[Tensor, int], dict[str, Tensor]], x: Tensor, names: Iterable[str]) -> list[str]:
    """Those that hold more than the input where one is computed alone: a second one takes the place of numbers there.

    A batch may be filled up to a multiple of some number, by zeros or copies. An input's part has zeros then that add
    nothing, or numbers that are no part of it. Where the second alone gives the same, one of the two is seen.
    """
    two = distinct(x, 2)
    try:
        first, second, both = (read(some, 0) for some in (two[:1], two[1:], two))
    except Exception:  # whatever a network raises for a batch that it does not take
        return []
    found = []
    for name in names:
        parts = [values[name].detach() if name in values else None for values in (first, second, both)]
        alone, other, value = parts
        if alone is None or value is None or alone.shape != value.shape or not value.numel():
            continue
        others = [alone] if other is None or other.shape != value.shape else [alone, other]
        if any(gap(value[None], one[None]) <= CLOSE for one in others):
            continue
        moved = (value - alone).abs() > CLOSE * value.abs().max()
        if bool(alone[moved].any()):
            found.append(name)
    return found


def layout_of(read: Callable[[Tensor], Tensor], x: Tensor, what: str) -> Layout:
    """Where the inputs are in the tensor that ``read`` gives of a pass; see `compared`.

    Args:
        read: gives the tensor for (n, ...) inputs.
        x: (N, ...) inputs.
        what: the tensor, for the error line.

    Raises:
        UserError: where it has no part for each input.
    """
    found = compared(lambda some, _: {what: read(some.detach().clone().requires_grad_(some.is_floating_point()))}, x)
    return of_inputs(what, found if isinstance(found, Unaligned) else found[what])


def one_or_all(model: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    """(1, ...) the first input; (N, ...) all of them where the network does not take one alone."""
    try:
        with preserved(model, "eval", seed, x.device), torch.no_grad():
            call_model(model, x[:1])
    except Exception:  # whatever a network raises for a batch that it does not take
        return x
    return x[:1]


def of_inputs(what: str, layout: Layout | Unaligned) -> Layout:
    """The layout.

    Raises:
        UserError: where it is none, saying why ``what`` has no part for each input.
    """
    if isinstance(layout, Unaligned):
        raise UserError(f"{what} has no part for each input, for it {layout.reason}: name another")
    return layout


@dataclass(frozen=True, eq=False)
class Single:
    """A layer's value for an input that was computed alone.

    Attributes:
        value: as the network has it.
        choice: which rows of the input it is of, where the network chooses some; see `chosen_rows`.
    """

    value: Tensor
    choice: Choice

    def pairs_with(self, other: Single) -> bool:
        """Whether the two can be compared number by number."""
        return self.value.shape == other.value.shape and same_choice(self.choice, other.choice)


def one_at_a_time(
    model: nn.Module,
    x: Tensor,
    names: Sequence[str],
    mode: Mode = "eval",
    seed: int = 0,
    code: NetworkCode | None = None,
) -> list[dict[str, Single]]:
    """The values of the named layers for each input alone; without those that it does not reach."""
    each: list[dict[str, Single]] = []
    with (
        preserved(model, mode, seed, x.device),
        torch.enable_grad(),  # the graph knows what the network chooses
        parameters_require_grad(model, False),
        capture(model, names, code=code) as values,
    ):
        for one in torch.split(x.detach(), 1):
            seed_torch(derive(seed, "model"), x.device)  # the same draws for each
            call_model(model, one.clone().requires_grad_(x.is_floating_point()))
            each.append(
                {name: Single(value.detach(), chosen_rows(value)) for name, value in values.items() if value.numel()}
            )
    return each


def _values(model: nn.Module, x: Tensor, layers: LayerSelection, seed: int, code: NetworkCode) -> dict[str, Tensor]:
    with (
        preserved(model, "eval", seed, x.device),
        parameters_require_grad(model, False),
        capture(model, layers, code=code) as values,
    ):
        call_model(model, x.detach().clone().requires_grad_(x.is_floating_point()))
    return dict(values)
