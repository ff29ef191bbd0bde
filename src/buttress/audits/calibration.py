"""Does the network know what it does not know: how its confidence fits its accuracy, and strange inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buttress import data as datasets
from buttress.attacks import Attack, Perturbation
from buttress.attacks.corruptions.gaussian import Gaussian
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base import probability_scores as scores
from buttress.audits.base.finding import Finding, Severity
from buttress.audits.base.statistics import INTERVAL, accuracy, bootstrap
from buttress.audits.base.subject import Audit, Subject, describe
from buttress.defences.base.step_context import rescaled
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.models.wrapping.optional_methods import optional_method
from buttress.random import Random, derive
from buttress.registry import audit
from buttress.tasks import Classification
from buttress.threat import budget_text

MADE = ("uniform", "inverted", "shuffled")
_SCORES = ("confidence", "entropy", "mutual_information")


@audit("calibration")
@dataclass(frozen=True, kw_only=True)
class Calibration(Audit):
    """Whether confidence fits accuracy: on inputs as they are, under noise and attack, and on inputs of another kind.

    Told are error, negative log-likelihood, Brier score (over all classes, from 0 to 2), expected calibration error
    (bins of equal width; Guo et al., ICML 2017), mean confidence and mean predictive entropy. Inputs from outside have
    no right class; what counts is the area under the ROC when they are told from the inputs by low confidence
    (Hendrycks and Gimpel, ICLR 2017), or by high entropy. A network that offers ``uncertainty(x) -> dict`` of (N,)
    figures is asked for these, too; its ``mutual_information`` is a third score.

    What a calibration error is worth depends on the inputs: with N of them in B bins, that of a network that is
    perfectly calibrated comes out at up to about 0.4 sqrt(B / N).

    Cost per input: the attack at each budget, and a forward for each condition and each kind from outside; twice that
    where the network offers ``uncertainty``.

    Args:
        perturbations: conditions besides the attack, run as they are; they may be none.
        attack: run at each of ``shares`` of its budget; None for none. Let it run to the end: one that stops at the
            first success finds less wrong confidence.
        shares: of the budget.
        bins: of confidence.
        outside: kinds of strange inputs: "uniform" noise in the inputs' range, "inverted" ones, "shuffled" ones (the
            positions in an order of its own for each), or names of data sets of the inputs' shape, of whose test split
            as many are taken as there are inputs.
        tolerated: calibration error from which on the verdict is a warning.
    """

    perturbations: Sequence[Perturbation] = (Gaussian(std=0.1), Gaussian(std=0.3))
    attack: Attack | None = PGD(steps=20)
    shares: Sequence[float] = (0.25, 0.5, 1.0)
    bins: int = 15
    outside: Sequence[str] = MADE
    tolerated: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or self.bins < 1:
            raise UserError(f"bins must be a whole number of 1 or more; got {self.bins!r}")
        if any(not 0 < share <= 1 for share in self.shares):
            raise UserError(f"shares of the attack's budget must be in (0, 1]; got {list(self.shares)}")
        if not 0 <= self.tolerated <= 1:
            raise UserError(f"tolerated must be in [0, 1]; got {self.tolerated}")

    def ask(self, subject: Subject) -> Finding:
        """Read the probabilities under each condition, and for strange inputs.

        Raises:
            UserError: for networks that do not classify, and data sets of another shape or an unknown name.
        """
        if not isinstance(subject.task, Classification):
            raise UserError("an audit of calibration needs a network that classifies")
        clean = _Answers(subject, subject.x, subject.logits)
        conditions = [self._condition(subject, *made) for made in self._conditions()]
        data: dict[str, Any] = {
            "inputs": len(subject.y),
            "seed": subject.seed,
            "bins": self.bins,
            "interval": f"{INTERVAL}; of the likelihood by bootstrap over inputs, 95 %",
            "clean": self._figures(clean, subject),
            "reliability": self._table(clean.logits, subject.y),
            "conditions": conditions,
            "outside": [_told_apart(name, clean, self._outside(subject, name)) for name in self.outside],
        }
        severity: Severity = "warning" if data["clean"]["ece"] >= self.tolerated else "info"
        return Finding("calibration", "Calibration", _verdict(data), severity, data)

    def _conditions(self) -> list[tuple[Perturbation, str, float | None]]:
        """Perturbations with what they are called, and the budget of the attack."""
        made: list[tuple[Perturbation, str, float | None]] = [(p, _named(p), None) for p in self.perturbations]
        if self.attack is not None:
            for share in sorted(set(self.shares)):
                eps = share * self.attack.threat.eps
                name = f"{describe(self.attack)} at {self.attack.threat.norm} eps {budget_text(eps)}"
                made.append((rescaled(self.attack, share), name, eps))
        return made

    def _condition(self, subject: Subject, made: Perturbation, name: str, eps: float | None) -> dict[str, Any]:
        x = subject.attacked(made).outcome.x_adv
        answers = _Answers(subject, x, subject.output(x))
        figures = self._figures(answers, subject)
        return {"label": name, "kind": "noise" if eps is None else "attack", "eps": eps, **figures}

    def _figures(self, answers: _Answers, subject: Subject) -> dict[str, Any]:
        right = answers.logits.argmax(1) == subject.y
        likelihood = scores.negative_log_likelihood(answers.logits, subject.y).cpu()
        low, high = bootstrap(len(right), lambda index: likelihood[index].mean(1), subject.seed)
        share = accuracy(~right)
        return {
            **answers.means(),
            "error": share["accuracy"],
            "error_low": share["low"],
            "error_high": share["high"],
            "nll": float(likelihood.mean()),
            "nll_low": low,
            "nll_high": high,
            "brier": float(scores.brier(answers.logits, subject.y).mean()),
            "ece": scores.calibration_error(self._table(answers.logits, subject.y)),
        }

    def _table(self, logits: Tensor, y: Tensor) -> list[dict[str, Any]]:
        confidence, guess = logits.double().softmax(1).max(1)
        return scores.reliability(confidence, guess == y, self.bins)

    def _outside(self, subject: Subject, name: str) -> _Answers:
        x = _made(subject, name) if name in MADE else _loaded(subject, name)
        return _Answers(subject, x, subject.output(x))


class _Answers:
    """What a network says of some inputs: (N, C) logits, and (N,) scores by name, higher where it is less sure."""

    def __init__(self, subject: Subject, x: Tensor, logits: Tensor) -> None:
        self.logits = logits
        sure = logits.double().softmax(1).max(1).values
        self.scores = {"entropy": scores.entropy(logits), **_uncertainty(subject, x), "confidence": -sure}

    def means(self) -> dict[str, float]:
        """Over the inputs."""
        means = {name: float(value.double().mean()) for name, value in self.scores.items()}
        return {**means, "confidence": -means["confidence"]}


def _uncertainty(subject: Subject, x: Tensor) -> dict[str, Tensor]:
    """What the network itself says of how unsure it is; nothing from most networks."""
    module = optional_method(subject.model, "uncertainty")
    if module is None:
        return {}
    found: dict[str, list[Tensor]] = {}
    # The network itself is borrowed: its flags are those of what is inside of the wrappers' copies.
    with preserved(subject.model, "eval", subject.seed, x.device), torch.no_grad():
        for part in torch.split(x, subject.batch_size):
            told = module(part)
            if not isinstance(told, dict) or any(getattr(v, "shape", None) != (len(part),) for v in told.values()):
                raise UserError(
                    "a network's uncertainty(x) must return a dict of tensors with one number for each input"
                )
            for name, value in told.items():
                found.setdefault(name, []).append(value)
    return {name: torch.cat(parts) for name, parts in found.items()}


def _told_apart(name: str, inside: _Answers, outside: _Answers) -> dict[str, Any]:
    """Areas under the ROC by score, and the means of the strange inputs."""
    areas = {
        f"{score}_auroc": scores.auroc(inside.scores[score], outside.scores[score])
        for score in _SCORES
        if score in inside.scores
    }
    return {"name": name, "inputs": len(outside.logits), **areas, **outside.means()}


def _made(subject: Subject, name: str) -> Tensor:
    """As many strange inputs, made of the subject's or of nothing."""
    x, random = subject.x, Random(derive(subject.seed, "outside", name), subject.ids)
    low, high = x.amin(), x.amax()
    if name == "uniform":
        return low + (high - low) * random.uniform(x.shape[1:], x.dtype)
    if name == "inverted":
        return low + high - x
    places = x[0, 0].numel() if x.dim() > 2 else x[0].numel()
    order = random.uniform((places,)).argsort(1)
    rows = x.reshape(len(x), -1, places)  # all channels of an image in one order
    return rows.gather(2, order[:, None].expand_as(rows)).view_as(x)


