"""Operations whose output is an affine function of what depends on the input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from buttress.certificates.network.graph import Ref
from buttress.certificates.operations.operation import Interval, LowerLines, Operation, Place, Pull

aten = torch.ops.aten


class Affine(Operation):
    """y = L v + c, of one or several inputs jointly, where L has no negative entries: views, sums, means, padding ...

    Args:
        mixes: whether a feature of the output may come of several of an input, or one of an input go to several.
    """

    affine = True

    def __init__(self, *, mixes: bool = False) -> None:
        self.mixes = mixes

    def interval(self, place: Place, inputs: dict[Ref, Interval]) -> Interval:
        """Centre and radius, as in Gowal et al. (2018): the radius goes through |L|."""
        centre = place.run({ref: (low + high) / 2 for ref, (low, high) in inputs.items()})
        radius = self.spread(place, {ref: (high - low) / 2 for ref, (low, high) in inputs.items()})
        return centre - radius, centre + radius

    def spread(self, place: Place, radii: dict[Ref, Tensor]) -> Tensor:
        """|L| r."""
        return place.run(radii) - self.offset(place, next(iter(radii.values())))

    def offset(self, place: Place, like: Tensor) -> Tensor:
        """(1, ...) the constant c."""
        return place.run_one(self._zeros(place, like))

    def pull(self, place: Place, output: Tensor, inputs: dict[Ref, Interval], lines: LowerLines) -> tuple[Pull, Tensor]:
        """The transpose of L, and the product with c."""
        constant = (output * self.offset(place, output)).flatten(2).sum(2)
        return self.transposed(place, output), constant

    def transposed(self, place: Place, output: Tensor) -> Pull:
        """The transpose of L, for ``output`` (S, N, 1, ...): by automatic differentiation, which is exact for these."""
        refs = place.inputs
        zeros = self._zeros(place, output)

        def values(*inputs: Tensor) -> Tensor:
            return place.run_one(dict(zip(refs, inputs, strict=True)))

        vjp: Any = torch.func.vjp(values, *(zeros[ref] for ref in refs))[1]
        pulled = torch.func.vmap(vjp)(output.flatten(0, 1))
        return {ref: part.view(*output.shape[:2], *part.shape[1:]) for ref, part in zip(refs, pulled, strict=True)}

    def _zeros(self, place: Place, like: Tensor) -> dict[Ref, Tensor]:
        return {ref: like.new_zeros(place.graph.shape_of(ref)) for ref in place.inputs}


class Signed(Affine):
    """Sums with signs: a - b, -a, a + alpha b."""

    def spread(self, place: Place, radii: dict[Ref, Tensor]) -> Tensor:
        """Every part's radius, times the size of what it is multiplied with."""
        zeros = {ref: torch.zeros_like(radius) for ref, radius in radii.items()}
        none = place.run(zeros)
        parts = [(place.run({**zeros, ref: radius}) - none).abs() for ref, radius in radii.items()]
        return torch.stack(parts).sum(0)


class Scaled(Signed):
    """Each feature times a constant: c v, v / c, BatchNorm with its own statistics."""


class Matrix(Affine):
    """A matrix or a kernel times the one input: y = W v + b.

    Args:
        weight: the place of W among the arguments.
        bias: of b, where there is one.
    """

    def __init__(self, weight: int, bias: int | None) -> None:
        super().__init__(mixes=True)
        self.weight, self.bias = weight, bias

    def spread(self, place: Place, radii: dict[Ref, Tensor]) -> Tensor:
        """|W| r."""
        return self.powered(place, radii, 1)

    def powered(self, place: Place, radii: dict[Ref, Tensor], power: int) -> Tensor:
        """|W|^power r."""
        arguments: list[Any] = [place.constant(argument) for argument in place.node.arguments]
        keywords = dict(place.node.keywords)
        factor = keywords.pop("alpha", 1)
        arguments[self.weight] = (factor * arguments[self.weight]).abs().pow(power)
        if self.bias is not None and arguments[self.bias] is not None:
            arguments[self.bias] = torch.zeros_like(arguments[self.bias])
        (radius,) = radii.values()

        def one(radius: Tensor) -> Tensor:
            given = [radius if isinstance(argument, Ref) else argument for argument in arguments]
            result: Tensor = place.node.function(*given, **keywords)
            return result

        return torch.func.vmap(one)(radius)
