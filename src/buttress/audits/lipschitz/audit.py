"""Which blocks make a small change large: singular values of their Jacobians, and how far changes really grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import Perturbation
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import TAKES_ATTACKS, Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.ranking import joined
from buttress.audits.base.subject import Stored, Subject
from buttress.audits.base.work import Work, asked
from buttress.audits.lipschitz.block_measures import NetworkMeasures, Settings, measure
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.layers import sustainability, tolerance
from buttress.layers.block_calls import block_of, recorded_calls
from buttress.layers.blocks import block_names, offers_branches
from buttress.layers.capture import layer_names
from buttress.layers.correlation import spearman
from buttress.layers.profile import to_lists
from buttress.layers.select import user_module
from buttress.registry import attack as registered_attacks
from buttress.registry import audit
from buttress.validation import name_list, number, whole

_TITLE = "Growth of small changes"
_STEPS, _BISECTIONS = 10, 6  # of the search for the tolerance
_CALLS = 16  # of one block that are measured, as a loop may call it thousands of times


@audit("lipschitz")
@dataclass(frozen=True, kw_only=True)
class Lipschitz(Audit):
    """Largest singular values of each block's Jacobian, beside the growth of real perturbations and the layer profile.

    A network of blocks is seen as the steps of a differential equation, and an attack as another initial value (Wang
    and Ruan, arXiv 2208.00906): how far the two drift apart is bounded by the product of the largest singular values.
    Of residual blocks each branch is measured too: J, I + J and the logarithmic norm. Of what goes into a block
    all tensors with one row to an input move that depend on the network's input: those that hold the same numbers as
    one, and those with numbers of their own jointly, so that sigma of A a + B b is that of [A B]. The rest is held, and
    blocks that do not give one row to an input, or do not depend on it, are left out, all by name. A block that is
    called several times is measured at each of the first 16 calls, under the names of layers (b, b#1). All bounds are
    local: they hold for small changes at the points measured, the inputs and the same under the first perturbation, and
    certify nothing. Cost per input, call of a block and branch: at most 2 ``starts`` ``iterations`` reverse passes of
    that block at each of the points; of a branch three times as many.

    Args:
        perturbations: whose growth is measured; the first gives the second point and is the one in the verdict.
        blocks: names or globs of submodules, or of their calls; the network's children unless given, sequences of
            blocks taken apart.
        inputs: inputs measured, spread evenly over the data.
        branches: whether the residual branches of blocks that have such are measured.
        iterations: products with J^T J, at most, from each start.
        tolerance: relative, of the singular values.
        starts: random start vectors.
        exact: inputs for which full Jacobians are computed as well (slow): exact singular value, and the upper bound
            sqrt(||J||_1 ||J||_inf). Blocks with Jacobians of more than 4 million numbers are left out.
        tolerance_inputs: inputs on which tolerance and margin of each block are searched (slow); 0 leaves them out.
    """

    topic: ClassVar[Topic] = "What happens inside"
    needs_classes = False

    perturbations: Annotated[Sequence[Perturbation], TAKES_ATTACKS] = (PGD(steps=20), Gaussian(std=0.1))
    blocks: str | Sequence[str] | None = None
    inputs: int = 64
    branches: bool = True
    iterations: int = 30
    tolerance: float = 1e-3
    starts: int = 2
    exact: int = 0
    tolerance_inputs: int = 0

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if not self.perturbations:
            raise UserError("the audit lipschitz needs at least one perturbation; got none")
        for name in ("inputs", "iterations", "starts"):
            whole(name, getattr(self, name))
        for name in ("exact", "tolerance_inputs"):
            whole(name, getattr(self, name), 0)
        number("tolerance", self.tolerance, "(0, 1)")
        if self.blocks is not None:
            name_list("blocks", self.blocks)

    def check(self, subject: Subject) -> None:
        """Refuse blocks that the network does not have, and a network without one that can be measured."""
        self._measurable(subject)

    def _measurable(self, subject: Subject) -> tuple[list[str], dict[str, str]]:
        """The names of the blocks that are measured, and why others are not."""
        few = subject.x[:2]
        names, late = _first_calls(block_names(subject.model, few, self.blocks))
        calls, reasons = recorded_calls(subject.model, few, names, subject.seed)
        if not calls:
            raise UserError(_nothing(reasons))
        return list(calls), reasons | late

    def work(self, subject: Subject) -> Work:
        """The perturbations of the measured inputs; products with J and J^T of blocks, each a pass there and back."""
        count = min(self.inputs, len(subject.y))
        branching = self.branches and any(map(offers_branches, subject.model.modules()))
        products = 2 * 2 * self.starts * self.iterations * (4 if branching else 1)
        blocks = len(self._measurable(subject)[0]) if self.tolerance_inputs else 0
        searched = _STEPS * (_BISECTIONS + 6) * blocks * min(self.tolerance_inputs, count)
        own = PassCount(8 + products, products) * count + PassCount(searched, searched)
        return Work(asked(self.perturbations, count), own)

    def ask(self, subject: Subject) -> Finding:
        """Measure each block at the inputs and at the perturbed ones."""
        count = min(self.inputs, len(subject.x))
        rows = torch.linspace(0, len(subject.x) - 1, count).long().to(subject.x.device)
        x, y, ids = subject.x[rows], subject.y[rows], subject.ids[rows]
        results = {}
        for perturbation in self.perturbations:
            name = registered_attacks.name_of(perturbation).rpartition(":")[2]
            while name in results:
                name += "'"
            results[name] = subject.attacked(perturbation, rows=rows).outcome
        perturbed = {name: outcome.x_adv for name, outcome in results.items()}
        names, left_out = self._measurable(subject)
        parts: list[NetworkMeasures] = []
        size = min(subject.batch_size, count)
        for batch in torch.split(torch.arange(count, device=x.device), size):
            part = {name: points[batch] for name, points in perturbed.items()}
            exact = max(0, self.exact - len(parts) * size)
            settings = Settings(self.iterations, self.tolerance, self.starts, self.branches, exact, subject.seed)
            parts.append(measure(subject.model, x[batch], part, ids[batch], names, settings))
            if subject.watch is not None:
                subject.watch("lipschitz", min(1.0, len(parts) * size / count))
        measures = NetworkMeasures.concatenated(parts)
        left_out |= measures.left_out
        names = [block.name for block in measures.blocks]
        if not names:
            raise UserError(_nothing(left_out))
        success = results[next(iter(results))].success
        main = self.perturbations[0].label()
        blocks = measures.to_dicts()
        stored = {name: Stored(ids, points) for name, points in perturbed.items()}
        for entry, more in zip(blocks, self._profile(subject, x, y, ids, names, stored), strict=True):
            entry |= more
        places = _places(subject, blocks)
        data: dict[str, Any] = {
            "inputs": count,
            "seed": subject.seed,
            "perturbations": list(perturbed),
            "main": main,
            "chained": measures.chain,
            "exact_inputs": min(self.exact, count),
            "tolerance_inputs": min(self.tolerance_inputs, count),
            "blocks": blocks,
            "left_out": left_out,
            "places": places,
            "bounds": measures.bounds(),
            "correlation": _correlations(measures, success),
        }
        return Finding("lipschitz", _TITLE, _verdict(data), "info", data)

    def _profile(
        self, subject: Subject, x: Tensor, y: Tensor, ids: Tensor, names: list[str], stored: dict[str, Stored]
    ) -> list[dict[str, Any]]:
        """The same blocks in the layer sustainability analysis: displacement, gain, tolerance and margin.

        Nothing of those that are no layers: the network itself, and blocks that give no tensor first; nor of those that
        the profile leaves out, as of a constant.
        """
        known = self._layers(subject, x, names)
        seen = [name for name in names if name in known]
        if not seen:
            return [{} for _ in names]
        data = _Batches(x, y, ids, subject.batch_size)
        settings: dict[str, Any] = {"seed": subject.seed, "task": subject.task}
        profile = sustainability(subject.model, data, stored, seen, batch_size=subject.batch_size, **settings)
        main = next(iter(stored))
        seen = [name for name in seen if name in profile.layers]
        order = [profile.layers.index(name) for name in seen]
        mean, gain = to_lists(profile.mean[0, order]), to_lists(profile.gain(main)[order])
        rows = [{"cm": cm, "gain": g} for cm, g in zip(mean, gain, strict=True)]
        if self.tolerance_inputs and seen:
            some = torch.linspace(0, len(y) - 1, min(self.tolerance_inputs, len(y))).long().to(x.device)
            few = _Batches(x[some], y[some], ids[some], subject.batch_size)
            searched = tolerance(
                subject.model, few, stored[main], seen, steps=_STEPS, bisections=_BISECTIONS, **settings
            )
            figures, order = searched.to_dict(), [searched.layers.index(name) for name in seen]
            for row, k in zip(rows, order, strict=True):
                row |= {"tolerance": figures["tolerance"][k], "margin": figures["margin"][k]}
        by_name = dict(zip(seen, rows, strict=True))
        return [by_name.get(name, {}) for name in names]

    def _layers(self, subject: Subject, x: Tensor, names: list[str]) -> list[str]:
        try:
            return layer_names(subject.model, x[:1], lambda name, module: name in names)
        except UserError:  # none
            return []


class _Batches:
    """Tensors as batches whose ids a layer analysis can follow."""

    def __init__(self, x: Tensor, y: Tensor, ids: Tensor, size: int) -> None:
        self.x, self.y, self.ids, self.size = x, y, ids, size

    def __iter__(self) -> Any:
        return iter(zip(torch.split(self.x, self.size), torch.split(self.y, self.size), strict=True))


def _first_calls(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The first calls of each block; and, by the name of the first that is left out, that it and others are."""
    calls: dict[str, list[str]] = {}
    for name in names:
        calls.setdefault(block_of(name), []).append(name)
    late = {name for of_block in calls.values() for name in of_block[_CALLS:]}
    reasons = {
        of_block[_CALLS]: f"and later calls of it ({len(of_block) - _CALLS} in all) are not measured unless named"
        for of_block in calls.values()
        if len(of_block) > _CALLS
    }
    return [name for name in names if name not in late], reasons


def _nothing(reasons: Mapping[str, str]) -> str:
    """That no block can be measured, for the reason of the first."""
    name, reason = next(iter(reasons.items()))
    return f"the block {name!r} {reason}: name another"


def _places(subject: Subject, blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest singular values of the first, the inner and the last of the blocks that are of one kind.

    Those are the modules with parts of their own whose class occurs most often, or, where no class occurs twice, all
    that have weights.
    """
    modules = dict(user_module(subject.model).named_modules())
    deep = [row for row in blocks if row["name"] and list(modules[block_of(row["name"])].children())]
    kinds = [kind for _, kind in {(block_of(row["name"]), row["kind"]): None for row in deep}]
    kind = max(kinds, key=kinds.count, default="")
    alike = [row for row in deep if row["kind"] == kind]
    if kinds.count(kind) < 2:
        alike = [row for row in blocks if any(True for _ in modules[block_of(row["name"])].parameters())]
        kind = "layer"
    if len(alike) < 2:
        alike = blocks
    sigmas = [row["clean"]["sigma"]["mean"] for row in alike]
    top = sigmas.index(max(sigmas))
    return {
        "kind": kind,
        "blocks": [row["name"] for row in alike],
        **_ends(sigmas),
        "adversarial": _ends([row["adversarial"]["sigma"]["mean"] for row in alike]),
        "top": alike[top]["name"],
        "largest": max(sigmas),
        "place": "only" if len(alike) == 1 else {0: "first", len(alike) - 1: "last"}.get(top, "inner"),
    }


def _ends(sigmas: list[float]) -> dict[str, float | None]:
    """The first and the last, the mean of those between, and the quotients with that."""
    inner = sum(sigmas[1:-1]) / len(sigmas[1:-1]) if len(sigmas) > 2 else None
    return {
        "first": sigmas[0],
        "middle": inner,
        "last": sigmas[-1],
        "first_over_middle": sigmas[0] / inner if inner else None,
        "last_over_middle": sigmas[-1] / inner if inner else None,
    }


def _correlations(measures: NetworkMeasures, success: Tensor) -> dict[str, float | None]:
    """Rank correlations over the inputs: of the bound with the measured growth, and with the attack's success."""
    bound, growth = measures.log_product(), measures.growth(0).log()
    values = {
        "bound_growth": spearman(bound, growth.where(growth.isfinite(), torch.nan)),
        "bound_beaten": spearman(bound, success.to(bound)),
    }
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _verdict(data: dict[str, Any]) -> str:
    places, bounds = data["places"], data["bounds"]
    count, top = len(places["blocks"]), places["top"] or "the network"
    others = [v for v in (places["first"], places["middle"], places["last"]) if v is not None]
    place = {"only": "", "inner": "neither the first nor the last", "first": "the first", "last": "the last"}
    where = f", {place[places['place']]} of {count} compared" if count > 1 else ""
    text = f"Small changes are stretched most by {top}{where}: largest singular value {places['largest']:.3g}"
    if count > 2:
        text += " (first {:.3g}, mean of those between {:.3g}, last {:.3g})".format(*others)
    main = next(iter(data["perturbations"]))
    if (growth := bounds["measured"].get(main)) is not None:
        text += f". Under {data['main']} a change grows {growth:.3g}-fold"
        if data["chained"]:
            text += f", where the product of the blocks' values is {bounds['product']:.3g}"
        else:
            text += (
                " from the first of these blocks to the last; modules between change it too, so no product bounds this"
            )
    text += "."
    if joint := [row["name"] or "the network" for row in data["blocks"] if row.get("joint", 1) > 1]:
        text += f" What goes into {joined(joint)} is several tensors, which move jointly."
    if held := [row["name"] or "the network" for row in data["blocks"] if row["held"]]:
        text += f" Of what goes into {joined(held)} tensors that do not depend on the input are held where they are."
    reasons = [f"{name} {reason}" for name, reason in data["left_out"].items()]
    return text + (f" Left out: {'; '.join(reasons)}." if reasons else "")
