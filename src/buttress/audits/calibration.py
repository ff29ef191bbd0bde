"""Calibration: how confidence fits accuracy, and how well confidence detects out-of-distribution inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from buttress import data as datasets
from buttress.attacks import Attack, Perturbation
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base import probability_scores as scores
from buttress.audits.base.audit import TAKES_ATTACKS, Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.statistics import INTERVAL, accuracy, bootstrap
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.defences.base.step_context import rescaled
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.models.wrapping.wrappers import optional_method
from buttress.random import Random, derive
from buttress.registry import audit
from buttress.tasks import Classification
from buttress.validation import name_list, number, share, whole

SYNTHETIC = ("uniform", "inverted", "shuffled")
_SCORES = ("confidence", "entropy", "mutual_information")


@audit("calibration")
@dataclass(frozen=True, kw_only=True)
class Calibration(Audit):
    """Whether confidence fits accuracy: on inputs as they are, under noise and attack, and on inputs of another kind.

    Reported are error, negative log-likelihood, Brier score (over all classes, from 0 to 2), expected calibration error
    (bins of equal width; Guo et al., ICML 2017), mean confidence and mean predictive entropy. Inputs from outside
    the distribution have no class; what counts is the area under the ROC when they are detected by low confidence
    (Hendrycks and Gimpel, ICLR 2017), or by high entropy. Of a network that offers ``uncertainty(x) -> dict`` of (N,)
    figures these are reported, too; its ``mutual_information`` is a third score.

    What a calibration error is worth depends on the inputs: with N of them in B bins, that of a network that is
    perfectly calibrated comes out at up to about 0.4 sqrt(B / N).

    Cost per input: the attack at each budget, and a forward for each condition and each kind from outside; twice that
    where the network offers ``uncertainty``.

    Args:
        perturbations: conditions besides the attack, run as they are; they may be none.
        attack: run at each of ``shares`` of its budget; None for none. Let it run to the end: one that stops at the
            first success finds less confident errors.
        shares: of the budget.
        bins: of confidence.
        outside: out-of-distribution inputs: "uniform" noise in the inputs' range, "inverted" ones, "shuffled" ones (the
            positions in an order of its own for each), or names of data sets of the inputs' shape, of whose test split
            as many are taken as there are inputs.
        tolerated: calibration error from which on the verdict is a warning.
    """

    topic: ClassVar[Topic] = "How sure it is of itself"

    perturbations: Annotated[Sequence[Perturbation], TAKES_ATTACKS] = (Gaussian(std=0.1), Gaussian(std=0.3))
    attack: Attack | None = PGD(steps=20)
    shares: Sequence[float] = (0.25, 0.5, 1.0)
    bins: int = 15
    outside: Sequence[str] = SYNTHETIC
    tolerated: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("bins", self.bins)
        for budget in self.shares:
            number("shares", budget, "(0, 1]")
        name_list("outside", self.outside)
        share("tolerated", self.tolerated)

    def work(self, subject: Subject) -> Work:
        """Each condition, and a pass, or two of a network that tells its uncertainty, of each kind of inputs."""
        count, conditions = len(subject.y), [condition for condition, _, _ in self._conditions()]
        passes = 2 if optional_method(subject.model, "uncertainty") is not None else 1
        kinds = 1 + len(conditions) + len(self.outside)
        return Work(asked(conditions, count), PassCount(passes * kinds * count))

    def ask(self, subject: Subject) -> Finding:
        """Read the probabilities under each condition, and for out-of-distribution inputs.

        Raises:
            UserError: for networks that do not classify, and data sets of another shape or an unknown name.
        """
        if not isinstance(subject.task, Classification):
            raise UserError("an audit of calibration needs a network that classifies")
        clean = _Predictions(subject, subject.x, subject.logits)
        conditions = [self._condition(subject, *condition) for condition in self._conditions()]
        data: dict[str, Any] = {
            "inputs": len(subject.y),
            "chance": subject.chance,
            "seed": subject.seed,
            "bins": self.bins,
            "interval": f"{INTERVAL}; of the likelihood by bootstrap over inputs, 95 %",
            "clean": self._figures(clean, subject),
            "reliability": self._table(clean.logits, subject.y),
            "conditions": conditions,
            "outside": [_detection(name, clean, self._outside(subject, name)) for name in self.outside],
        }
        severity: Severity = "warning" if data["clean"]["ece"] >= self.tolerated else "info"
        return Finding("calibration", "Calibration", _verdict(data), severity, data)

    def _conditions(self) -> list[tuple[Perturbation, str, float | None]]:
        """Perturbations with their labels, and the budget of the attack."""
        conditions: list[tuple[Perturbation, str, float | None]] = [(p, _label(p), None) for p in self.perturbations]
        if self.attack is not None:
            for share in sorted(set(self.shares)):
                eps = share * self.attack.threat.eps
                name = f"{self.attack.label()} at {self.attack.threat.text(eps)}"
                conditions.append((rescaled(self.attack, share), name, eps))
        return conditions

    def _condition(self, subject: Subject, perturbation: Perturbation, name: str, eps: float | None) -> dict[str, Any]:
        x = subject.attacked(perturbation).outcome.x_adv
        predictions = _Predictions(subject, x, subject.output(x))
        figures = self._figures(predictions, subject)
        return {"label": name, "kind": "noise" if eps is None else "attack", "eps": eps, **figures}

    def _figures(self, predictions: _Predictions, subject: Subject) -> dict[str, Any]:
        correct = predictions.logits.argmax(1) == subject.y
        likelihood = scores.negative_log_likelihood(predictions.logits, subject.y).cpu()
        low, high = bootstrap(len(correct), lambda index: likelihood[index].mean(1), subject.seed)
        share = accuracy(~correct)
        return {
            **predictions.means(),
            "error": share["accuracy"],
            "error_low": share["low"],
            "error_high": share["high"],
            "nll": float(likelihood.mean()),
            "nll_low": low,
            "nll_high": high,
            "brier": scores.brier(predictions.logits, subject.y),
            "ece": scores.calibration_error(self._table(predictions.logits, subject.y)),
        }

    def _table(self, logits: Tensor, y: Tensor) -> list[dict[str, Any]]:
        confidence, prediction = logits.double().softmax(1).max(1)
        return scores.reliability(confidence, prediction == y, self.bins)

    def _outside(self, subject: Subject, name: str) -> _Predictions:
        x = _synthetic(subject, name) if name in SYNTHETIC else _dataset_inputs(subject, name)
        return _Predictions(subject, x, subject.output(x))


class _Predictions:
    """A network's predictions: (N, C) logits, and (N,) scores by name, higher where it is less certain."""

    def __init__(self, subject: Subject, x: Tensor, logits: Tensor) -> None:
        self.logits = logits
        confidence = logits.double().softmax(1).max(1).values
        self.scores = {"entropy": scores.entropy(logits), **_uncertainty(subject, x), "confidence": -confidence}

    def means(self) -> dict[str, float]:
        """Over the inputs."""
        means = {name: float(value.double().mean()) for name, value in self.scores.items()}
        return {**means, "confidence": -means["confidence"]}


