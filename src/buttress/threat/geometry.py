"""Norms of perturbations and the balls that belong to them, row by row."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Norm = Literal["linf", "l2", "l1"]
DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}


def per_row(values: Tensor, x: Tensor) -> Tensor:
    """(N,) values as (N, 1, ..., 1), to meet inputs of ``x``'s rank."""
    return values.view(-1, *[1] * (x.dim() - 1))


def norms(delta: Tensor, norm: Norm) -> Tensor:
    """(N,) norm of each row of ``delta``."""
    rows = delta.flatten(1)
    if rows.shape[1] == 0:
        return rows.new_zeros(len(rows))
    order = {"linf": math.inf, "l2": 2, "l1": 1}[norm]
    size: Tensor = torch.linalg.vector_norm(rows, order, dim=1)
    return size


def project_rows_l1(rows: Tensor, eps: float | Tensor) -> Tensor:
    """Euclidean projection of each row that is outside onto the L1 ball (Duchi et al., ICML 2008, by sorting)."""
    size = rows.abs()
    ordered = size.sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - eps
    rank = torch.arange(1, rows.shape[1] + 1, device=rows.device, dtype=rows.dtype)
    count = (ordered * rank > excess).sum(1, keepdim=True).clamp(min=1)
    shrink = (excess.gather(1, count - 1) / count).clamp(min=0)
    return rows.sign() * (size - shrink).clamp(min=0)


def budget_text(eps: float) -> str:
    """An eps as people write it: "0.3", or "8/255" when it is no round number but so many levels of an 8-bit image."""
    levels = eps * 255
    if math.isfinite(eps) and abs(round(eps, 2) - eps) > 1e-8 and abs(levels - round(levels)) < 1e-4:
        return f"{round(levels)}/255"
    return f"{eps:.4g}" if math.isfinite(eps) else "∞"
