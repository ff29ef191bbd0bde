"""What the audit `lipschitz` measures of each block: stretch at the points, growth of the changes, and bounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from buttress.engine.preserved_model import preserved
from buttress.errors import one_line
from buttress.layers.block_calls import BlockCall, recorded_calls
from buttress.layers.blocks import is_chain, residual_branches
from buttress.layers.lipschitz import Jacobian, Stretch, exact_singular_value, stretch, upper_bound
from buttress.layers.parameter_gradients import parameters_require_grad
from buttress.random import Random, derive

_LARGEST = 2**22  # numbers in a full Jacobian


@dataclass(frozen=True)
class Settings:
    """How blocks are measured: see the audit's arguments."""

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
        joint: tensors that go in and move jointly, each with numbers of its own.
        held: other tensors that go in, which do not depend on the input and are held constant.
        growth: perturbation -> "block" (change of the output over that of the input), "start" (over that of the first
            block's input), "relative" (over the output itself), "alignment" (|cos| of the change of the input with
            what is stretched most).
    """

    name: str
    kind: str
    joint: int = 1
    held: int = 0
    points: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    parts: dict[str, dict[str, dict[str, Tensor]]] = field(default_factory=dict)
    growth: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def sigma(self) -> Tensor:
        """(N,) largest singular value, the larger of those at the points."""
        return torch.stack([point["sigma"] for point in self.points.values()]).amax(0)


def measure(
    model: nn.Module, x: Tensor, perturbed: Mapping[str, Tensor], ids: Tensor, names: Sequence[str], settings: Settings
) -> NetworkMeasures:
    """All figures of a batch.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs.
        perturbed: by perturbation, the same inputs perturbed; the first is the second point.
        ids: (N,) of the inputs.
        names: of the blocks, in order. What cannot be measured at one of the points is left out.
        settings: how.
    """
    clean, left_out = recorded_calls(model, x, names, settings.seed)
    others: dict[str, dict[str, BlockCall]] = {}
    for perturbation, perturbed_x in perturbed.items():
        others[perturbation], reasons = recorded_calls(model, perturbed_x, names, settings.seed)
        left_out |= {name: f"{reason} under {perturbation}" for name, reason in reasons.items() if name in clean}
    points = {"clean": clean, "adversarial": next(iter(others.values()))}
    measured = [name for name in names if name not in left_out]
    blocks: list[Block] = []
    directions: dict[str, Tensor] = {}
    with preserved(model, "eval", settings.seed, x.device), parameters_require_grad(model, False):
        for name in measured:
            block = Block(name, type(clean[name].module).__name__, clean[name].joint, clean[name].held)
            random = Random(derive(settings.seed, "lipschitz", name), ids)
            try:
                found = [_measure_block(block, point, calls[name], random, settings) for point, calls in points.items()]
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # what torch raises for a function that it cannot derive
                left_out[name] = f"cannot be derived; torch raises {one_line(error)}"
                continue
            if all(point["sigma"].isfinite().all() for point in block.points.values()):
                blocks.append(block)
                directions[name] = found[0]
            else:
                left_out[name] = "has a Jacobian that holds NaN or infinite numbers"
    for perturbation, other in others.items() if blocks else ():
        start = _norm(_change(other[blocks[0].name].z, clean[blocks[0].name].z))
        for block in blocks:
            growth = _growth(clean[block.name], other[block.name], start, directions[block.name])
            block.growth[perturbation] = growth
    kept = {block.name: clean[block.name] for block in blocks}
    return NetworkMeasures(blocks, is_chain(kept), left_out)


def _measure_block(block: Block, point: str, call: BlockCall, random: Random, settings: Settings) -> Tensor:
    """Note the figures of a block and its branches at a point; (N, inputs) the direction that is stretched most."""
    stretched, block.points[point] = _measure_function(
        call.function, call.z, random, settings, beside=call.beside, residual=False
    )
    for branch, (function, z) in (residual_branches(call) if settings.branches else {}).items():
        branch_random = random.fork("branch", branch)
        figures = _measure_function(function, z, branch_random, settings, residual=True)[1]
        block.parts.setdefault(branch, {})[point] = figures
    return stretched.direction


def _measure_function(
    function: Callable[..., Tensor],
    z: Tensor,
    random: Random,
    settings: Settings,
    *,
    beside: Sequence[Tensor] = (),
    residual: bool,
) -> tuple[Stretch, dict[str, Tensor]]:
    stretched = stretch(
        function,
        z,
        random,
        beside=beside,
        residual=residual,
        iterations=settings.iterations,
        tolerance=settings.tolerance,
        starts=settings.starts,
    )
    figures = {"sigma": stretched.sigma, "converged": stretched.converged}
    if stretched.residual is not None and stretched.log_norm is not None:
        figures |= {"residual": stretched.residual, "log_norm": stretched.log_norm}
    if settings.exact:
        jacobian = Jacobian(function, z[: settings.exact], [tensor[: settings.exact] for tensor in beside])
        if jacobian.z[:1].numel() * jacobian.out[:1].numel() <= _LARGEST:
            matrix = jacobian.matrix()
            figures |= {"exact": exact_singular_value(matrix), "upper": upper_bound(matrix)}
    return stretched, {name: values.double().cpu() for name, values in figures.items()}


def _change(after: Tensor, before: Tensor) -> Tensor:
    """In float64, which holds the difference of any two numbers of float32."""
    return after.double() - before.double()


def _norm(values: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(values.double().flatten(1), dim=1)
    return norms


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """The quotient on the CPU, NaN where it is not defined."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), torch.nan).cpu()