def _loaded(subject: Subject, name: str) -> Tensor:
    known = datasets.names()
    if name not in known and ":" not in name:
        raise UserError(f"outside must name one of {', '.join(MADE)}, or a data set ({', '.join(known)}); got {name!r}")
    split = datasets.load(name, limit=len(subject.x), seed=subject.seed).test
    x = split.take(torch.arange(len(split)))[0]
    if x.shape[1:] != subject.x.shape[1:]:
        shapes = ("x".join(map(str, shape[1:])) for shape in (x.shape, subject.x.shape))
        raise UserError("inputs of {} have shape {}, the network's {}: name data of its shape".format(name, *shapes))
    return x.to(subject.x)


def _named(perturbation: Perturbation) -> str:
    """What tells noises of one kind apart, too: "gaussian (std 0.1)"."""
    settings = perturbation.settings().items()
    numbers = [f"{name} {v:g}" for name, v in settings if isinstance(v, int | float) and not isinstance(v, bool)]
    known = describe(perturbation)
    return known if perturbation.threat is not None or not numbers else f"{known} ({', '.join(numbers)})"


def _verdict(data: dict[str, Any]) -> str:
    clean = data["clean"]
    side = "over" if clean["confidence"] > 1 - clean["error"] else "under"
    text = (
        f"Confidence misses accuracy by {clean['ece']:.1%} (expected calibration error, {side}confident on the whole); "
        f"error {clean['error']:.1%}, negative log-likelihood {clean['nll']:.3g}"
    )
    if data["conditions"]:
        worst = max(data["conditions"], key=lambda row: float(row["ece"]))
        text += f"; at most by {worst['ece']:.1%}, under {worst['label']}"
    if data["outside"]:
        least = min(data["outside"], key=lambda row: float(row["confidence_auroc"]))
        text += (
            f"; of strange inputs, {least['name']} ones are told apart worst (AUROC {least['confidence_auroc']:.3f})"
        )
    return text + "."
