"""One class per input; and classes in an order, of which near ones are right as well."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from buttress import losses
from buttress.errors import UserError
from buttress.losses import Loss
from buttress.registry import task
from buttress.tasks.chance import best_class
from buttress.tasks.task import Task, as_tensor, described, is_binary, is_signs, is_whole, refuse_not_finite
from buttress.validation import whole

_VALUES = ": for values, use task=tasks.Regression(), or --task regression"
_SEVERAL = ": for several labels per input, use task=tasks.MultiLabel(), or --task multi-label"
_KINDS = (torch.int64, torch.int32, torch.uint8, torch.int16)


@task("classification")
@dataclass(frozen=True)
class Classification(Task):
    """One class per input; output: logits (N, C), or (N, C, 1, 1). One logit z per input is read as the two (0, z)."""

    @property
    def loss(self) -> str:
        """See `Task`."""
        return "cross_entropy"

    @property
    def classes(self) -> bool:
        """Every class but the truth is wrong."""
        return True

    @property
    def right(self) -> str:
        """Completes "the inputs that are"."""
        return "classified correctly"

    def read(self, output: object) -> Tensor:
        """Logits (N, C) with C of 2 or more."""
        logits = as_tensor(output, "logits", "(inputs, classes)")
        if logits.dim() == 1:
            logits = logits[:, None]
        if logits.dim() > 2 and logits[0, 0].numel() == 1:  # a 1x1 map, as a fully convolutional network's
            logits = logits.flatten(1)
        if logits.dim() != 2:
            raise UserError(f"the model must return logits (inputs, classes); it returned shape {tuple(logits.shape)}")
        return torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits

    def check(self, output: Tensor, y: Tensor) -> None:
        """Labels must be class indices that the model knows; the output must not be probabilities or NaN.

        Raises:
            UserError: naming what came instead.
        """
        if y.dim() != 1 or y.dtype not in _KINDS:
            raise UserError(f"labels must be class indices (N,), integers; got {described(y)}{_hint(y)}")
        if len(y) != len(output):
            raise UserError(f"{len(output)} outputs need as many labels; got {len(y)}")
        if not len(y):
            return
        low, high = int(y.min()), int(y.max())
        if low < 0 or high >= output.shape[1]:
            hint = ": use (y > 0).long()" if output.shape[1] == 2 and is_signs(y) else ""
            raise UserError(
                f"labels must be 0 to {output.shape[1] - 1}, the model's classes; got {low} to {high}{hint}"
            )
        refuse_not_finite(output)
        output = output.detach()
        single = output.shape[1] == 2 and len(output) >= 8 and not bool(output[:, 0].any())
        if single and 0 <= float(output[:, 1].min()) < 0.25 and 0.75 < float(output[:, 1].max()) <= 1:
            warnings.warn(
                "the model's single output lies in [0, 1] for all inputs, as a probability would, and is read as a "
                "logit: "
                "if it is none, take the sigmoid off, or wrap the model as models.FromProbabilities(model)",
                stacklevel=2,
            )
        inside = bool((output >= -1e-6).all() and (output <= 1 + 1e-6).all())
        if inside and bool((output.sum(1) - 1).abs().max() < _rounding(output)):
            raise UserError(
                "the model returns probabilities, attacks need logits: take the softmax off, "
                "or wrap it as models.FromProbabilities(model)"
            )

    def mean(self, outputs: Sequence[Tensor]) -> Tensor:
        """Logits whose softmax is the mean of the outputs' softmax."""
        several = torch.stack([output.double().log_softmax(1) for output in outputs])
        return (several.logsumexp(0) - math.log(len(outputs))).to(outputs[0].dtype)

    def objective(self, output: Tensor, y: Tensor) -> Tensor:
        """() the mean cross-entropy of the class itself."""
        return F.cross_entropy(output, y)

    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The class is not ``y``, or is ``target``; an output that is not a number is beaten unless targeted."""
        predicted = output.argmax(1)
        if target is not None:
            return (predicted == target) & ~output.isnan().any(1)
        return (predicted != y) | output.isnan().any(1)

    def decision(self, output: Tensor) -> Tensor:
        """(N,) the class of the highest logit."""
        return output.argmax(1)

    def confidence(self, output: Tensor) -> Tensor:
        """(N,) the softmax of that class."""
        return output.softmax(1).amax(1)

    def words(self, y: Tensor, names: Sequence[str]) -> str:
        """The class's name."""
        return names[int(y)] if int(y) < len(names) else str(int(y))


