"""What the audit `lipschitz` measures of each block: stretch at the points, growth of the changes, and bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from buttress.engine.preserved_model import preserved
from buttress.layers.lipschitz import Jacobian, Stretch, exact_singular_value, stretch, upper_bound
from buttress.layers.route import Passed, branches, chained, passes
from buttress.layers.select import user_module
from buttress.random import Random, derive

_LARGEST = 2**22  # numbers in a full Jacobian


@dataclass(frozen=True)
class Settings:
    """How it is measured: see the audit's arguments."""

    iterations: int
    tolerance: float
    starts: int
    branches: bool
    exact: int
    seed: int


@dataclass
class Block:
    """Columns of figures of one block, each (N,) float64 on the CPU; by point or perturbation and name.

    Attributes:
        name: of the module.
        kind: its class.
        points: "clean" and "adversarial" -> "sigma", "converged", and "exact" and "upper" where asked for.
        parts: by name of a residual branch, the same of it, and "residual" and "log_norm".
        growth: perturbation -> "block" (change of the output over that of the input), "start" (over that of the first
            block's input), "relative" (over the output itself), "alignment" (|cos| of the change of the input with
            what is stretched most).
    """

    name: str
    kind: str
    points: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    parts: dict[str, dict[str, dict[str, Tensor]]] = field(default_factory=dict)
    growth: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def sigma(self) -> Tensor:
        """(N,) largest singular value, the larger of those at the points."""
        return torch.stack([point["sigma"] for point in self.points.values()]).amax(0)


def measure(
    model: nn.Module, x: Tensor, moved: Mapping[str, Tensor], ids: Tensor, names: Sequence[str], settings: Settings
) -> Measured:
    """All figures of a batch.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        moved: by perturbation, the same inputs perturbed; the first is the second point.
        ids: (N,) of the inputs.
        names: of the blocks, in order.
        settings: how.
    """
    clean = passes(model, x, names, settings.seed)
    others = {name: passes(model, points, names, settings.seed) for name, points in moved.items()}
    points = {"clean": clean, "adversarial": next(iter(others.values()))}
    found: list[Block] = []
    modules = dict(user_module(model).named_modules())
    first = names[0]
    with preserved(model, "eval", settings.seed, x.device):
        for name in names:
            module = modules[name]
            block = Block(name, type(module).__name__)
            direction = torch.empty(0)
            for point, passed in points.items():
                at = passed[name]
                random = Random(derive(settings.seed, "lipschitz", name), ids)
                one, figures = _stretched(at.function, at.z, random, settings, residual=False)
                block.points[point] = figures
                direction = one.direction if point == "clean" else direction
                for branch, (function, z) in (branches(module, at) if settings.branches else {}).items():
                    fresh = random.fork("branch", branch)
                    block.parts.setdefault(branch, {})[point] = _stretched(function, z, fresh, settings, residual=True)[
                        1
                    ]
            for perturbation, other in others.items():
                start = _norm(other[first].z - clean[first].z)
                block.growth[perturbation] = _growth(clean[name], other[name], start, direction)
            found.append(block)
    return Measured(found, chained(clean))


def _stretched(
    function: Callable[[Tensor], Tensor], z: Tensor, random: Random, settings: Settings, *, residual: bool
) -> tuple[Stretch, dict[str, Tensor]]:
    one = stretch(
        function,
        z,
        random,
        residual=residual,
        iterations=settings.iterations,
        tolerance=settings.tolerance,
        starts=settings.starts,
    )
    figures = {"sigma": one.sigma, "converged": one.converged}
    if one.residual is not None and one.log_norm is not None:
        figures |= {"residual": one.residual, "log_norm": one.log_norm}
    if settings.exact:
        jacobian = Jacobian(function, z[: settings.exact])
        if jacobian.z[:1].numel() * jacobian.out[:1].numel() <= _LARGEST:
            matrix = jacobian.matrix()
            figures |= {"exact": exact_singular_value(matrix), "upper": upper_bound(matrix)}
    return one, {name: values.double().cpu() for name, values in figures.items()}


