"""The end time at which a latent-time network does best, and the posterior of that time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.statistics import bootstrap
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.select import user_module
from buttress.model_call import call_model
from buttress.models.wrapping.wrappers import optional_method
from buttress.registry import audit
from buttress.validation import positive

_GRID = tuple(k / 10 for k in range(1, 41))


@audit("end-time")
@dataclass(frozen=True, kw_only=True)
class EndTime(Audit):
    """Loss and accuracy of a latent-time network when its end time is fixed, beside the posterior of that time.

    The posterior selects a depth as one selects a model: its mean should lie where the loss on held-out inputs is
    small. The weights are the same at all end times, those that the posterior was learned with; networks that are
    trained with each end time of their own would be another comparison. Where inputs have posteriors of their own, the
    density is their mixture.

    For networks with a method ``over_time(x, times)``, such as lt-node and alt-node. Cost per input: one solve to the
    last time.

    Args:
        times: end times above 0, in the equation's unit.
    """

    topic: ClassVar[Topic] = "What happens inside"

    times: Sequence[float] = _GRID

    def __post_init__(self) -> None:
        """Refuse times that are none."""
        if not self.times:
            raise UserError("times must be finite numbers above 0, one at least; got none")
        for time in self.times:
            positive("times", time)

    def check(self, subject: Subject) -> None:
        """Refuse a network that has no end times."""
        self._reader(subject)

    def work(self, subject: Subject) -> Work:
        """A solve to the last time, as a pass for each unit of time."""
        return Work(passes=PassCount((1 + math.ceil(max(self.times))) * len(subject.y)))

    def ask(self, subject: Subject) -> Finding:
        """Read the network at each end time."""
        times, module = sorted(set(self.times)), self._reader(subject)
        likelihoods, correct, density, means = [], [], [], []
        with preserved(subject.model, "eval", subject.seed, subject.x.device), torch.no_grad():
            parts = (torch.split(values, subject.batch_size) for values in (subject.x, subject.y))
            for x, y in zip(*parts, strict=True):
                outputs = call_model(module, x)
                logs = outputs["log_probabilities"]
                likelihoods.append(-logs.double().gather(2, y.long().expand(len(times), -1)[:, :, None]).squeeze(2))
                correct.append(logs.argmax(2) == y)
                density.append(outputs["density"].double())
                means.append(outputs["mean"].double())
        data = _figures(times, *(torch.cat(parts, -1).cpu() for parts in (likelihoods, correct, density, means)))
        low, high = _best_interval(torch.cat(likelihoods, -1).cpu(), times, subject.seed)
        data |= {"inputs": len(subject.y), "best_low": low, "best_high": high}
        return Finding("end-time", "End time", _verdict(data), "info", data)

    def _reader(self, subject: Subject) -> nn.Module:
        times = torch.tensor(sorted(set(self.times)), dtype=torch.float64)
        module = optional_method(subject.model, "over_time", times)
        if module is None:
            raise UserError(
                f"{type(user_module(subject.model)).__name__} has no latent end time: choose a network with "
                "over_time(x, times), such as lt-node"
            )
        return module


def _figures(
    times: list[float], likelihoods: Tensor, correct: Tensor, density: Tensor, means: Tensor
) -> dict[str, Any]:
    """From (T, N) figures by time and input, and (N,) means of the posterior."""
    loss, accuracy = likelihoods.mean(1), correct.double().mean(1)
    best, mean = int(loss.argmin()), float(means.mean())
    nearest = min(range(len(times)), key=lambda k: abs(times[k] - mean))
    return {
        "times": times,
        "nll": loss.tolist(),
        "accuracy": accuracy.tolist(),
        "density": density.mean(1).tolist(),
        "mean": mean,
        "spread": float(means.std(unbiased=False)),
        "best": times[best],
        "best_nll": float(loss[best]),
        "nll_at_mean": float(loss[nearest]),
        "distance": abs(mean - times[best]),
    }


def _best_interval(likelihoods: Tensor, times: list[float], seed: int) -> tuple[float, float]:
    """The bootstrap interval of the end time with the least loss."""
    end_times = torch.tensor(times, dtype=torch.float64)

    def best(index: Tensor) -> Tensor:
        weights = torch.zeros(len(index), likelihoods.shape[1], dtype=torch.float64)
        weights.scatter_add_(1, index, torch.ones_like(index, dtype=torch.float64))
        return end_times[(weights @ likelihoods.T).argmin(1)]

    return bootstrap(likelihoods.shape[1], best, seed)


def _verdict(data: dict[str, Any]) -> str:
    return (
        f"The posterior's mean end time is {data['mean']:.3g}; with one end time for all, the same weights have their "
        f"least loss at {data['best']:.3g} ({data['best_low']:.3g} to {data['best_high']:.3g}): {data['best_nll']:.3g} "
        f"there, {data['nll_at_mean']:.3g} near the mean."
    )
