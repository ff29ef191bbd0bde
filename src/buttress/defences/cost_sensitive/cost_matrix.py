"""Costs of mistakes: the matrix that protects some classes, the expected cost of a prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from buttress.data.class_names import ClassName
from buttress.errors import UserError
from buttress.validation import not_negative, one_of, positive, whole

Mistakes = Literal["both", "missed", "false"]


def check_protected(
    protected: ClassName | Sequence[ClassName], c: float, mistakes: Mistakes = "both"
) -> tuple[ClassName, ...]:
    """The protected classes as a tuple; a single one need not be in a list.

    Raises:
        UserError: for no class, for what is neither a name nor an index, for a cost that is no number of 0 or more,
            for an unknown kind of mistake.
    """
    names = tuple(protected) if isinstance(protected, Sequence) and not isinstance(protected, str) else (protected,)
    if not names or any(isinstance(name, bool) or not isinstance(name, int | str) for name in names):
        raise UserError(f"protected names one class or more, by name or index; got {protected!r}")
    not_negative("c", c)
    one_of("mistakes", mistakes, get_args(Mistakes))
    return names


def cost_matrix(classes: int, protected: Tensor | Sequence[int], c: float, mistakes: Mistakes = "both") -> Tensor:
    """(C, C) float32 cost of predicting the row's class where the column's is true.

    1 for every mistake, ``c`` for one in which a protected class is predicted or is true, 0 on the diagonal (Shen,
    Chen, Wang and Wang, arXiv 2101.12372).

    Args:
        classes: C.
        protected: (P,) indices of the protected classes.
        c: cost of a mistake about them; 1 protects nobody.
        mistakes: "both", as published; "missed", only those in which a protected class is true; "false", only those
            in which one is predicted.
    """
    index = torch.as_tensor(protected, dtype=torch.int64)
    costs = torch.ones(classes, classes, device=index.device)
    if mistakes != "missed":
        costs[index] = c
    if mistakes != "false":
        costs[:, index] = c
    return costs.fill_diagonal_(0)


def expected_cost(logits: Tensor, y: Tensor, costs: Tensor) -> Tensor:
    """(N,) sum over classes of their probability times the cost of predicting them where ``y`` is true.

    Args:
        logits: (N, C).
        y: (N,) true classes.
        costs: (C, C), rows predicted and columns true.
    """
    return (logits.softmax(1) * costs.to(logits).T[y]).sum(1)


def check_weights(weight: float, pretrain_epochs: int, pretrain_lr: float) -> None:
    """Refuse a weight of the cost, or a pretraining, that means nothing.

    Raises:
        UserError: naming all three.
    """
    not_negative("weight", weight)
    whole("pretrain_epochs", pretrain_epochs, 0)
    positive("pretrain_lr", pretrain_lr)