def _norm(values: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(values.double().flatten(1), dim=1)
    return norms


def _over(a: Tensor, b: Tensor) -> Tensor:
    """The quotient on the CPU, NaN where it is not defined."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), torch.nan).cpu()


def _growth(clean: Passed, other: Passed, start: Tensor, direction: Tensor) -> dict[str, Tensor]:
    before, after = other.z - clean.z, _norm(other.out - clean.out)
    along = (before.double().flatten(1) * direction.double()).sum(1).abs()
    return {
        "block": _over(after, _norm(before)),
        "start": _over(after, start),
        "relative": _over(after, _norm(clean.out)),
        "alignment": _over(along, _norm(before)),
    }


@dataclass
class Measured:
    """Figures of all blocks, in order, and whether there is nothing between or beside them."""

    found: list[Block]
    chained: bool

    @classmethod
    def concatenated(cls, parts: Sequence[Measured]) -> Measured:
        """One of several batches'. A branch or figure that a batch lacks is left out."""
        blocks = []
        for same in zip(*(part.found for part in parts), strict=True):
            first = same[0]
            names = [name for name in first.parts if all(name in block.parts for block in same)]
            blocks.append(
                Block(
                    first.name,
                    first.kind,
                    _columns([block.points for block in same]),
                    {name: _columns([block.parts[name] for block in same]) for name in names},
                    _columns([block.growth for block in same]),
                )
            )
        return cls(blocks, all(part.chained for part in parts))

    def product(self) -> Tensor:
        """(N,) the product of the blocks' largest singular values, the larger of the points'."""
        return torch.stack([block.sigma() for block in self.found]).prod(0)

    def grown(self, perturbation: int) -> Tensor:
        """(N,) the change of the last block's output over that of the first one's input; NaN where there is none."""
        return list(self.found[-1].growth.values())[perturbation]["start"]

    def bounds(self) -> dict[str, Any]:
        """Geometric means of the bounds and of the growth measured; and on how many inputs the product bounds it.

        "exponential" has exp(largest singular value) of each residual branch in the place of its block's value,
        "log_norm" exp(logarithmic norm): the growth of the differential equation that the blocks are steps of, which
        need not bound theirs.
        """
        product = self.product()
        measured = {name: self.grown(k) for k, name in enumerate(self.found[0].growth)}
        main = next(iter(measured.values()))
        defined = ~main.isnan()
        held = (main <= product * (1 + 1e-6))[defined]
        return {
            "product": _geometric(product),
            "exponential": _geometric(self._exponential("sigma")),
            "log_norm": _geometric(self._exponential("log_norm")),
            "measured": {name: _geometric(values) for name, values in measured.items()},
            "held": float(held.double().mean()) if len(held) else None,
        }

    def _exponential(self, figure: str) -> Tensor:
        factors = []
        for block in self.found:
            sums = [torch.stack([at[figure] for at in part.values()]).amax(0) for part in block.parts.values()]
            factors.append(torch.stack(sums).sum(0).exp() if sums else block.sigma())
        return torch.stack(factors).prod(0)

    def blocks(self) -> list[dict[str, Any]]:
        """Plain data of each block."""
        return [
            {
                "name": block.name,
                "kind": block.kind,
                **{point: _stated(figures) for point, figures in block.points.items()},
                "branches": {
                    name: {point: _stated(figures) for point, figures in part.items()}
                    for name, part in block.parts.items()
                },
                "growth": {
                    name: {what: _mean(values) for what, values in figures.items()}
                    for name, figures in block.growth.items()
                },
            }
            for block in self.found
        ]


def _columns(parts: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> dict[str, dict[str, Tensor]]:
    return {
        key: {name: torch.cat([part[key][name] for part in parts if name in part[key]]) for name in parts[0][key]}
        for key in parts[0]
    }


def _stated(figures: Mapping[str, Tensor]) -> dict[str, Any]:
    stated: dict[str, Any] = {"converged": _mean(figures["converged"])}
    for name in ("sigma", "residual", "log_norm", "exact", "upper"):
        if name in figures:
            values = figures[name]
            spread = float(values.std(correction=0))
            stated[name] = {"mean": float(values.mean()), "sd": spread, "max": float(values.max())}
    return stated


def _mean(values: Tensor) -> float | None:
    defined = values[~values.isnan()]
    return float(defined.mean()) if len(defined) else None


def _geometric(values: Tensor) -> float | None:
    mean = _mean(values.log())
    return None if mean is None else float(torch.tensor(mean, dtype=torch.float64).exp())
