"""Per-example losses, written so that an attack maximises them.

Each takes outputs, mostly the logits (N, C) of a classifier, and returns (N,). The second argument is the truth, mostly
a class (N,), or, for losses that compare with the unperturbed input (`Loss.against` "clean"), the output for the clean
input.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress.errors import UserError
from buttress.float64 import above_zero
from buttress.registry import nearest


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Minus the log-probability of class ``y``."""
    return F.cross_entropy(logits, y, reduction="none")


def log_odds_against(logits: Tensor, y: Tensor) -> Tensor:
    """Log-odds of every other class together against ``y``: cross-entropy's direction, also where that saturates."""
    own = logits.gather(1, y[:, None]).squeeze(1)
    return logits.scatter(1, y[:, None], -torch.inf).logsumexp(1) - own


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Best other logit minus the logit of ``y`` (Carlini and Wagner, 2017): positive exactly when ``y`` has lost."""
    own = logits.gather(1, y[:, None]).squeeze(1)
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - own


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce and Hein, ICML 2020): the margin over the gap between first and third logit.

    With fewer than three classes the ratio is not defined; the margin is used instead, with a warning. Under an
    attacker's target attacks follow `dlr_targeted` instead, and towards a class of their own choice `dlr_toward`.
    """
    if logits.shape[1] < 3:
        warnings.warn(f"DLR needs 3 classes, the model has {logits.shape[1]}: the margin loss is used", stacklevel=2)
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def margin_toward(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Logit of ``target`` minus the logit of ``y``: positive exactly when ``target`` has the larger one."""
    own = logits.gather(1, torch.stack([y, target], 1))
    return own[:, 1] - own[:, 0]


def dlr_toward(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted difference of logits ratio (Croce and Hein, ICML 2020, equation 7): the lead of ``target`` over ``y``.

    The scale is the first logit minus the mean of the third and fourth. With fewer than four classes it is not
    defined; the lead itself is used instead, with a warning.
    """
    return _scaled(margin_toward(logits, y, target), logits)


def dlr_targeted(logits: Tensor, target: Tensor) -> Tensor:
    """The lead of ``target`` over its strongest rival, scaled as in `dlr_toward`: positive exactly when it has won.

    Equation 7 compares with the truth, which is enough for an attack that tries one class after the other to get away
    from the truth. An attacker who wants one class has not got it while a third one leads.
    """
    return _scaled(-margin(logits, target), logits)


def _scaled(lead: Tensor, logits: Tensor) -> Tensor:
    if logits.shape[1] < 4:
        warnings.warn(
            f"targeted DLR needs 4 classes, the model has {logits.shape[1]}: the difference of logits is used",
            stacklevel=3,
        )
        return lead
    top = logits.topk(4, dim=1).values
    return lead / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def ranked(clean: Tensor, y: Tensor, count: int) -> Tensor:
    """(N, K) the classes other than ``y`` by falling clean logit; K is ``count``, or all that there are.

    Args:
        clean: (N, C) outputs for the unperturbed inputs.
        y: (N,) the truth.
        count: how many at most.
    """
    others = clean.scatter(1, y[:, None], float("-inf"))
    return others.topk(min(count, clean.shape[1] - 1), dim=1).indices


def kl(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """KL divergence of the softmax of ``logits`` from the softmax of ``clean_logits``, the reference."""
    return F.kl_div(logits.log_softmax(1), clean_logits.log_softmax(1), reduction="none", log_target=True).sum(1)


def negative_logit(logits: Tensor, y: Tensor) -> Tensor:
    """Minus the logit of ``y``, whatever the others are; for outputs that are log-likelihoods, or sums of them."""
    return -logits.gather(1, y[:, None]).squeeze(1)


def label_margins(logits: Tensor, y: Tensor) -> Tensor:
    """(N, L) logit of each label, signed against its truth: above 0 where the label is wrong.

    Args:
        logits: (N, L), above 0 for a label that is there.
        y: (N, L) of 0 and 1.
    """
    return torch.where(y > 0, -logits, logits)


def binary_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) minus the log-probability of labels (N, L) that are each there or not, summed over them."""
    return -F.logsigmoid(-label_margins(logits, y)).sum(1)


def any_above(leads: Tensor) -> Tensor:
    """(N,) above 0 exactly where some of the ``leads`` (N, K) is: there the largest of them.

    Elsewhere it is minus (sum_k d_k^-8)^(-1/8), of the distances d_k = -lead_k to 0: the nearest counts most, and the
    others still have a slope, so that a sign step serves them too where inputs are theirs alone. The largest alone
    would leave them where they are; a sum of logarithms of sigmoids follows the many rather than the near. Scaled leads
    give a scaled value: no temperature decides. Like any ascent it may miss a lead that is not the nearest in the
    output and yet is in the input, which random restarts find.
    """
    best = leads.amax(1)
    behind = (best < 0) & best.isfinite()
    distances = torch.where(behind[:, None], -leads, 1)
    nearest_one = distances.detach().amin(1, keepdim=True)  # a unit, so that no power overflows
    joint = nearest_one.squeeze(1) * (nearest_one / distances).pow(_NEARNESS).sum(1).pow(-1 / _NEARNESS)
    return torch.where(behind, -joint, best)


def all_above(leads: Tensor) -> Tensor:
    """(...) above 0 exactly where each of the ``leads`` (..., K) is: there the least of them.

    Elsewhere it is minus the l2 norm of those below 0, so that a step serves all that are behind, the furthest most,
    and none that is ahead. The least alone would have a sign step serve one and undo it for another; a sum of
    logarithms of sigmoids gives up what is nearest to none. Scaled leads give a scaled value: no temperature decides.
    """
    least = leads.amin(-1)
    return torch.where(least < 0, -torch.linalg.vector_norm(leads.clamp(max=0), dim=-1), least)


def log_label_margins(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) logarithm of the sum of odds against each label: binary cross-entropy's direction where that saturates."""
    return label_margins(logits, y).logsumexp(1)


def bernoulli_kl(logits: Tensor, clean_logits: Tensor) -> Tensor:
    """(N,) KL divergence of Bernoulli distributions from those of ``clean_logits``, (N, L), summed over labels."""
    return sum(
        (
            F.kl_div(F.logsigmoid(sign * logits), F.logsigmoid(sign * clean_logits), reduction="none", log_target=True)
            for sign in (1, -1)
        ),
        start=torch.zeros_like(logits),
    ).sum(1)


def mse(output: Tensor, y: Tensor) -> Tensor:
    """(N,) mean squared error over everything but the batch axis; ``y`` has as many values as the output."""
    return (output - y.view_as(output)).square().flatten(1).mean(1)


def total(output: Tensor, y: Tensor) -> Tensor:
    """(N,) the sum of the output, whatever the truth: where a squared error is 0, no direction is better than up."""
    return output.flatten(1).sum(1)


def _mse_targeted(output: Tensor, target: Tensor) -> Tensor:
    return -mse(output, target)


_NEARNESS = 8  # of `any_above`: on linear models 2 follows too many leads at once, and more finds no more
_FAINT = 2.0**-40  # below this a row's slope is scaled up: float32 would lose its true size further down


@dataclass(frozen=True)
class Loss:
    """A loss and what its second argument is: the truth (or the target), or the output for the clean input.

    Two other forms lead to a class, for two purposes; each is minus the loss of that class unless given:

    - ``targeted``, (output, target) -> (N,), is what an attack maximises under an attacker's target. The truth does not
      matter then: what stands in the way is the strongest rival at the point, whichever class that is.
    - ``toward``, (output, y, chosen) -> (N,), leads away from the truth to a class that the attack itself chose.

    ``direction`` is an increasing function of the loss that keeps its slope where the loss saturates; an attack follows
    it where the gradient of the loss itself is too small for a number to hold, but not in the ``targeted`` form.
    ``needs_classes`` is for losses that mean nothing without classes.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    against: Literal["label", "clean"] = "label"
    direction: Callable[[Tensor, Tensor], Tensor] | None = None
    toward: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    targeted: Callable[[Tensor, Tensor], Tensor] | None = None
    needs_classes: bool = False

    def value(self, output: Tensor, y: Tensor, target: Tensor | None = None, chosen: Tensor | None = None) -> Tensor:
        """(N,) the loss of an output, to be maximised.

        Args:
            output: (N, C).
            y: (N,) the truth, or (N, C) the clean output where the loss is ``against`` that.
            target: (N,) what the attacker wants, or None.
            chosen: (N,) classes that the attack itself leads to, which then go before a target; or None.

        Raises:
            UserError: for a loss that does not give one value per input, or leads to no class where one is wanted.
        """
        try:
            value = self._value(output, y.to(output.dtype) if y.is_floating_point() else y, target, chosen)
        except RuntimeError:  # a loss with float32 weights of its own
            if output.dtype == torch.float32:
                raise
            return self.value(output.float(), y, target, chosen)
        if value.shape != output.shape[:1]:
            shape = f"got shape {tuple(value.shape)} for {len(output)} inputs"
            raise UserError(f'a loss gives one value per input, (N,), as with reduction="none"; {shape}')
        return value

    def _value(self, output: Tensor, y: Tensor, target: Tensor | None, chosen: Tensor | None) -> Tensor:
        wanted = target if chosen is None else chosen
        if wanted is None:
            return self.function(output, y)
        if chosen is not None and self.toward is not None:
            return self.toward(output, y, chosen)
        if chosen is None and self.targeted is not None:
            return self.targeted(output, wanted)
        if self.against == "clean":
            raise UserError(
                "a loss against the clean output leads to no class: for a target choose another, such as cross_entropy"
            )
        return -self.function(output, wanted)

    def slope(
        self, output: Tensor, y: Tensor, target: Tensor | None = None, chosen: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N,) the loss in float64, and its slope at the output (N, C); arguments as for `value`.

        Where the slope is so faint that float32 would lose it on the way down to the inputs (a saturated softmax), the
        row is scaled up: directions hold, lengths do not. Where it is zero, ``direction`` is followed instead. That
        also keeps subnormal numbers, which slow a CPU down many times, out of the backward pass.
        """
        leaf = output.detach().double().requires_grad_()
        value = self.value(leaf, y, target, chosen)
        if not value.requires_grad:
            raise UserError("the loss does not depend on the model's output through differentiable operations")
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        size, column = slope.flatten(1).abs().amax(1), (-1, *[1] * (slope.dim() - 1))
        directed = target is None or chosen is not None or self.targeted is None
        if self.direction is not None and directed and bool((zero := size == 0).any()):
            lasting = Loss(self.direction).value(leaf, y, target, chosen)
            slope = torch.where(zero.view(column), torch.autograd.grad(lasting.sum(), leaf)[0], slope)
        faint = (size < _FAINT) & (size > 0)
        exponent = torch.where(faint, above_zero(size).log2().floor(), 0)
        slope = slope * torch.exp2(-exponent).view(column)
        return value.detach(), torch.where(slope.abs() < 2.0**-100, 0, slope)


LOSSES = {
    "cross_entropy": Loss(cross_entropy, direction=log_odds_against, needs_classes=True),
    "margin": Loss(margin, needs_classes=True),
    "dlr": Loss(dlr, toward=dlr_toward, targeted=dlr_targeted, needs_classes=True),
    "kl": Loss(kl, against="clean", needs_classes=True),
    "mse": Loss(mse, direction=total, targeted=_mse_targeted),
    "negative_logit": Loss(negative_logit, needs_classes=True),
    "binary_cross_entropy": Loss(binary_cross_entropy, direction=log_label_margins),
}
# What tasks without classes mean by "kl", how far an output is from the one for the clean input.
BERNOULLI_KL = Loss(bernoulli_kl, against="clean")
SQUARED_DIFFERENCE = Loss(mse, against="clean")

LossLike = str | Callable[[Tensor, Tensor], Tensor] | Loss


def resolve(loss: LossLike) -> Loss:
    """A named loss, a `Loss`, or any callable (output, y) -> (N,) as a `Loss`.

    Raises:
        UserError: for an unknown name, with the nearest known one, and for what is neither.
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return Loss(loss)
    if not isinstance(loss, str):
        raise UserError(f"a loss is a name or a function of outputs and labels; got {type(loss).__name__}")
    if loss not in LOSSES:
        raise UserError(f"there is no loss {loss!r}; {nearest(loss, sorted(LOSSES))}")
    return LOSSES[loss]
