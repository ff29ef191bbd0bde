"""Vulnerable layers: the displacement of every layer, the most vulnerable ones, and what each tolerates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from buttress.attacks import Perturbation
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import TAKES_ATTACKS, Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.rank_intervals import METHOD
from buttress.audits.base.ranking import joined
from buttress.audits.base.subject import Stored, Subject, same_inputs
from buttress.audits.base.work import Work, asked
from buttress.audits.layer_ranks import aligned, layer_ranks
from buttress.audits.layer_verdict import RELATIVE, displaced, growth, missed_text, verdict
from buttress.data.dataset import BATCH
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.layers import layer_names, measures, patching, sustainability, tolerance
from buttress.layers.patching import LayerPatching
from buttress.layers.profile import QUANTILES, LayerProfile, to_lists
from buttress.layers.regularisable import names_in
from buttress.layers.select import GROUPS, check_given, chooses_steps, user_module
from buttress.layers.tolerance import LayerTolerance
from buttress.registry import attack as registered_attacks
from buttress.registry import audit
from buttress.validation import not_negative, whole

T = TypeVar("T")
_PATCHES = 16  # passes of a layer that is patched: see `patching`


@audit("layers")
@dataclass(frozen=True, kw_only=True)
class Layers(Audit):
    """Layer sustainability analysis (Khalooei et al., arXiv 2202.02626), with the measures that an offset cannot fool.

    The verdict names the layers that come first by margin, and by patching: of which least has to be put back in the
    attacked pass until what was lost is right again. Beside them it names those that are displaced most, as algorithm 1
    does, and those that the inputs cannot tell from these (of fewer than 6 inputs none); and the layers at which the
    perturbation grows most, relative to what feeds them, by the centred measure. Displacement adds up along the layers,
    and tells depth more than anything else. The places of all layers by all measures have simultaneous intervals.

    Args:
        perturbations: what displaces the layers; the first is the one in the verdict.
        layers: "activations", "learnable", a name, a glob over names, or a list of these.
        measure: how displacement is measured.
        eta: cut-off of algorithm 1 in standard deviations above the mean of all layers, 0 or more; chosen at the
            widest gap unless given, or, which the verdict says, when it names no layer.
        tolerance_inputs: inputs on which tolerance and margin are searched (slow); 0 leaves them out.
        tolerance_steps: gradient steps of that search at each radius.
        bisections: halvings of the radius in that search.
        patching_inputs: beaten inputs on which clean values are put back layer by layer and path by path; 0 leaves that
            out.
        most_layers: layers that are searched and patched where there are more, for each takes passes of the whole
            network: the most displaced ones, and as many others spread evenly.
    """

    topic: ClassVar[Topic] = "What happens inside"
    needs_classes = False

    perturbations: Annotated[Sequence[Perturbation], TAKES_ATTACKS] = (
        PGD(steps=20),
        FGSM(),
        Gaussian(std=0.1),
    )
    layers: str | Sequence[str] = "activations"
    measure: str = "relative_error"
    eta: float | None = None
    tolerance_inputs: int = 64
    tolerance_steps: int = 10
    bisections: int = 6
    patching_inputs: int = 64
    most_layers: int = 32

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing."""
        if not self.perturbations:
            raise UserError("a layer audit needs at least one perturbation; got none")
        check_given(self.layers)
        measures.resolve(self.measure)
        if self.eta is not None:
            not_negative("eta", self.eta)
        whole("tolerance_inputs", self.tolerance_inputs, 0)
        whole("tolerance_steps", self.tolerance_steps)
        whole("bisections", self.bisections)
        whole("patching_inputs", self.patching_inputs, 0)
        whole("most_layers", self.most_layers)

    def check(self, subject: Subject) -> None:
        """Refuse names of layers that the network has not, before anything is asked.

        Raises:
            UserError: with the nearest names.
        """
        if callable(self.layers) or self.layers in GROUPS:
            return
        names = [self.layers] if isinstance(self.layers, str) else [*self.layers]
        try:
            layer_names(subject.model, subject.x[:2], names)
        except UserError:  # other inputs may call others
            names_in(subject.model, torch.split(subject.x, subject.batch_size), names)

    def profile(self, subject: Subject, measure: str | None = None) -> LayerProfile:
        """The layer profile of this network on the examples in the store."""
        by_name: dict[str, Perturbation] = {}
        for perturbation in self.perturbations:
            name = registered_attacks.name_of(perturbation).rpartition(":")[2]
            while name in by_name:
                name += "'"
            by_name[name] = Stored(subject.ids, subject.attacked(perturbation).outcome.x_adv)
        data = _Batches(subject.x, subject.y, subject.ids)
        size = min(subject.batch_size, BATCH)
        return sustainability(
            subject.model,
            data,
            by_name,
            self.layers,
            measure or self.measure,
            task=subject.task,
            seed=subject.seed,
            batch_size=size,
        )

    def work(self, subject: Subject) -> Work:
        """The perturbations, two profiles, and of each layer that is looked at closely its search and its patching."""
        count, layers = len(subject.y), min(self.most_layers, self._layer_count(subject))
        steps = self.tolerance_steps * (self.bisections + 6)
        searched = PassCount(steps, steps) * (layers * min(self.tolerance_inputs, count))
        patched = PassCount((_PATCHES + layers) * layers * min(self.patching_inputs, count))
        profiles = PassCount(2 * (2 + len(self.perturbations)) * count)
        return Work(asked(self.perturbations, count), profiles + searched + patched)

    def _layer_count(self, subject: Subject) -> int:
        try:
            return len(layer_names(subject.model, subject.x[:2], self.layers))
        except UserError:  # none, or other inputs call them
            return self.most_layers

    def ask(self, subject: Subject) -> Finding:
        """Profile, tolerance and margin, ranked."""
        profile = self.profile(subject)
        if not profile.layers:
            reasons = joined([f"{name} {reason}" for name, reason in profile.left_out.items()])
            text = f"No layer could be measured: {reasons}. {missed_text(profile)}".rstrip()
            nothing = {"layers": [], "left_out": profile.left_out, "missed": profile.missed}
            return Finding("layers", "Layers", text, "info", nothing)
        other = "centred" if self.measure != "centred" else "relative_error"
        second = self.profile(subject, other)
        part = _part(profile, self.most_layers) if len(profile.layers) > self.most_layers else None
        closer = self if part is None else replace(self, layers=part)
        searched, patched = closer._tolerance(subject), closer._patching(subject)
        found = displaced(profile, self.eta, subject.seed)
        centred = profile if self.measure == "centred" else second
        grown = growth(centred, subject.seed)
        beside = second.to_dict()
        figures = profile.to_dict()
        data: dict[str, Any] = {
            **{
                key: figures[key]
                for key in (
                    "layers",
                    "perturbations",
                    "measure",
                    "mean",
                    "std",
                    "excluded",
                    "unpaired",
                    "left_out",
                    "missed",
                )
            },
            "inputs": profile.inputs,
            # Other networks' layers are set beside these where both are equal.
            "perturbed_by": self.perturbations[0].fingerprint(),
            "same_inputs": same_inputs(subject),
            "choosing_steps": [n for n, m in user_module(subject.model).named_modules() if chooses_steps(m)],
            "quantiles": {str(q): to_lists(profile.quantiles[i]) for i, q in enumerate(QUANTILES)},
            "mu": {p: profile.mu(p) for p in profile.perturbations},
            "sigma": {p: profile.sigma(p) for p in profile.perturbations},
            "eta": found.eta,
            "mvl": {p: profile.mvl(found.eta, p) for p in profile.perturbations},
            "ranking": found.facts(profile.layers),
            "growth": {
                "gain": aligned(profile.layers, centred.layers, to_lists(grown.values)),
                **grown.facts(centred.layers),
                "low": aligned(profile.layers, centred.layers, to_lists(grown.low)),
                "high": aligned(profile.layers, centred.layers, to_lists(grown.high)),
            },
            "suggested_eta": {p: profile.suggest_eta(p) for p in profile.perturbations},
            "gain": {p: to_lists(profile.gain(p)) for p in profile.perturbations},
            "crossed_by_every_path": profile.crossed,
            other: {
                "mean": [aligned(profile.layers, second.layers, row) for row in beside["mean"]],
                "std": [aligned(profile.layers, second.layers, row) for row in beside["std"]],
                "reference": second.reference,
            },
            "ranks": {"method": METHOD, "by": layer_ranks((profile, second), searched, patched, subject.seed)},
        }
        if searched is not None:
            figures = searched.to_dict()
            data |= {key: aligned(profile.layers, searched.layers, figures[key]) for key in ("tolerance", "margin")}
            data |= {"rank_correlation": figures["rank_correlation"], "tolerance_inputs": figures["inputs"]}
            data["not_searched"] = searched.left_out
        if part is not None and (searched is not None or patched is not None):
            data["looked_closer"] = part
        if self.patching_inputs:
            data["patching_inputs"] = 0 if patched is None else patched.beaten
        if patched is not None:
            figures = patched.to_dict()
            whole_ones = ("doses", "paths", "paths_left_out", "left_out")
            data["patching"] = {name: figures[name] for name in whole_ones} | {
                name: aligned(profile.layers, patched.layers, figures[name])
                for name in ("called", "curve", "restored", "recovery", "half_dose", "few")
            }
        far = self.measure in RELATIVE and _largest(profile) > 0.5  # half of a layer's size
        severity: Severity = "warning" if far else "info"
        text = verdict(profile, found, centred.layers, grown, data, self.perturbations[0].label())
        return Finding("layers", "Layers", text, severity, data)

    def _tolerance(self, subject: Subject) -> LayerTolerance | None:
        if not self.tolerance_inputs:
            return None
        every = torch.arange(len(subject.y))
        counts = {"steps": self.tolerance_steps, "bisections": self.bisections}
        return self._of_some(tolerance, subject, every, self.tolerance_inputs, **counts)

    def _patching(self, subject: Subject) -> LayerPatching | None:
        """None also where no input is beaten, which leaves nothing to put right."""
        if not self.patching_inputs:
            return None
        wrong = subject.task.is_adversarial(subject.logits, subject.y)
        beaten = (subject.attacked(self.perturbations[0]).outcome.success & ~wrong).nonzero().squeeze(1).cpu()
        return self._of_some(patching, subject, beaten, self.patching_inputs) if len(beaten) else None

    def _of_some(self, analysis: Callable[..., T], subject: Subject, rows: Tensor, most: int, **counts: int) -> T:
        """An analysis of the layers on some of the inputs in ``rows``, spread evenly, under the first perturbation."""
        some = rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).long()]
        return analysis(
            subject.model,
            _Batches(subject.x[some], subject.y[some], subject.ids[some]),
            Stored(subject.ids, subject.attacked(self.perturbations[0]).outcome.x_adv),
            self.layers,
            task=subject.task,
            seed=subject.seed,
            batch_size=subject.batch_size,
            **counts,
        )


class _Batches:
    """Tensors as batches whose ids a layer analysis can follow."""

    def __init__(self, x: Tensor, y: Tensor, ids: Tensor) -> None:
        self.x, self.y, self.ids = x, y, ids

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(zip(torch.split(self.x, BATCH), torch.split(self.y, BATCH), strict=True))


def _part(profile: LayerProfile, most: int) -> list[str]:
    """As many layers, in their order: half of them the most displaced, the rest spread evenly over all others."""
    order = profile.mean[0].nan_to_num(nan=-torch.inf, posinf=torch.inf).argsort(descending=True, stable=True)
    first, others = order[: (most + 1) // 2], order[(most + 1) // 2 :].sort().values
    spread = others[torch.linspace(0, len(others) - 1, most // 2).round().long()]
    return [profile.layers[k] for k in torch.cat([first, spread]).sort().values.tolist()]


def _largest(profile: LayerProfile) -> float:
    return float(profile.mean[0].nan_to_num().max())
