"""A network under noise as a classifier of its own: its answers by majority vote, and certificates for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.ambient_state import in_usual_state
from buttress.certificates.smoothing.binomial import lower_bound, majority_p_value
from buttress.certificates.smoothing.noise import NOISES, Noise
from buttress.engine.call_checks import check_fit, check_numbers
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.models import forward_checked
from buttress.random import Random, derive
from buttress.tasks import Task, check_task
from buttress.validation import integer, number, one_of, positive, switch, whole

ABSTAINED = -1  # in the place of a class
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Prediction:
    """What a smoothed classifier answers.

    Attributes:
        label: (N,) int64 the class, or `ABSTAINED`.
        majority: (N,) int64 the class with the most votes, the lowest of several; where it abstained, too.
        p_value: (N,) float64 of the two-sided binomial test that the first two classes are equally likely.
        votes: (N, C) int64 votes for each class, on the CPU.
    """

    label: Tensor
    majority: Tensor
    p_value: Tensor
    votes: Tensor


@dataclass(frozen=True)
class SmoothedCertificate:
    """Within which radius the smoothed classifier keeps its class, input by input.

    Each statement is about the smoothed classifier, not about the network inside, and holds with probability
    ``1 - alpha`` over the noise that was drawn for this input. With ``joint`` all of them hold together with that
    probability: each was made at level ``alpha / N`` (Bonferroni), so N of them need more votes for the same radius.

    Attributes:
        label: (N,) int64 the class, or `ABSTAINED`.
        radius: (N,) float64 in the noise's norm and in input units: the class does not change nearer than that. 0 where
            it abstained.
        p_lower: (N,) float64 lower bound of the class's probability under the noise.
        votes: (N, C) int64 of the second sample, on the CPU.
        norm: of the radius.
        sigma: standard deviation of the noise.
        n0: votes that chose the class.
        n: further votes that bounded its probability.
        alpha: chance that a statement is wrong (with ``joint`` that any is).
        joint: see above.
        seconds: of all.
    """

    label: Tensor
    radius: Tensor
    p_lower: Tensor
    votes: Tensor
    norm: str
    sigma: float
    n0: int
    n: int
    alpha: float
    joint: bool
    seconds: float

    @property
    def abstained(self) -> Tensor:
        """(N,) bool: for which inputs nothing is stated."""
        return self.label == ABSTAINED

    @property
    def probability(self) -> float:
        """With which each statement holds, or with ``joint`` all together."""
        return 1 - self.alpha

    def certified(self, y: Tensor, eps: float = 0.0) -> Tensor:
        """(N,) bool: the class is ``y`` (N,), here and for every perturbation of size ``eps``.

        The theorem is about sizes below the radius, so one equal to it does not count; the released evaluation counts
        it.
        """
        return (self.label == y.to(self.label)) & (self.radius > eps)


@dataclass(frozen=True)
class Smoothed:
    """The classifier that gives an input the class which a network is likeliest to answer under noise on it.

    Randomised smoothing (Cohen, Rosenfeld and Kolter, ICML 2019): for any network that tells classes apart, without a
    look inside. Normal noise certifies in l2; uniform noise in l1 (Yang et al., ICML 2020). Noisy
    inputs are not clipped to the range of the inputs; a network that clips them itself is certified as it is. One that
    was not trained under noise is often wrong under it: train by the defence ``smoothed`` with the same ``sigma``.

    A vote is drawn from the seed, the input's id and its own number alone, so results are the same for other batch
    sizes, orders and numbers of processes, up to ties that rounding decides; memory is that of one batch. Inputs that
    were not reached when a call was stopped can be given to another one, with their ids.

    Args:
        model: the network; it is called in eval mode and comes back as it was. An output of NaN votes for no class.
        sigma: standard deviation of the noise, in units of the inputs.
        norm: in which radii are: "l2" by normal, "l1" by uniform noise.
        n0: votes that choose the class to be certified.
        n: further votes that bound its probability. Cohen et al. take 100,000; what ``n`` can show at most is
            `ceiling`.
        alpha: chance that a statement about an input is wrong.
        joint: make all statements of a call hold together with probability 1 - alpha, by level alpha / N for each.
        seed: of all noise.
        batch_size: noisy inputs computed at once.
        task: what the output is for; one with classes.

    Raises:
        UserError: for settings that mean nothing, and for a task without classes.
    """

    needs_classes: ClassVar[bool] = True
    without_classes: ClassVar[str] = "an attack, since smoothing takes votes for classes"

    model: nn.Module
    sigma: float = field(kw_only=True)
    norm: str = field(default="l2", kw_only=True)
    n0: int = field(default=100, kw_only=True)
    n: int = field(default=10_000, kw_only=True)
    alpha: float = field(default=0.001, kw_only=True)
    joint: bool = field(default=False, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    batch_size: int = field(default=1000, kw_only=True)
    task: Task = field(default=tasks.classification, kw_only=True)

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        if not isinstance(self.model, nn.Module):
            raise UserError(f"model must be a torch module; got {type(self.model).__name__}")
        positive("sigma", self.sigma)
        one_of("norm", self.norm, NOISES)
        for name in ("n0", "n", "batch_size"):
            whole(name, getattr(self, name))
        number("alpha", self.alpha, "(0, 1)")
        switch("joint", self.joint)
        integer("seed", self.seed)
        check_task(self, self.task)

    def label(self) -> str:
        """How errors call it."""
        return "smoothing"

    @property
    def noise(self) -> Noise:
        """The distribution."""
        return NOISES[self.norm]

    def ceiling(self, inputs: int = 1) -> float:
        """The largest radius that ``n`` votes can show in a call of so many inputs: where all are for one class."""
        return self.noise.ceiling(self.n, self._level(inputs), self.sigma)

    @in_usual_state
    def predict(self, x: Tensor, *, ids: Tensor | None = None, progress: Progress | None = None) -> Prediction:
        """The majority of ``n`` votes, unless the second class may be as likely (PREDICT of Cohen et al.).

        It abstains where the two-sided binomial test of the first two classes' votes has a p value above ``alpha``;
        else it is not the likeliest class with probability ``alpha`` at most.

        Args:
            x: (N, ...) inputs, on the network's device.
            ids: (N,) integers that say which inputs these are; 0 to N - 1 unless given.
            progress: called with the share of the votes that is in.
        """
        votes = self._votes(x, ids, "prediction", self.n, progress or _nobody)
        top = votes.topk(2, dim=1)
        p_values = [majority_p_value(first, second) for first, second in top.values.tolist()]
        p_value = torch.tensor(p_values, dtype=torch.float64)
        majority = votes.argmax(1)
        label = majority.where(p_value <= self._level(len(x)), ABSTAINED)
        return Prediction(label.to(x.device), majority.to(x.device), p_value.to(x.device), votes)

    @in_usual_state
    def certify(self, x: Tensor, *, ids: Tensor | None = None, progress: Progress | None = None) -> SmoothedCertificate:
        """The class of ``n0`` votes, and the radius that ``n`` others show for it (CERTIFY of Cohen et al.).

        The second sample is independent of the first, so that its bound is not that of the luckiest class. It
        abstains where the lower bound of the class's probability is below 1/2.

        Args:
            x: (N, ...) inputs, on the network's device.
            ids: (N,) integers that say which inputs these are; 0 to N - 1 unless given.
            progress: called with the share of the votes that is in.
        """
        start, tell = time.perf_counter(), progress or _nobody
        chosen = self.n0 / (self.n0 + self.n)
        first = self._votes(x, ids, "selection", self.n0, lambda done: tell(chosen * done))
        votes = self._votes(x, ids, "estimation", self.n, lambda done: tell(chosen + (1 - chosen) * done))
        label = first.argmax(1)
        counts, level = votes.gather(1, label[:, None]).squeeze(1), self._level(len(x))
        p_lower = torch.tensor([lower_bound(count, self.n, level) for count in counts.tolist()], dtype=torch.float64)
        shown = p_lower >= 0.5
        radii = [self.noise.radius(p, self.sigma) if p >= 0.5 else 0.0 for p in p_lower.tolist()]
        return SmoothedCertificate(
            label=label.where(shown, ABSTAINED).to(x.device),
            radius=torch.tensor(radii, dtype=torch.float64).to(x.device),
            p_lower=p_lower.to(x.device),
            votes=votes,
            norm=self.norm,
            sigma=self.sigma,
            n0=self.n0,
            n=self.n,
            alpha=self.alpha,
            joint=self.joint,
            seconds=time.perf_counter() - start,
        )

    def _level(self, inputs: int) -> float:
        return self.alpha / max(1, inputs) if self.joint else self.alpha

    def _votes(self, x: Tensor, ids: Tensor | None, purpose: str, n: int, tell: Progress) -> Tensor:
        """(N, C) int64 how many of ``n`` draws each class gets; few draws of several inputs share a batch."""
        check_numbers(x)
        check_fit(self.model, x)
        names = list(range(len(x))) if ids is None else ids.tolist()
        if len(names) != len(x):
            raise UserError(f"{len(x)} inputs need as many ids, (N,) integers; got {len(names)}")
        if not len(x):
            return torch.zeros(0, 2, dtype=torch.int64)
        together, parts = max(1, self.batch_size // n), []
        with preserved(self.model, "eval", self.seed, x.device, x.dtype), torch.no_grad():
            for first in range(0, len(x), together):
                rows = slice(first, first + together)
                seeds = [derive(self.seed, "smoothing", purpose, name) for name in names[rows]]
                counted = []
                for start in range(0, n, self.batch_size):
                    draws = torch.arange(start, min(start + self.batch_size, n), device=x.device)
                    counted.append(self._batch(x[rows], seeds, draws))
                    tell(min(1.0, (first + len(seeds) * int(draws[-1] + 1) / n) / len(x)))
                parts.append(torch.stack(counted).sum(0).cpu())
        return torch.cat(parts)

    def _batch(self, x: Tensor, seeds: list[int], draws: Tensor) -> Tensor:
        """(N, C) votes of these draws of each input."""
        noise = [self.noise.draw(Random(seed, draws), self.sigma, x.shape[1:], x.dtype) for seed in seeds]
        noisy = x.repeat_interleave(len(draws), 0).add_(torch.cat(noise))
        output = self.task.read(forward_checked(self.model, noisy))
        inputs = torch.arange(len(x), device=x.device).repeat_interleave(len(draws))
        places = (inputs * output.shape[1] + self.task.decision(output))[~output.isnan().any(1)]
        return torch.bincount(places, minlength=len(x) * output.shape[1]).view(len(x), -1)


def _nobody(done: float) -> None:
    """Nobody asked for progress."""