def _uncertainty(subject: Subject, x: Tensor) -> dict[str, Tensor]:
    """What the network itself reports of its uncertainty; nothing for most networks."""
    module = optional_method(subject.model, "uncertainty")
    if module is None:
        return {}
    by_name: dict[str, list[Tensor]] = {}
    # The network itself is preserved: its flags are those of what is inside of the wrappers' copies.
    with preserved(subject.model, "eval", subject.seed, x.device), torch.no_grad():
        for part in torch.split(x, subject.batch_size):
            values = call_model(module, part)
            if not isinstance(values, dict) or any(getattr(v, "shape", None) != (len(part),) for v in values.values()):
                raise UserError(
                    "a network's uncertainty(x) must return a dict of tensors with one number for each input"
                )
            for name, value in values.items():
                by_name.setdefault(name, []).append(value)
    return {name: torch.cat(parts) for name, parts in by_name.items()}


def _detection(name: str, inside: _Predictions, outside: _Predictions) -> dict[str, Any]:
    """Areas under the ROC by score, and the means over the inputs from outside."""
    areas = {
        f"{score}_auroc": scores.auroc(inside.scores[score], outside.scores[score])
        for score in _SCORES
        if score in inside.scores
    }
    return {"name": name, "inputs": len(outside.logits), **areas, **outside.means()}


def _synthetic(subject: Subject, name: str) -> Tensor:
    """As many synthetic inputs, made from the subject's or from noise."""
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


def _dataset_inputs(subject: Subject, name: str) -> Tensor:
    names = datasets.names()
    if name not in names and ":" not in name:
        raise UserError(
            f"outside must name one of {', '.join(SYNTHETIC)}, or a data set ({', '.join(names)}); got {name!r}"
        )
    split = datasets.load(name, limit=len(subject.x), seed=subject.seed).test
    x = split.take(torch.arange(len(split)))[0]
    if x.shape[1:] != subject.x.shape[1:]:
        shapes = ("x".join(map(str, shape[1:])) for shape in (x.shape, subject.x.shape))
        raise UserError("inputs of {} have shape {}, the network's {}: name data of its shape".format(name, *shapes))
    return x.to(subject.x)


def _label(perturbation: Perturbation) -> str:
    """A label that distinguishes noises of one kind, too: "gaussian (std 0.1)"."""
    settings = perturbation.settings().items()
    numbers = [f"{name} {v:g}" for name, v in settings if isinstance(v, int | float) and not isinstance(v, bool)]
    label = perturbation.label()
    return label if perturbation.threat is not None or not numbers else f"{label} ({', '.join(numbers)})"


def _verdict(data: dict[str, Any]) -> str:
    clean = data["clean"]
    side = "over" if clean["confidence"] > 1 - clean["error"] else "under"
    text = (
        f"The expected calibration error is {clean['ece']:.1%} ({side}confident on the whole); "
        f"error {clean['error']:.1%}, negative log-likelihood {clean['nll']:.3g}"
    )
    if data["conditions"]:
        worst = max(data["conditions"], key=lambda row: float(row["ece"]))
        text += f"; the calibration error is at most {worst['ece']:.1%}, under {worst['label']}"
    if data["outside"]:
        hardest = min(data["outside"], key=lambda row: float(row["confidence_auroc"]))
        text += (
            f"; of other inputs, {hardest['name']} ones are detected worst (AUROC {hardest['confidence_auroc']:.3f})"
        )
    return text + "."
