"""Learning a small training set so that kernel regression on it is robust: KIP and adv-KIP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from buttress.attacks import Perturbation
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.losses import Loss
from buttress.models.blocks.kernel_regression import Kernel, centred
from buttress.random import derive, generator
from buttress.validation import one_of

View = Callable[[Tensor], Tensor]
Inner = Literal["own", "mse"]


@dataclass(frozen=True)
class Learned:
    """A learned training set.

    Attributes:
        images: (M, ...) float32, in the box.
        labels: (M, C) float32, centred: rows of fixed labels are one-hot minus 1 / C.
        outer: (steps,) float32 objective of each step, before its update.
    """

    images: Tensor
    labels: Tensor
    outer: Tensor


@dataclass(frozen=True, kw_only=True)
class LearningSettings:
    """How a training set is learned; see `buttress.defences.adv_kip.defence.AdvKIP`, whose arguments these are.

    Raises:
        UserError: for an inner loss that is unknown, or that the attack cannot follow.
    """

    kernel: Kernel
    attack: Perturbation
    inner: Inner
    points: int
    steps: int | None
    batch: int
    lr: float
    learn_labels: bool

    def __post_init__(self) -> None:
        """Refuse an inner loss that there is not."""
        one_of("inner", self.inner, get_args(Inner))
        if self.inner == "mse" and "loss" not in self.attack.settings():
            raise UserError(f"{type(self.attack).__name__} takes no loss: leave inner at own, or give PGD")

    @property
    def inner_attack(self) -> Perturbation | None:
        """What perturbs the real inputs; None where its budget is 0, which is KIP."""
        threat = self.attack.within().threat
        if threat is not None and threat.eps == 0:
            return None
        if self.inner == "own":
            return self.attack
        attack: Any = self.attack
        return cast(Perturbation, replace(attack, loss=Loss(squared_error)))

    def step_count(self, inputs: int) -> int:
        """Steps for a training split of so many inputs."""
        return max(20, min(300, inputs // 10)) if self.steps is None else self.steps


def squared_error(output: Tensor, y: Tensor) -> Tensor:
    """(N,) half the mean squared distance of (N, C) outputs from the centred labels of the classes (N,)."""
    return 0.5 * (output - centred(y, output.shape[1]).to(output)).square().mean(1)


def predictor(kernel: Kernel, images: Tensor, labels: Tensor, view: View) -> View:
    """Kernel regression on a set that is held fixed, solved once: (N, ...) inputs -> (N, C) outputs in their dtype."""
    support = view(images.detach())
    coefficients = kernel.coefficients(support, labels.detach())

    def outputs(x: Tensor) -> Tensor:
        return (kernel(view(x), support) @ coefficients).to(x.dtype)

    return outputs


def outer_loss(kernel: Kernel, images: Tensor, labels: Tensor, view: View, x: Tensor, y: Tensor) -> Tensor:
    """Half the mean squared error of kernel regression on (images, labels) at inputs ``x``, a float64 scalar.

    Nguyen et al., ICLR 2021, equation 7, as a mean; differentiable in images and labels.

    Args:
        kernel: of the regression.
        images: (M, ...) the set.
        labels: (M, C) its labels.
        view: what the kernel sees of an input: its normalisation.
        x: (N, ...) perturbed inputs, constants.
        y: (N,) their classes.
    """
    support = view(images)
    outputs = kernel(view(x.to(images.dtype)), support) @ kernel.coefficients(support, labels)
    return squared_error(outputs, y).mean()


def first_points(split: Split, classes: int, points: int, seed: int) -> Tensor:
    """Rows of a split to start from: as many of each class as there are of the others, or all that a class has.

    Args:
        split: the training split.
        classes: that there are.
        points: rows wanted.
        seed: decides which.

    Returns:
        (M,) int64 rows, sorted by class; M is ``points`` where the classes are large enough.

    Raises:
        UserError: for fewer points than classes, and for a class without inputs.
    """
    if points < classes:
        raise UserError(f"a learned set needs a point for each of {classes} classes at least; got points={points}")
    counts = [points // classes + (label < points % classes) for label in range(classes)]
    return torch.cat([rows[:count] for rows, count in zip(_by_class(split.y, classes, seed), counts, strict=True)])


def balanced_rows(y: Tensor, classes: int, size: int, seed: int) -> Tensor:
    """Rows of a target batch: equally many of each class, drawn without replacement.

    Args:
        y: (N,) classes of the training split.
        classes: that there are.
        size: of the batch, at most, where it can be divided by the classes; no class gives more than the largest has,
            and a class with fewer inputs repeats them.
        seed: decides which rows.

    Returns:
        (B,) int64 rows.
    """
    count = min(max(1, size // classes), int(torch.bincount(y).max()))
    parts = _by_class(y, classes, seed)
    return torch.cat([rows.repeat(-(-count // len(rows)))[:count] for rows in parts])


def learn(
    split: Split,
    classes: int,
    settings: LearningSettings,
    *,
    box: tuple[float, float] | None,
    view: View,
    seed: int,
    device: torch.device | None = None,
) -> Learned:
    """Minimise `outer_loss` over the set by Adam, at inputs perturbed against the regression on the present set.

    The perturbation is a constant in the gradient. The set is kept in float64 and clipped to the box after each step;
    the same seed gives the same bits.

    Cost per step: the attack's passes and two more over B target inputs, each of B M evaluations of the kernel, and
    two factorisations of M^3 / 3 operations.

    Args:
        split: real inputs.
        classes: that there are.
        settings: how.
        box: the range of the inputs, or None.
        view: see `outer_loss`.
        seed: of what the set begins as, of target batches and of the attack.
        device: where it is computed.

    Raises:
        UserError: for a class without inputs, and when the set's kernel can no longer be inverted.
    """
    rows = first_points(split, classes, settings.points, derive(seed, "points"))
    images, own, _ = (values.to(device or values.device) for values in split.take(rows))
    images = images.double().requires_grad_()
    labels = centred(own, classes).requires_grad_(settings.learn_labels)
    optimizer = torch.optim.Adam([images, labels] if settings.learn_labels else [images], lr=settings.lr)
    attack, outer = settings.inner_attack, []
    for step in range(settings.step_count(len(split))):
        rows = balanced_rows(split.y, classes, settings.batch, derive(seed, "target", step))
        x, y, ids = (values.to(images.device) for values in split.take(rows))
        if attack is not None:
            with torch.no_grad():
                model = predictor(settings.kernel, images, labels, view)
            x = attack.craft(model, x, y, seed=derive(seed, "attack", step), ids=ids)
        loss = outer_loss(settings.kernel, images, labels, view, x, y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        if box is not None:
            with torch.no_grad():
                images.clamp_(*box)
        outer.append(loss.detach().float())
    objectives = torch.stack(outer) if outer else torch.zeros(0)
    return Learned(images.detach().float(), labels.detach().float(), objectives)


def _by_class(y: Tensor, classes: int, seed: int) -> list[Tensor]:
    """The rows of each class, shuffled."""
    order = torch.randperm(len(y), generator=generator(seed))
    parts = [order[y[order] == label] for label in range(classes)]
    for label, rows in enumerate(parts):
        if not len(rows):
            raise UserError(f"a learned set needs real inputs of every class; the training split has none of {label}")
    return parts
