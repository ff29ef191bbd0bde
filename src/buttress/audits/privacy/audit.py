"""What a network gives away of its training data: membership, generalisation gaps, and robustified intensity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from buttress.attacks import Attack
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base import probability_scores as scores
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.statistics import INTERVAL, accuracy
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.audits.privacy import composition, noise
from buttress.audits.privacy.gaps import GAP_INTERVAL, difference
from buttress.audits.privacy.intensity import intensity
from buttress.audits.privacy.likelihood_ratio import form_of, likelihood_ratio, log_odds
from buttress.audits.privacy.membership import inferred
from buttress.audits.privacy.references import Reference, answers
from buttress.audits.privacy.words import verdict
from buttress.data.stratified import stratified_index
from buttress.engine.pass_count import PassCount
from buttress.errors import NoGradientError, UserError
from buttress.layers.example_gradients import ExampleGradients, example_gradients, lengths, ratios
from buttress.registry import audit
from buttress.tasks import Classification
from buttress.validation import name_list, number, one_name, whole

_BINS = 40  # of the histogram of confidences


@audit("privacy")
@dataclass(frozen=True, kw_only=True)
class Privacy(Audit):
    """How far training inputs can be told from others, and what adversarial training has to do with it (RPG).

    Members are training inputs, not augmented, and others as many of those audited; both are drawn by the seed, classes
    in proportion. Of both the network is asked for its accuracy as they are and under the attack (the generalisation
    gaps), and whether someone who knows the confidence in the true class, or the loss at an adversarial example, can
    tell them apart (Yeom et al., CSF 2018; see `inferred` for the threshold). With reference networks the confidence is
    calibrated for each input by what these make of it (`likelihood_ratio`). What these attacks do not find another one
    may.

    Robustified intensity (arXiv 2012.13573) is the largest gradient norm of an example's loss over the parameters at
    adversarial examples, over that at the inputs themselves: ``paired`` at the same weights and inputs, and, as its
    code has it, ``cross_run``, over that of a network which was trained without an attack. Their largest over the data
    is taken over the members. From it, and the noise of the gradients of batches, follow an (eps, delta) and two bounds
    on the gap (`composition`), under assumptions that the finding states: these are statements of a model of the noise
    in training and no guarantee of privacy.

    Cost: the attack for each member and each other; for each member 2 forwards and 2 backwards more, 1 of each for the
    full gradient, and a forward for each reference; and ``batches`` times ``batch`` of each.

    Args:
        attack: run to the end at members and others; None leaves out all that needs adversarial examples.
        inputs: members, and others, at most.
        baseline: a network that was trained without an attack, for the intensity across runs. In a job, its run's
            folder.
        references: for the likelihood ratio, two or more networks with the inputs that they were trained on. In a job,
            folders of runs, best in pairs that ``train --half 0``, ``--half 1``, ... made.
        batch: inputs of a batch of training.
        batches: drawn for the noise; 0 leaves it out, and what follows from it.
        coordinates: of each batch's noise.
        steps: of training, composed for eps; one pass over the training inputs unless given.
        delta: of differential privacy, for all steps together.
    """

    topic: ClassVar[Topic] = "What it gives away"
    needs_training = True

    attack: Attack | None = PGD(steps=20)
    inputs: int = 1000
    baseline: nn.Module | str | None = None
    references: Sequence[Reference | str] = ()
    batch: int = 128
    batches: int = 50
    coordinates: int = 20_000
    steps: int | None = None
    delta: float = 1e-5

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("inputs", self.inputs, 2)
        whole("batch", self.batch)
        whole("batches", self.batches, 0)
        whole("coordinates", self.coordinates)
        number("delta", self.delta, "(0, 1)")
        if self.steps is not None:
            whole("steps", self.steps)
        if not isinstance(self.baseline, nn.Module | None):
            one_name("baseline", self.baseline)
        name_list("references", [each for each in self.references if not isinstance(each, Reference)])
        if len(self.references) == 1:
            raise UserError("references must be two networks or more, which say how far answers spread; got one")

    def check(self, subject: Subject) -> None:
        """Refuse a network without training data, and one that does not classify.

        Raises:
            UserError: saying what to give.
        """
        if not isinstance(subject.task, Classification):
            raise UserError("privacy needs a network that classifies: use robustness, layers or examples")
        if subject.training is None or len(subject.training) < 2:
            raise UserError(
                "privacy needs the inputs that the network was trained on: give training=SPLIT in Python; on the "
                "command line a run's folder, or --data with a training split"
            )
        if len(subject.y) < 2:
            raise UserError("privacy needs two inputs or more that the network was not trained on: raise inputs")

    def work(self, subject: Subject) -> Work:
        """The attack on others and on members; of members gradients, and what the references make of all.

        A gradient over the parameters of a single example counts as two passes there and back.
        """
        training = subject.training
        count = min(self.inputs, len(subject.y), len(subject.y) if training is None else len(training))
        own = PassCount(6 * count) + PassCount(4, 4) * count + PassCount(1, 1) * (count + self.batches * self.batch)
        own += PassCount((2 * len(self.references) + 2 * (self.baseline is not None)) * count)
        if self.attack is None:
            return Work(passes=own)
        members = self.attack.most_passes(subject.logits[0].numel()) or PassCount()
        return Work(asked([self.attack], count), own + members * count)

    def ask(self, subject: Subject) -> Finding:
        """Attack members and others, take gradients at members, and tell the two apart.

        Raises:
            UserError: for a baseline or references that do not fit.
            NoGradientError: where the attack needs gradients that the network does not give.
        """
        members, others = self._sides(subject)
        sides = {"members": members, "others": others}
        attacked = {} if self.attack is None else {name: self._attacked(side) for name, side in sides.items()}
        moved = attacked.get("members")
        data: dict[str, Any] = {
            "inputs": len(members.y),
            "training_inputs": len(members.ids) if subject.training is None else len(subject.training),
            "attack": None if self.attack is None else f"{self.attack.label()} at {self.attack.threat.text()}",
            "eps": None if self.attack is None else self.attack.threat.eps,
            "interval": f"{INTERVAL}; {GAP_INTERVAL}; of intensity by bootstrap over inputs, 95 %",
            "seed": subject.seed,
            "clean": _gap(sides, {name: side.logits for name, side in sides.items()}),
            "robust": _gap(sides, {name: sides[name].output(x) for name, x in attacked.items()}) if attacked else None,
            "intensity": self._intensity(members, moved),
            "membership": self._membership(sides, attacked),
            "confidences": _confidences(*(log_odds(side.logits, side.y).cpu() for side in (members, others))),
        }
        data |= self._noise(members, moved, data)
        return Finding("privacy", "Privacy of the training data", verdict(data), _severity(data), data)

    def _sides(self, subject: Subject) -> tuple[Subject, Subject]:
        """As many members as others, each a subject of its own that shares what is crafted."""
        training = subject.training
        assert training is not None  # `check` has seen to it
        count = min(self.inputs, len(training), len(subject.y))
        part = training.stratified(count, subject.seed)
        x, y, ids = (values.to(subject.x.device) for values in part.take(torch.arange(len(part))))
        members = replace(subject, x=x.to(subject.x.dtype), y=y, ids=ids, tokens=None, _logits=None)
        if count == len(subject.y):
            return members, subject
        rows = stratified_index(subject.y.cpu(), count, subject.seed).to(subject.y.device)
        chosen = {name: getattr(subject, name)[rows] for name in ("x", "y", "ids")}
        return members, replace(subject, **chosen, tokens=None, _logits=None)

    def _attacked(self, side: Subject) -> Tensor:
        assert self.attack is not None
        return side.attacked(self.attack).outcome.x_adv

    def _intensity(self, members: Subject, moved: Tensor | None) -> dict[str, Any]:
        """Gradient norms as they are and under attack, and their ratios; why there are none, where that is so."""
        try:
            clean = _gradients(members.model, members, members.x)
        except NoGradientError as reason:
            return {"left_out": str(reason)}
        found: dict[str, Any] = {"clean": lengths(clean.norms), "vectorised": clean.vectorised}
        if moved is None:
            return found
        adversarial = _gradients(members.model, members, moved).norms
        found |= {"adversarial": lengths(adversarial), "paired": intensity(adversarial, clean.norms, members.seed)}
        if isinstance(self.baseline, str):
            raise UserError(f"baseline must be a network; got {self.baseline!r}: a run's folder is for buttress audit")
        if self.baseline is not None:
            other = _gradients(self.baseline, members, members.x).norms
            found |= {"baseline": lengths(other), "cross_run": ratios(adversarial, other)}
        return found

    def _membership(self, sides: dict[str, Subject], attacked: dict[str, Tensor]) -> dict[str, Any]:
        """By what is known: how well members are told from others."""
        seed = sides["members"].seed
        known = [-scores.negative_log_likelihood(side.logits, side.y) for side in sides.values()]
        found = {"confidence": inferred(known[0], known[1], seed)}
        if attacked:
            pairs = ((side, side.output(attacked[name])) for name, side in sides.items())
            moved = [-scores.negative_log_likelihood(logits, side.y) for side, logits in pairs]
            found["adversarial loss"] = inferred(moved[0], moved[1], seed)
        if self.references:
            found["likelihood ratio"] = self._calibrated(sides, seed)
        return found

    def _calibrated(self, sides: dict[str, Subject], seed: int) -> dict[str, Any]:
        asked = [answers(self.references, side) for side in sides.values()]
        odds, seen = (torch.cat(parts, 1) for parts in zip(*asked, strict=True))
        own = torch.cat([log_odds(side.logits, side.y).cpu() for side in sides.values()])
        evidence = likelihood_ratio(own, odds, seen)
        count = len(sides["members"].y)
        facts = {"form": form_of(seen), "references": len(self.references)}
        return {**facts, **inferred(evidence[:count], evidence[count:], seed)}

    def _noise(self, members: Subject, moved: Tensor | None, data: dict[str, Any]) -> dict[str, Any]:
        """The noise of gradients, and what follows from it."""
        norms = data["intensity"].get("adversarial", data["intensity"].get("clean"))
        if not self.batches or norms is None:
            return {}
        x = members.x if moved is None else moved
        draws = {"batch": min(self.batch, max(1, len(x) // 2)), "batches": self.batches}
        values = noise.gradient_noise(
            members.model, x, members.y, members.task, coordinates=self.coordinates, seed=members.seed, **draws
        )
        fit, inputs = noise.laplace_fit(values), data["training_inputs"]
        steps = self.steps or math.ceil(inputs / self.batch)
        step = composition.step_epsilon(norms["max"], inputs, fit["scale"])
        eps = composition.composed_epsilon(step, steps, self.delta)
        return {
            "noise": {**fit, **draws, "values": len(values), "histogram": noise.histogram(values)},
            "composed": {
                "step_epsilon": step,
                "steps": steps,
                "epsilon": eps,
                "delta": self.delta,
                "average_gap": composition.average_gap(eps, self.delta),
                "likely_gap": composition.likely_gap(eps, self.delta),
                "assumptions": list(composition.ASSUMPTIONS),
            },
        }


def _gradients(model: nn.Module, side: Subject, x: Tensor) -> ExampleGradients:
    return example_gradients(model, x, side.y, side.task, side.seed)


def _gap(sides: dict[str, Subject], logits: dict[str, Tensor]) -> dict[str, Any]:
    """Accuracy on members and on others, and the difference."""
    right = {name: ~side.task.is_adversarial(logits[name], side.y) for name, side in sides.items()}
    shares = {name: accuracy(hits) for name, hits in right.items()}
    return {**shares, "gap": difference(right["members"], right["others"])}


def _confidences(members: Tensor, others: Tensor) -> dict[str, list[float]]:
    """Shares of members and of others by the log-odds of the true class, in bins that both have."""
    both = torch.cat([members, others])
    finite = both[both.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
    high = high if high > low else low + 1.0
    width = (high - low) / _BINS
    shares = (torch.histc(part.clamp(low, high), _BINS, low, high) / len(part) for part in (members, others))
    member_shares, other_shares = (part.tolist() for part in shares)
    return {
        "middles": [low + (k + 0.5) * width for k in range(_BINS)],
        "members": member_shares,
        "others": other_shares,
    }


def _severity(data: dict[str, Any]) -> Severity:
    """By the best of the attacks that were tried; never "good", for another attack may find more."""
    surely = max(found["low"] for found in data["membership"].values())
    return "bad" if surely >= 0.3 else "warning" if surely > 0.05 else "info"
