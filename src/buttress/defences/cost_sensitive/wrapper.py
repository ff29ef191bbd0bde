"""Cost-sensitive training around any base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from buttress.data.class_names import ClassName, class_indices
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Defence, Loss, StepContext
from buttress.defences.base.step_context import Kind
from buttress.defences.base.wrapper import WrapperDefence
from buttress.defences.cost_sensitive.cost_matrix import (
    Mistakes,
    check_protected,
    cost_matrix,
    expected_cost,
)
from buttress.errors import UserError
from buttress.registry import defence
from buttress.validation import not_negative, one_of

Passes = Literal["clean", "adversarial", "both"]


@defence("cost-sensitive")
class CostSensitive(WrapperDefence):
    """Any base plus the expected cost of its own predictions, where mistakes about protected classes cost more.

    The cost term of Shen, Chen, Wang and Wang (arXiv 2101.12372) with any adversarial training in place of theirs;
    attacks of the base are left as they are. Adds no pass.

    Args:
        base: the training method underneath.
        protected: the classes to protect, by name or index.
        c: cost of a mistake about them, where any other costs 1.
        mistakes: about which: "both", as published, where a protected class is true or is predicted. There the more
            frequent kind, other classes taken for it, may outweigh its own, so that it is predicted less than before;
            "missed" counts only mistakes in which it is true, "false" only those in which it is predicted.
        weight: of the mean expected cost of each pass.
        on: the passes whose predictions have a cost; "both" takes those that the base makes.
    """

    needs_classes = True
    paper = "Shen et al., arXiv 2101.12372"
    reconstruction = "the cost term on the passes of any base"
    index: Tensor

    def __init__(
        self,
        base: Defence | None = None,
        protected: ClassName | Sequence[ClassName] = (0,),
        c: float = 10.0,
        mistakes: Mistakes = "both",
        weight: float = 1.0,
        on: Passes = "both",
    ) -> None:
        super().__init__(base)
        not_negative("weight", weight)
        one_of("on", on, get_args(Passes))
        if not self.base.own_classes:
            raise UserError(f"{type(self.base).__name__} mixes inputs: its predictions are of no class that could cost")
        self.protected, self.c, self.weight, self.on = check_protected(protected, c, mistakes), c, weight, on
        self.mistakes = mistakes
        self.register_buffer("index", torch.zeros(0, dtype=torch.int64))

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """As the base does; and the protected classes are looked up in the data's names."""
        data = super().prepare(model, data, seed)
        self.index = torch.tensor(class_indices(self.protected, data.classes), device=self.index.device)
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The base's loss plus the weighted mean cost of each pass.

        Raises:
            UserError: where the base makes none of the passes in ``on``.
        """
        base = self.base.loss(model, batch, context)
        both: tuple[Kind, ...] = ("clean", "adversarial")
        kinds = [kind for kind in both if kind in context.passes and self.on in (kind, "both")]
        if not kinds:
            raise UserError(f"{type(self.base).__name__} makes no {self.on} pass whose predictions could have a cost")
        value, logs = base.value, dict(base.logs)
        for kind in kinds:
            logits = context.passes[kind].logits
            costs = cost_matrix(logits.shape[1], self.index.to(logits.device), self.c, self.mistakes)
            cost = expected_cost(logits, batch.y, costs).mean()
            value = value + self.weight * cost
            logs[f"cost {kind}"] = cost.detach()
        return Loss(value, logs)
