"""Whether two attacks, or two networks, agree on which classes are vulnerable, and on which a stronger attack gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from buttress.audits.base.statistics import bootstrap
from buttress.random import generator

METHOD = "bootstrap over inputs within classes, 95 %"
_RESAMPLES = 1000
_AT_ONCE = 1 << 22  # indices drawn, and pairs of classes compared, at once


def agreement(y: Tensor, first: Tensor, second: Tensor, seed: int) -> dict[str, Any] | None:
    """How far two robust accuracies by class put the classes in the same order.

    Args:
        y: (N,) classes.
        first: (N,) bool, the inputs that stand under the one attack, or with the one network.
        second: likewise of the other; the same inputs.
        seed: of the bootstrap, which resamples the inputs of each class.

    Returns:
        ``spearman`` and ``kendall`` (tau-b): ``value``, ``low`` and ``high``, all None where one side is the same for
        all classes; a resample in which one is says nothing of an order, and counts as 0. ``worst``, whether a class is
        the least robust (or ties for it) under both, and ``worst_share``, the share of resamples in which one is. None
        for fewer than three classes, which have no order to speak of.
    """
    y, pair = y.cpu(), torch.stack([first.cpu(), second.cpu()])
    classes = torch.unique(y)
    if len(classes) < 3:
        return None
    stands = [pair[:, y == k].double() for k in classes]
    shares = torch.stack([part.mean(1) for part in stands], -1)[:, None]  # (2, 1, K)
    resampled = _resampled(stands, seed)
    result: dict[str, Any] = {"classes": len(classes)}
    for name, statistic in (("spearman", _spearman), ("kendall", _kendall)):
        value, values = float(statistic(*shares)), statistic(*resampled)
        ordered = values.nan_to_num(0.0).sort().values
        low, high = (float(ordered[round(q * (_RESAMPLES - 1))]) for q in (0.025, 0.975))
        defined = not math.isnan(value)
        result[name] = (
            {"value": value, "low": low, "high": high} if defined else dict.fromkeys(("value", "low", "high"))
        )
    result["worst"] = bool(_same_worst(*shares))
    result["worst_share"] = float(_same_worst(*resampled).double().mean())
    return result


def between(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """`agreement` of two networks from what the audit classes found of each, under their first attack.

    None where they were not attacked in the same way on the same inputs, or by a version that kept no table.
    """
    attacks = [data.get("attacks") for data in (first, other)]
    if not all(attacks) or any(first.get(name) != other.get(name) for name in ("same_inputs", "seed", "labels")):
        return None
    one, two = (entries[0] for entries in attacks if entries)
    if one["fingerprint"] != two["fingerprint"]:
        return None
    stands = [torch.tensor([bit == "1" for bit in entry["stands"]]) for entry in (one, two)]
    return agreement(torch.tensor(first["labels"]), stands[0], stands[1], first["seed"])


def gain(y: Tensor, weaker: Tensor, stronger: Tensor, seed: int) -> dict[str, Any] | None:
    """What a stronger attack gains on the vulnerable classes, and on the others.

    Classes are halved by robust accuracy under the weaker attack on one half of their inputs, and the gain is measured
    on the other half, both ways: halved by the same inputs, classes that are low by chance would seem to have less to
    lose. With an odd number of classes that in the middle is in neither half.

    Args:
        y: (N,) classes.
        weaker: (N,) bool, the inputs that stand under the weaker attack.
        stronger: likewise under the other.
        seed: of the bootstrap of the difference.

    Returns:
        ``vulnerable`` and ``others``, the mean over their classes of the robust accuracy that is lost, both ways
        averaged; their ``difference`` with ``low`` and ``high``. None with fewer than two classes of two inputs.
    """
    y, weaker, stronger = y.cpu(), weaker.cpu().double(), stronger.cpu().double()
    members = [rows for k in torch.unique(y) if len(rows := (y == k).nonzero().flatten()) > 1]
    if len(members) < 2:
        return None
    count = len(members) // 2
    weight = torch.zeros(2, len(y), dtype=torch.float64)  # of each input in the two means
    for measured in range(2):
        shares = torch.stack([weaker[rows[1 - measured :: 2]].mean() for rows in members])
        order = shares.argsort(stable=True).tolist()
        for part, chosen in enumerate((order[:count], order[-count:])):
            for k in chosen:
                rows = members[k][measured::2]
                weight[part, rows] = 0.5 / (count * len(rows))
    lost = (weaker - stronger) * weight
    vulnerable, others = lost.sum(1).tolist()
    terms = (lost[0] - lost[1]) * len(y)
    low, high = bootstrap(len(y), lambda index: terms[index].mean(1), seed)
    return {"vulnerable": vulnerable, "others": others, "difference": vulnerable - others, "low": low, "high": high}


def _resampled(stands: Sequence[Tensor], seed: int) -> Tensor:
    """(2, B, K) robust accuracies of resampled inputs: of each class's (2, n) ``stands`` with replacement, in pairs."""
    random, columns = generator(seed, "classes"), []
    for part in stands:
        count = part.shape[1]
        step = max(1, _AT_ONCE // count)
        sizes = [min(step, _RESAMPLES - start) for start in range(0, _RESAMPLES, step)]
        draws = (torch.randint(count, (size, count), generator=random) for size in sizes)
        columns.append(torch.cat([part[:, index].mean(2) for index in draws], 1))
    return torch.stack(columns, -1)


def _kendall(a: Tensor, b: Tensor) -> Tensor:
    """(B,) Kendall's tau-b of the rows of two (B, K) tensors (Biometrika 33, 1945); NaN where a row is constant."""
    parts = []
    for one, other in _chunks(a, b):
        signs = [(values[:, :, None] - values[:, None, :]).sign().flatten(1) for values in (one, other)]
        sizes = [part.abs().sum(1) for part in signs]
        parts.append((signs[0] * signs[1]).sum(1) / (sizes[0] * sizes[1]).sqrt())
    return torch.cat(parts)


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    """(B,) Pearson's correlation of the ranks of two (B, K) tensors, ties sharing theirs; NaN where a row is constant.

    By row and batch, which `layers.correlation.spearman` is not.
    """
    parts = []
    for pair in _chunks(a, b):
        # Minus the mean rank: how many are below less how many are above, halved.
        ranks = [(values[:, :, None] - values[:, None, :]).sign().sum(2) for values in pair]
        sizes = [part.square().sum(1) for part in ranks]
        parts.append((ranks[0] * ranks[1]).sum(1) / (sizes[0] * sizes[1]).sqrt())
    return torch.cat(parts)


def _chunks(a: Tensor, b: Tensor) -> list[tuple[Tensor, Tensor]]:
    step = max(1, _AT_ONCE // a.shape[1] ** 2)
    return list(zip(torch.split(a, step), torch.split(b, step), strict=True))


def _same_worst(a: Tensor, b: Tensor) -> Tensor:
    """(B,) whether a class is the lowest, or ties for it, in both rows of two (B, K) tensors."""
    lowest = [values == values.amin(1, keepdim=True) for values in (a, b)]
    return (lowest[0] & lowest[1]).any(1)