@task("ordinal")
@dataclass(frozen=True)
class Ordinal(Classification):
    """One class per input, classes in an order (ages, grades); output: logits (N, C), as for classification.

    An output is wrong where its class is more than ``tolerance`` classes away from the truth, so attacks climb the
    margin of the classes beyond it; the losses "margin" and "cross_entropy" set these against those within. Training
    minimises the cross-entropy of the class itself. With a tolerance of 0 it is classification.
    A target is a class, reached where it is the output's.

    Args:
        tolerance: how many classes an output may be away from the truth.
    """

    tolerance: int = 1

    def __post_init__(self) -> None:
        """Refuse a tolerance that is none."""
        whole("tolerance", self.tolerance, 0)

    @property
    def loss(self) -> str:
        """The margin: log-odds of all classes beyond together raise those, too, that are far from being the first."""
        return "margin" if self.tolerance else "cross_entropy"

    @property
    def objective_loss(self) -> str:
        """See `Task`; of the class itself, see `objective`."""
        return "cross_entropy"

    @property
    def classes(self) -> bool:
        """Only where every other class is wrong."""
        return self.tolerance == 0

    @property
    def right(self) -> str:
        """Completes "the inputs that are"."""
        return f"within {self.tolerance} of their class" if self.tolerance else "classified correctly"

    @property
    def score_name(self) -> str:
        """What the share of right outputs is called."""
        return "share within tolerance" if self.tolerance else "accuracy"

    @property
    def meanings(self) -> dict[str, Loss]:
        """The losses of the classes within the tolerance against those beyond."""
        entropy = Loss(self._entropy, direction=self._log_odds, targeted=_cross_entropy_targeted)
        margin = Loss(self.margin, targeted=_margin_targeted)
        return {"cross_entropy": entropy, "margin": margin, "kl": losses.LOSSES["kl"]}

    def check(self, output: Tensor, y: Tensor) -> None:
        """As for classification; and there must be a class beyond the tolerance of some other.

        Raises:
            UserError: naming what came instead.
        """
        super().check(output, y)
        if self.tolerance >= output.shape[1] - 1:
            count = output.shape[1]
            raise UserError(
                f"tolerance must be below {count - 1}, or no class of {count} is wrong; got {self.tolerance}"
            )

    def margin(self, output: Tensor, y: Tensor) -> Tensor:
        """(N,) by how much a class beyond the tolerance is ahead of all within; above 0 only where the output is wrong.

        There the best logit beyond minus the best within; elsewhere `losses.any_above` over classes beyond of
        `losses.all_above` of their leads. Without a tolerance it is the classes' margin. Minus infinity where every
        class is within the tolerance.
        """
        if not self.tolerance:
            return losses.margin(output, y)
        within = y.long()[:, None] + torch.arange(-self.tolerance, self.tolerance + 1, device=output.device)
        there = (within >= 0) & (within < output.shape[1])
        rivals = output.gather(1, within.clamp(0, output.shape[1] - 1)).masked_fill(~there, -torch.inf)
        leads = losses.all_above(output[:, :, None] - rivals[:, None, :])
        return losses.any_above(leads.masked_fill(self._near(output, y), -torch.inf))

    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The class is too far from ``y``, or is ``target``; not a number is wrong unless targeted."""
        if target is not None:
            return super().is_adversarial(output, y, target)
        return ((output.argmax(1) - y).abs() > self.tolerance) | output.isnan().any(1)

    def chance(self, y: Tensor, outputs: int) -> float:
        """Of the class that is within the tolerance of the most."""
        return best_class(y, outputs, self.tolerance)

    def _near(self, output: Tensor, y: Tensor) -> Tensor:
        """(N, C) bool: which classes are within the tolerance."""
        classes = torch.arange(output.shape[1], device=output.device)
        return (classes - y.long()[:, None]).abs() <= self.tolerance

    def _entropy(self, output: Tensor, y: Tensor) -> Tensor:
        """Minus the log-probability of all classes within the tolerance together."""
        return -F.logsigmoid(-self._log_odds(output, y))

    def _log_odds(self, output: Tensor, y: Tensor) -> Tensor:
        """Log-odds of the classes beyond the tolerance: the entropy's direction, also where that saturates."""
        near = self._near(output, y)
        within = output.masked_fill(~near, -torch.inf).logsumexp(1)
        return output.masked_fill(near, -torch.inf).logsumexp(1) - within


def _cross_entropy_targeted(output: Tensor, target: Tensor) -> Tensor:
    return -losses.cross_entropy(output, target)


def _margin_targeted(output: Tensor, target: Tensor) -> Tensor:
    return -losses.margin(output, target)


def _rounding(output: Tensor) -> float:
    """How far a sum of probabilities may be from 1: more where they were computed in half precision."""
    half = any(torch.equal(output.to(kind).to(output), output) for kind in (torch.float16, torch.bfloat16))
    return 1e-2 if half else 1e-5


def _hint(y: Tensor) -> str:
    """What to type for labels of these values, which are no class indices (N,)."""
    if y.is_complex() or not y.dim() or not y.numel() or not bool(y.isfinite().all()):
        return ""
    if y[0].numel() == 1:
        column = {1: "", 2: ".squeeze(1)"}.get(y.dim(), ".flatten()")
        kind = "" if y.dtype in _KINDS else ".long()"
        values = ", or task=tasks.Regression() if these are values" if y.is_floating_point() else ""
        return f": use y{column}{kind}{values}" if is_whole(y) else _VALUES
    if y.dim() > 2:
        rows = _hint(y.flatten(1)) if max(y.shape[1:]) == y[0].numel() else ""
        return rows.replace("use y", "use y.flatten(1)") if rows.startswith(": use y") else ""
    if is_binary(y) or is_signs(y):
        return ": use y.argmax(1)" if bool(((y > 0).sum(1) == 1).all()) else _SEVERAL
    distributions = y.is_floating_point() and bool((y >= 0).all()) and bool(((y.sum(1) - 1).abs() < 1e-4).all())
    return ": use y.argmax(1)" if distributions else _VALUES