def _growth(clean: BlockCall, other: BlockCall, start: Tensor, direction: Tensor) -> dict[str, Tensor]:
    before, after = _change(other.z, clean.z), _norm(_change(other.out, clean.out))
    along = (before.flatten(1) * direction.double()).sum(1).abs()
    return {
        "block": _quotient(after, _norm(before)),
        "start": _quotient(after, start),
        "relative": _quotient(after, _norm(clean.out)),
        "alignment": _quotient(along, _norm(before)),
    }


@dataclass
class NetworkMeasures:
    """Figures of all blocks, in order.

    Attributes:
        blocks: those that could be measured.
        chain: whether they are a chain: nothing between or beside them.
        left_out: why others could not, by name.
    """

    blocks: list[Block]
    chain: bool
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def concatenated(cls, parts: Sequence[NetworkMeasures]) -> NetworkMeasures:
        """The measures of several batches as one. A block, branch or figure that a batch lacks is left out."""
        blocks = []
        left_out = {name: reason for part in parts for name, reason in part.left_out.items()}
        for parts_of_block in zip(*([b for b in part.blocks if b.name not in left_out] for part in parts), strict=True):
            first = parts_of_block[0]
            names = [name for name in first.parts if all(name in block.parts for block in parts_of_block)]
            blocks.append(
                Block(
                    first.name,
                    first.kind,
                    first.joint,
                    first.held,
                    _columns([block.points for block in parts_of_block]),
                    {name: _columns([block.parts[name] for block in parts_of_block]) for name in names},
                    _columns([block.growth for block in parts_of_block]),
                )
            )
        chain = all(part.chain and len(part.blocks) == len(blocks) for part in parts)
        return cls(blocks, chain, left_out)

    def log_product(self) -> Tensor:
        """(N,) the logarithm of the product of the blocks' largest singular values, the larger of the points'."""
        return torch.stack([block.sigma().log() for block in self.blocks]).sum(0)

    def growth(self, perturbation: int) -> Tensor:
        """(N,) the change of the last block's output over that of the first one's input; NaN where there is none."""
        return list(self.blocks[-1].growth.values())[perturbation]["start"]

    def bounds(self) -> dict[str, Any]:
        """Geometric means of the bounds and of the growth measured; and on how many inputs the product bounds it.

        "exponential" has exp(largest singular value) of each residual branch in the place of its block's value,
        "log_norm" exp(logarithmic norm): the growth of the differential equation that the blocks are steps of, which
        need not bound theirs.
        """
        product = self.log_product()
        measured = {name: self.growth(k) for k, name in enumerate(self.blocks[0].growth)}
        main = next(iter(measured.values()))
        defined = ~main.isnan()
        holds = (main.log() <= product + 1e-6)[defined]
        return {
            "product": _geometric(product),
            "exponential": _geometric(self._log_exponential("sigma")),
            "log_norm": _geometric(self._log_exponential("log_norm")),
            "measured": {name: _geometric(values.log()) for name, values in measured.items()},
            "held": float(holds.double().mean()) if len(holds) else None,
        }

    def _log_exponential(self, figure: str) -> Tensor:
        logarithms = []
        for block in self.blocks:
            sums = [
                torch.stack([figures[figure] for figures in part.values()]).amax(0) for part in block.parts.values()
            ]
            logarithms.append(torch.stack(sums).sum(0) if sums else block.sigma().log())
        return torch.stack(logarithms).sum(0)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Plain data of each block."""
        return [
            {
                "name": block.name,
                "kind": block.kind,
                "joint": block.joint,
                "held": block.held,
                **{point: _summary(figures) for point, figures in block.points.items()},
                "branches": {
                    name: {point: _summary(figures) for point, figures in part.items()}
                    for name, part in block.parts.items()
                },
                "growth": {
                    name: {what: _mean(values) for what, values in figures.items()}
                    for name, figures in block.growth.items()
                },
            }
            for block in self.blocks
        ]


def _columns(parts: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> dict[str, dict[str, Tensor]]:
    return {
        key: {name: torch.cat([part[key][name] for part in parts if name in part[key]]) for name in parts[0][key]}
        for key in parts[0]
    }


def _summary(figures: Mapping[str, Tensor]) -> dict[str, Any]:
    summary: dict[str, Any] = {"converged": _mean(figures["converged"])}
    for name in ("sigma", "residual", "log_norm", "exact", "upper"):
        if name in figures:
            values = figures[name]
            spread = float(values.std(correction=0))
            summary[name] = {"mean": float(values.mean()), "sd": spread, "max": float(values.max())}
    return summary


def _mean(values: Tensor) -> float | None:
    defined = values[~values.isnan()]
    return float(defined.mean()) if len(defined) else None


def _geometric(logarithms: Tensor) -> float | None:
    """The geometric mean of numbers whose logarithms these are."""
    mean = _mean(logarithms)
    return None if mean is None else float(torch.tensor(mean, dtype=torch.float64).exp())
