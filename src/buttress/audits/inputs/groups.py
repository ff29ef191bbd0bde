"""Groups of inputs that lie together in feature space."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FEW = 8  # inputs, below which there are no groups to tell
_MOST = 8  # groups
_FITTED = 1000  # inputs that the groups are made of; silhouettes compare all pairs
_CLEAR = 0.15  # the silhouette below which there is one group alone
_COMPONENTS = 16
_DIGITS = 4  # in units of the features' spread: what batches of another size change is rounded away


def groups(features: Tensor, seed: int = 0) -> tuple[Tensor, float | None]:
    """k-means over the first 16 principal components, with the number of groups chosen by the mean silhouette.

    The silhouette (Rousseeuw, 1987) compares each input's distance to its own group with that to the next one; where
    no number of groups from 2 to 8 has a mean above 0.15, or there are fewer than 8 inputs, all are one group.

    Args:
        features: (N, D).
        seed: of the starts of k-means.

    Returns:
        (N,) int64 groups, the largest being 0, and their mean silhouette; None for one group.
    """
    rows = np.asarray(features.detach().cpu().double())
    rows = rows - rows.mean(0)
    spread = float(rows.std())
    if len(rows) < _FEW or not 0 < spread < np.inf:
        return torch.zeros(len(rows), dtype=torch.int64), None
    labels, score = _best(np.round(_components(rows / spread), _DIGITS), seed)
    order = np.argsort(-np.bincount(labels), kind="stable")
    return torch.from_numpy(np.argsort(order, kind="stable")[labels]).long(), score


def _components(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of the principal components; their signs, which are arbitrary, change no distance."""
    left, sizes, _ = np.linalg.svd(rows, full_matrices=False)
    scores: NDArray[np.float64] = (left * sizes)[:, :_COMPONENTS]
    return np.where(scores[np.abs(scores).argmax(0), np.arange(scores.shape[1])] < 0, -scores, scores)


def _best(rows: NDArray[np.float64], seed: int) -> tuple[NDArray[np.int64], float | None]:
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    some = rows[np.linspace(0, len(rows) - 1, min(_FITTED, len(rows))).round().astype(int)]
    most = min(_MOST, len(np.unique(some, axis=0)) - 1, len(some) // 3)
    best: tuple[NDArray[np.int64], float | None] = (np.zeros(len(rows), dtype=np.int64), None)
    for count in range(2, most + 1):
        fitted = KMeans(count, n_init=4, random_state=seed).fit(some)
        if len(np.unique(fitted.labels_)) < 2:
            continue
        score = float(silhouette_score(some, fitted.labels_))
        if score > (best[1] if best[1] is not None else _CLEAR):
            best = fitted.predict(rows).astype(np.int64), score
    return best
