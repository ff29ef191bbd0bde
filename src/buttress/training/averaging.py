"""Averages of the weights over training: which weights are averaged, and what is done before the average is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.training.validation import Validation
from buttress.validation import number, share


@dataclass
class Mean:
    """An average of weights and buffers.

    Attributes:
        weights: by name; empty as long as nothing was averaged.
        count: how many weights have gone in.
    """

    weights: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    @torch.no_grad()
    def take(self, model: nn.Module, share: float) -> None:
        """Move by ``share`` towards the model's present weights and buffers; the first become the average as they are.

        What is no floating-point number, such as a counter, is copied.
        """
        for name, value in model.state_dict().items():
            if not self.count:
                self.weights[name] = value.detach().clone()
            elif not value.is_floating_point():
                self.weights[name].copy_(value)
            elif value.layout == torch.strided:
                self.weights[name].lerp_(value, share)
            else:
                self.weights[name] = self.weights[name] * (1 - share) + value.detach() * share
        self.count += 1

    def state(self) -> dict[str, Any]:
        """For a checkpoint: tensors and plain values."""
        return {"weights": self.weights, "count": self.count}

    def copy(self) -> dict[str, Any]:
        """`state`, of its own."""
        return {"weights": {name: value.clone() for name, value in self.weights.items()}, "count": self.count}

    def restore(self, state: dict[str, Any], device: torch.device) -> None:
        """Put back what `state` returned."""
        self.weights = {name: value.to(device, copy=True) for name, value in state["weights"].items()}
        self.count = state["count"]


class Average:
    """A policy of averaging. As long as its average is empty, the model's own weights are judged and kept.

    Attributes:
        needs_classes: whether it looks at classes; see `buttress.tasks.check_task`.
        without_classes: what to use for a task that has none.
        recalibrates: whether BatchNorm's statistics are estimated anew for the average, which costs a forward pass over
            the training data after each epoch that went in.
    """

    recalibrates: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    without_classes: ClassVar[str] = "ema or swa"

    def label(self) -> str:
        """Its name."""
        return type(self).__name__

    def begin(self, mean: Mean, model: nn.Module) -> None:
        """Before the first step."""

    def after_step(self, mean: Mean, model: nn.Module) -> None:
        """After each update of the weights."""

    def after_epoch(
        self, mean: Mean, model: nn.Module, done: float, judge: Callable[[], Validation], figures: dict[str, float]
    ) -> None:
        """After each epoch.

        Args:
            mean: the average so far.
            model: with the weights of the epoch's last step.
            done: share of the training that is done.
            judge: accuracy of these weights on the validation split; costs a validation.
            figures: the epoch's row of the history; what is added to it is logged.
        """


def _check(decay: float, start: float) -> None:
    number("the moving average's decay", decay, "(0, 1)")
    share("the average's start", start)


@dataclass(frozen=True, kw_only=True)
class EMA(Average):
    """Exponential moving average of weights and buffers over all steps, from the initial weights on.

    Args:
        decay: share of the old average that each step keeps, in (0, 1).
    """

    decay: float = 0.999
    recalibrates = False  # BatchNorm's buffers are averaged, too

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        _check(self.decay, 0.0)

    def begin(self, mean: Mean, model: nn.Module) -> None:
        """The initial weights."""
        mean.take(model, 1.0)

    def after_step(self, mean: Mean, model: nn.Module) -> None:
        """Move towards the present weights."""
        mean.take(model, 1 - self.decay)


@dataclass(frozen=True, kw_only=True)
class SWA(Average):
    """Stochastic weight averaging: the equal mean of the weights at the ends of epochs (Izmailov et al., UAI 2018).

    BatchNorm's statistics are estimated anew on the training inputs, unperturbed.

    Args:
        start: share of the training from which on ends of epochs go in, in [0, 1]; at 0.5 of 10 epochs the first is
            the end of the fifth.
    """

    start: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        _check(0.5, self.start)

    def after_epoch(
        self, mean: Mean, model: nn.Module, done: float, judge: Callable[[], Validation], figures: dict[str, float]
    ) -> None:
        """Once started, take the present weights in."""
        if done >= self.start:
            mean.take(model, 1 / (mean.count + 1))


@dataclass(frozen=True, kw_only=True)
class FAWA(Average):
    """Fairness-aware weight averaging (Wei et al., "CFA", CVPR 2023, arXiv 2303.14460).

    A moving average over the ends of epochs that leaves out those whose worst class is poor on the validation split:
    robust accuracy by class, or clean accuracy where nothing attacks. It costs a second validation per epoch.
    BatchNorm's statistics are estimated anew on the training inputs, unperturbed. The history has ``worst_class``,
    that of the epoch's own weights, and ``accepted``. A small validation split makes a class's accuracy coarse.

    Args:
        decay: share of the old average that an accepted epoch keeps, in (0, 1); 0.85 in the paper, 0.88 in its code.
        start: share of the training from which on epochs are considered, in [0, 1]; the paper starts at epoch 50 of
            200.
        threshold: least accuracy of the worst class, in [0, 1].
    """

    needs_classes = True

    decay: float = 0.85
    start: float = 0.25
    threshold: float = 0.2

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        _check(self.decay, self.start)
        share("the threshold of the worst class", self.threshold)

    def after_epoch(
        self, mean: Mean, model: nn.Module, done: float, judge: Callable[[], Validation], figures: dict[str, float]
    ) -> None:
        """Once started, take the present weights in if their worst class is good enough."""
        if done < self.start:
            return
        worst = judge().worst
        accepted = worst >= self.threshold
        figures |= {"worst_class": worst, "accepted": float(accepted)}
        if accepted:
            mean.take(model, 1 - self.decay)


def average_of(average: float | Average | None) -> Average | None:
    """A policy from what a user gave: a number is the decay of an `EMA`.

    Raises:
        UserError: for a decay outside of (0, 1), and for what is no average.
    """
    if average is None or isinstance(average, Average):
        return average
    if isinstance(average, bool) or not isinstance(average, int | float):
        raise UserError(f"average must be a decay in (0, 1), EMA, SWA, FAWA or none; got {average!r}")
    return EMA(decay=average)


@torch.no_grad()
def estimate_statistics(model: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Estimate BatchNorm's running statistics anew as plain means over batches; all else is left as it was.

    Other layers are in eval mode meanwhile, so that dropout draws nothing. Without BatchNorm nothing is run.

    Args:
        model: changed in its BatchNorm buffers only.
        inputs: batches of inputs.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    flags = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    try:
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for a plain mean
        for x in inputs:
            call_model(model, x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, flag in flags:
            module.training = flag


class Averaging:
    """A model and the average of its weights, as the trainer uses them.

    Args:
        policy: which weights go in; with None there is no average.
        model: whose weights.

    Attributes:
        mean: the average so far.
    """

    def __init__(self, policy: Average | None, model: nn.Module) -> None:
        self.policy, self.model, self.mean = policy, model, Mean()
        if policy is not None:
            policy.begin(self.mean, model)

    def weights(self) -> dict[str, Tensor]:
        """The average, or the model's present weights as long as there is none; copies."""
        state = self.mean.weights if self.mean.count else self.model.state_dict()
        return {name: value.detach().clone() for name, value in state.items()}

    def after_step(self) -> None:
        """After each update of the weights."""
        if self.policy is not None:
            self.policy.after_step(self.mean, self.model)

    def after_epoch(
        self, done: float, judge: Callable[[], Validation], inputs: Iterable[Tensor], figures: dict[str, float]
    ) -> None:
        """After each epoch.

        Args:
            done: share of the training that is done.
            judge: accuracy of the model's present weights on the validation split.
            inputs: batches of training inputs, for BatchNorm's statistics; read only where they are wanted.
            figures: the epoch's row of the history.
        """
        if self.policy is None:
            return
        before = self.mean.count
        self.policy.after_epoch(self.mean, self.model, done, judge, figures)
        if self.policy.recalibrates and self.mean.count > before:
            with self.averaged_model():
                estimate_statistics(self.model, inputs)
                for name, value in self.model.state_dict().items():
                    self.mean.weights[name].copy_(value)

    @contextmanager
    def averaged_model(self) -> Iterator[None]:
        """The model with the average's weights, where there is one; its own come back at the end."""
        if not self.mean.count:
            yield
            return
        present = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(self.mean.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(present)

    def snapshot(self) -> dict[str, Any]:
        """The model's weights and their average; copies."""
        model = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return {"model": model, "mean": self.mean.copy()}

    def restore(self, snapshot: dict[str, Any], device: torch.device) -> None:
        """Put back what `snapshot` returned."""
        self.model.load_state_dict(snapshot["model"])
        self.mean.restore(snapshot["mean"], device)
