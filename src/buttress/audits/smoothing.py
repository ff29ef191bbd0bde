"""Randomised smoothing: what the network under noise can be certified for, beside an attack on that."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks import SmoothAdv
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.statistics import INTERVAL, accuracy
from buttress.audits.base.subject import Subject
from buttress.audits.base.without_gradients import has_gradient
from buttress.audits.base.work import Work, asked
from buttress.certificates.smoothing import ABSTAINED, Smoothed, SmoothedCertificate
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.registry import audit
from buttress.threat import Threat
from buttress.validation import not_negative, whole

_LISTED = 12  # radii, at most, unless they are given


@audit("smoothing")
@dataclass(frozen=True, kw_only=True)
class Smoothing(Audit):
    """Certified accuracy over l2 radii of the network smoothed by normal noise (Cohen et al., ICML 2019).

    What is certified is the smoothed network: the majority of the network's answers under noise. It says nothing of
    the network without noise, and attacks on that one say nothing of it. So the attack beside it is one on the smoothed
    network (`SmoothAdv`; Salman et al., NeurIPS 2019), judged by the majority of votes: the true accuracy is below its
    own, up to the chance in these votes, and above the certified one. Each certificate holds with probability
    1 - alpha over the noise that was drawn for it, so of N about alpha N may be wrong; with ``joint`` all hold together
    with that probability.

    ``n`` votes show at most a radius of sigma Phi^-1(alpha^(1/n)), where the curve ends whatever the network. Noise is
    not clipped to the range of the inputs. Cost per input and sigma: ``n0 + n`` forwards, and for each radius that is
    attacked ``steps`` times ``samples`` forwards and backwards and ``n0`` forwards.

    Args:
        sigma: standard deviations of the noise, in units of the inputs.
        n0: votes that choose the class to be certified, and that judge an attacked input.
        n: further votes that bound the class's probability.
        alpha: chance that a certificate is wrong.
        joint: make all certificates of one sigma hold together, at level alpha / N each (Bonferroni).
        radii: where accuracies are listed; multiples of the smallest sigma unless given. 0 is added.
        steps: of PGD on the smoothed network, in l2 with each listed radius as its budget; 0 for no attack.
        samples: noisy copies whose mean probability the attack climbs.
        inputs: that are certified, spread evenly over the data.
        box: the range of the inputs, to which the attack keeps; a certificate holds beyond it, too.
    """

    topic: ClassVar[Topic] = "How robust it is"

    sigma: Sequence[float] = (0.25, 0.5)
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    joint: bool = False
    radii: Sequence[float] | None = None
    steps: int = 10
    samples: int = 4
    inputs: int = 100
    box: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        for setting in ("sigma", "radii"):
            values = getattr(self, setting)
            if values is not None and not (isinstance(values, Sequence) and values):
                raise UserError(f"{setting} must be a list of numbers; got {values!r}")
        for value in self.radii or ():
            not_negative("radii", value)
        whole("steps", self.steps, 0)
        whole("samples", self.samples)
        whole("inputs", self.inputs)
        for sigma in self.sigma:
            self._smoothed(torch.nn.Identity(), sigma)

    def work(self, subject: Subject) -> Work:
        """The votes of each sigma; and of each radius that is attacked the attack, and the votes that judge it."""
        count = min(self.inputs, len(subject.y))
        radii = {sigma: self._attacked_radii(sigma, count) for sigma in set(self.sigma)}
        attacks = [self._attack(sigma, radius) for sigma in radii for radius in radii[sigma]]
        votes = self.n0 + self.n
        own = PassCount((1 + len(radii) * votes + len(attacks) * self.n0) * count)
        return Work(asked(attacks, count), own)

    def ask(self, subject: Subject) -> Finding:
        """Take the votes, and attack what they decide."""
        part = subject.subset(self.inputs)
        clean = accuracy(part.logits.argmax(1) == part.y)
        attackable = self.steps > 0 and has_gradient(part.model, part.x, part.task)
        rows = [self._at(part, sigma, attackable) for sigma in sorted(set(self.sigma))]
        data = {
            "inputs": len(part.y),
            "seed": part.seed,
            "chance": part.chance,
            "interval": INTERVAL,
            "norm": "l2",
            "n0": self.n0,
            "n": self.n,
            "alpha": self.alpha,
            "joint": self.joint,
            "clean": clean,
            "attack": f"PGD-{self.steps} on the smoothed network" if attackable else None,
            "sigmas": rows,
            "best": self._best(rows),
        }
        return Finding("smoothing", "Randomised smoothing (l2)", _verdict(data), _severity(data), data)

    @property
    def listed(self) -> list[float]:
        """The radii of the tables, rising, from 0 on."""
        if self.radii is not None:
            return sorted({0.0, *self.radii})
        step, end = min(self.sigma), self._end(max(self.sigma), 1)
        step *= max(1, math.ceil(end / step / _LISTED))
        return [number * step for number in range(int(end / step) + 1)]

    def _end(self, sigma: float, inputs: int) -> float:
        """The largest radius that can be shown."""
        return self._smoothed(torch.nn.Identity(), sigma).ceiling(inputs)

    def _smoothed(self, model: torch.nn.Module, sigma: float, **settings: Any) -> Smoothed:
        given: dict[str, Any] = {"n0": self.n0, "n": self.n, "alpha": self.alpha, "joint": self.joint}
        return Smoothed(model, sigma=sigma, **given | settings)

    def _at(self, subject: Subject, sigma: float, attackable: bool) -> dict[str, Any]:
        """What the table says of one sigma."""
        settings = {"seed": subject.seed, "batch_size": subject.batch_size, "task": subject.task}
        watch, name = subject.watch, f"votes at sigma {sigma:g}"
        tell = None if watch is None else lambda done: watch(name, done)
        smooth = self._smoothed(subject.model, sigma, **settings)
        certificate = smooth.certify(subject.x, ids=subject.ids, progress=tell)
        right, y = certificate.certified(subject.y), subject.y
        own = certificate.votes.gather(1, y.cpu().long()[:, None]).squeeze(1)
        row = {
            "sigma": sigma,
            "ceiling": smooth.ceiling(len(y)),
            "certified": [{"radius": r, **accuracy(certificate.certified(y, r))} for r in self.listed],
            "radii": certificate.radius[right].sort().values.tolist(),
            "abstained": float(certificate.abstained.double().mean()),
            "noisy_accuracy": float(own.double().mean()) / self.n,
            "mean_radius": float(torch.where(right, certificate.radius, 0.0).mean()),
            "seconds": certificate.seconds,
            "rows": _rows(subject.ids, certificate, right),
        }
        return {**row, **(self._attacked(subject, replace(smooth, n=self.n0), certificate) if attackable else {})}

    def _attacked(self, subject: Subject, judge: Smoothed, certificate: SmoothedCertificate) -> dict[str, Any]:
        """Accuracy of the smoothed network under attack; what is certified is not beaten by a few votes either way."""
        start, y = time.perf_counter(), subject.y
        subject = replace(subject, batch_size=max(1, subject.batch_size // self.samples))  # whose copies are held
        rows = []
        contradicted = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        for radius in self._attacked_radii(certificate.sigma, len(y)):
            attack = self._attack(certificate.sigma, radius)
            answers = judge.predict(subject.attacked(attack).outcome.x_adv, ids=subject.ids)
            certified = certificate.certified(y, radius)
            other = certified & (answers.label != y) & (answers.label != ABSTAINED)
            rows.append({"eps": radius, **accuracy((answers.majority == y) | (certified & ~other))})
            contradicted |= other
        return {
            "attacked": rows,
            "contradicted": int(contradicted.sum()),
            "attack_seconds": time.perf_counter() - start,
        }

    def _attacked_radii(self, sigma: float, inputs: int) -> list[float]:
        """The listed radii that can be shown; none where nothing is attacked."""
        return [radius for radius in self.listed if 0 < radius <= self._end(sigma, inputs)] if self.steps else []

    def _attack(self, sigma: float, radius: float) -> SmoothAdv:
        inner = PGD(threat=Threat(norm="l2", eps=radius, box=self.box), steps=self.steps)
        return SmoothAdv(attack=inner, sigma=sigma, samples=self.samples)

    def _best(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """At each listed radius the figures of the sigma that certifies most; the smallest of several."""
        best = []
        for place in range(len(self.listed)):
            row = max(rows, key=lambda one: float(one["certified"][place]["accuracy"]))
            best.append({**row["certified"][place], "sigma": row["sigma"]})
        return best


def _rows(ids: Tensor, certificate: SmoothedCertificate, right: Tensor) -> list[dict[str, Any]]:
    """Input by input; a class of -1 where it abstained."""
    values = (ids.tolist(), certificate.label.tolist(), certificate.radius.tolist(), right.tolist())
    return [dict(zip(("id", "label", "radius", "right"), row, strict=True)) for row in zip(*values, strict=True)]


def _untrained(data: dict[str, Any]) -> bool:
    """Whether even the best sigma certifies less than half of what the network itself gets right."""
    return bool(data["best"][0]["high"] < data["clean"]["accuracy"] / 2)


def _severity(data: dict[str, Any]) -> Severity:
    contradicted = any(row.get("contradicted") for row in data["sigmas"])
    return "warning" if contradicted or _untrained(data) else "info"


def _verdict(data: dict[str, Any]) -> str:
    row = max(data["sigmas"], key=lambda one: float(one["mean_radius"]))
    first = row["certified"][0]
    text = (
        f"Smoothed by normal noise of sigma {row['sigma']:g}, {first['accuracy']:.1%} of {data['inputs']} inputs are "
        f"certified in the right class (the network without noise is right on {data['clean']['accuracy']:.1%})"
    )
    farther = min(row["certified"][1:], key=lambda one: abs(float(one["radius"]) - row["sigma"]), default=None)
    if farther is not None:
        text += f", {farther['accuracy']:.1%} within an l2 radius of {farther['radius']:g}"
        attacked = [one for one in row.get("attacked", []) if one["eps"] == farther["radius"]]
        text += "".join(f", where {data['attack']} leaves {one['accuracy']:.1%}" for one in attacked)
    text += f"; it abstains on {row['abstained']:.1%}."
    if _untrained(data):
        text += " The network has not learnt to answer under noise: train it by --defence smoothed."
    if beaten := sum(one.get("contradicted", 0) for one in data["sigmas"]):
        expected = data["alpha"] * (1 if data["joint"] else data["inputs"]) * len(data["sigmas"])
        text += f" {beaten} certificates are contradicted by the attack; alpha allows about {expected:.2g}."
    return text
