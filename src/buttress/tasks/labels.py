"""Several labels per input, each of which is there or not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from buttress import losses
from buttress.errors import UserError
from buttress.losses import Loss
from buttress.registry import task
from buttress.tasks.chance import best_set
from buttress.tasks.task import Task, as_tensor, described, is_binary, is_signs, refuse_not_finite, shape_hint
from buttress.validation import one_of

Wrong = Literal["any", "all"]


@task("multi-label")
@dataclass(frozen=True)
class MultiLabel(Task):
    """Any number of labels per input; output: a logit for each label, (N, L), positive where the label is there.

    ``y`` is (N, L) of 0 and 1, of any dtype; a target is a set of labels of the same form, reached where the output has
    exactly these. Attacks climb the margin, which decides; training minimises the binary cross-entropy summed over
    labels, which misleads an attack: many labels that are far from wrong outweigh the one that is near.

    Args:
        wrong: when an output is wrong: where "any" of its labels is, or where "all" are.
    """

    wrong: Wrong = "any"
    loss = "margin"
    objective_loss = "binary_cross_entropy"

    def __post_init__(self) -> None:
        """Refuse what is neither."""
        one_of("wrong", self.wrong, get_args(Wrong))

    @property
    def right(self) -> str:
        """Completes "the inputs that are"."""
        return "right in every label" if self.wrong == "any" else "right in at least one label"

    @property
    def score_name(self) -> str:
        """What the share of right outputs is called."""
        return "exact match" if self.wrong == "any" else "share with a label right"

    @property
    def meanings(self) -> dict[str, Loss]:
        """The margin is that of the labels that decide; "kl" the divergence of the labels' Bernoulli distributions."""
        return {"margin": Loss(self.margin, targeted=_margin_targeted), "kl": losses.BERNOULLI_KL}

    def margin(self, output: Tensor, y: Tensor) -> Tensor:
        """(N,) by how much the labels that decide are wrong; above 0 exactly where the output is wrong.

        `losses.any_above` of the signed logits against the truth where any wrong label counts, `losses.all_above` of
        them where all must be wrong. (At a logit of exactly 0 the label is read as absent.)
        """
        against = losses.label_margins(output, y)
        return losses.any_above(against) if self.wrong == "any" else losses.all_above(against)

    def read(self, output: object) -> Tensor:
        """Logits (N, L); those of a single label as (N, 1)."""
        logits = as_tensor(output, "logits", "(inputs, labels)")
        if logits.dim() == 1:
            logits = logits[:, None]
        if logits.dim() != 2:
            raise UserError(f"the model must return logits (inputs, labels); it returned shape {tuple(logits.shape)}")
        return logits

    def check(self, output: Tensor, y: Tensor) -> None:
        """Labels must be 0 or 1, one for each logit; the output must not be probabilities or NaN.

        Raises:
            UserError: naming what came instead, and what to type.
        """
        count = output.shape[1]
        if y.shape != output.shape:
            hint = shape_hint(y, tuple(output.shape))
            if y.dim() == 1 and len(y) == len(output):
                hint = ": use y[:, None]" if count == 1 else ": for one class per input, use tasks.classification"
            raise UserError(f"labels must be 0 or 1 of shape {tuple(output.shape)}; got {described(y)}{hint}")
        if not is_binary(y):
            hint = ": use y > 0" if is_signs(y) else ": use y > 0.5" if _in_unit_interval(y) else ""
            low, high = (float(value) for value in torch.aminmax(y.double()))
            raise UserError(f"labels must be 0 or 1; got {low:g} to {high:g}{hint}")
        refuse_not_finite(output)
        if output.numel() >= 8 and _in_unit_interval(output.detach()):
            raise UserError(
                "the model's outputs all lie in [0, 1], as probabilities would, and attacks need logits, which are "
                "positive for a label and negative for none: take the sigmoid off"
            )

    def mean(self, outputs: Sequence[Tensor]) -> Tensor:
        """Logits whose sigmoids are the means of the outputs' sigmoids."""
        several = torch.stack([output.double() for output in outputs])
        there, absent = (torch.nn.functional.logsigmoid(sign * several).logsumexp(0) for sign in (1, -1))
        return (there - absent).to(outputs[0].dtype)

    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Any or all labels are wrong, or the labels are the target's; not a number is wrong unless targeted."""
        missing = output.isnan().any(1)
        if target is not None:
            return ((output > 0) == (target > 0)).all(1) & ~missing
        wrong = (output > 0) != (y > 0)
        return (wrong.any(1) if self.wrong == "any" else wrong.all(1)) | missing

    def chance(self, y: Tensor, outputs: int) -> float:
        """Of the most frequent set of labels; of the set whose complement is rarest where all must be wrong."""
        return best_set(y.reshape(len(y), outputs), self.wrong == "any")

    def decision(self, output: Tensor) -> Tensor:
        """(N, L) 1 for each label that is there, else 0."""
        return (output > 0).long()

    def confidence(self, output: Tensor) -> Tensor:
        """(N,) the probability of the label that is least certain."""
        return output.abs().sigmoid().amin(1)

    def words(self, y: Tensor, names: Sequence[str]) -> str:
        """The labels that are there, by name."""
        there = [names[k] if k < len(names) else str(k) for k in (y > 0).nonzero().flatten().tolist()]
        return ", ".join(there) or "none"


def _margin_targeted(output: Tensor, target: Tensor) -> Tensor:
    """(N,) positive exactly where the output has just the target's labels."""
    return losses.all_above(-losses.label_margins(output, target))


def _in_unit_interval(values: Tensor) -> bool:
    return bool(((values >= 0) & (values <= 1)).all()) and not math.isnan(float(values.double().sum()))
