"""Directions between classes in a latent space: those of LADDER and the baselines it is compared with."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from buttress.attacks.unrestricted.latent_step import Directions, RandomDirections, unit
from buttress.defences.ladder.support_vector_machines import AttentionSVM, SVMSettings, attention, fit
from buttress.errors import UserError
from buttress.random import Random, derive, generator
from buttress.validation import one_of

Direction = Literal["attention", "svm", "closest", "random", "svm-noise"]


class BoundaryDirections(Directions):
    """``a(z) * w`` of the machine of each ordered pair of classes (Zhou et al., Machine Learning 2022, stage 3).

    Memory: with attention C(C - 1)(d^2 + 2d) numbers for C classes, 90 MB for 10 and d = 500; without it C(C - 1)d.

    Args:
        machines: one for each of `pairs`, in their order.
        classes: how many classes there are.
        normalize: whether w is scaled to length 1, before the attention.
        noise: standard deviation of normal numbers that are added to w.
    """

    w: Tensor
    bias: Tensor
    A: Tensor | None
    b: Tensor | None
    normalize: Tensor
    noise: Tensor

    def __init__(self, machines: AttentionSVM, classes: int, normalize: bool = False, noise: float = 0.0) -> None:
        super().__init__()
        self.classes = classes
        self.register_buffer("w", machines.w)
        self.register_buffer("bias", machines.bias)
        self.register_buffer("A", machines.A)
        self.register_buffer("b", machines.b)
        self.register_buffer("normalize", torch.tensor(normalize))
        self.register_buffer("noise", torch.tensor(noise, dtype=torch.float64))

    def index(self, y: Tensor, target: Tensor) -> Tensor:
        """(N,) which machine is for moves from ``y`` to ``target``; they must differ."""
        return y * (self.classes - 1) + target - (target > y).to(y.dtype)

    def machine(self, source: int, target: int) -> AttentionSVM:
        """The machine of one ordered pair, as P = 1."""
        whole = AttentionSVM(self.w, self.bias, self.A, self.b)
        return one(whole, pairs(self.classes).index((source, target)))

    def attention(self, z: Tensor, index: Tensor) -> Tensor:
        """(N, d) attention of each vector under the machine with its index; ones where there is none."""
        weights = torch.ones_like(z)
        if self.A is not None and self.b is not None:
            for at in sorted(set(index.tolist())):  # pair by pair: no copy of A for each vector
                rows = index == at
                weights[rows] = attention(z[rows][None], self.A[at][None].to(z), self.b[at][None].to(z))[0]
        return weights

    def forward(self, z: Tensor, y: Tensor, target: Tensor, random: Random) -> Tensor:
        """(N, d) moves towards the target; 0 from a class to itself."""
        index = self.index(y, target).clamp(0, len(self.w) - 1)  # a class to itself may have none
        w = self.w[index].to(z.dtype)
        if self.noise:
            w = w + float(self.noise) * random.normal(z.shape[1:], z.dtype)
        if self.normalize:
            w = unit(w)
        return torch.where((y != target)[:, None], self.attention(z, index) * w, 0.0)


class ClosestDirections(Directions):
    """From a vector to the nearest known one of the target class; ``eps`` 1 arrives there.

    Args:
        z: (M, d) known vectors.
        y: (M,) their classes.
        normalize: whether each direction is scaled to length 1.
    """

    known: Tensor
    labels: Tensor
    normalize: Tensor

    def __init__(self, z: Tensor, y: Tensor, normalize: bool = False) -> None:
        super().__init__()
        self.register_buffer("known", z)
        self.register_buffer("labels", y)
        self.register_buffer("normalize", torch.tensor(normalize))

    def forward(self, z: Tensor, y: Tensor, target: Tensor, random: Random) -> Tensor:
        """(N, d) differences; 0 where no vector of the target is known."""
        known = self.known.to(z.dtype)
        # Differences themselves, not dot products: the distances of near neighbours would cancel.
        distance = torch.cdist(z, known, compute_mode="donot_use_mm_for_euclid_dist")
        distance = distance.masked_fill(self.labels != target[:, None], torch.inf)
        nearest = distance.min(1)
        moves = torch.where(nearest.values.isfinite()[:, None], known[nearest.indices] - z, 0.0)
        return unit(moves) if self.normalize else moves


def fit_directions(
    kind: Direction,
    z: Tensor,
    y: Tensor,
    classes: int,
    *,
    seed: int,
    svm: SVMSettings = SVMSettings(),
    normalize: bool = False,
    held_out: float = 0.33,
) -> tuple[Directions, float | None]:
    """Directions of one kind, fitted on the latent vectors of all classes.

    Each machine learns from a share of its two classes' vectors and is judged on the rest. Ordered pairs have machines
    of their own, both of them kept; the linear ones of scikit-learn serve both orders, with opposite signs.

    Args:
        kind: "attention" is LADDER's; "svm" the weights of ``sklearn.svm.LinearSVC`` (C = 1); "svm-noise" those plus
            normal numbers of standard deviation 0.01; "closest" leads to the nearest vector of the target class;
            "random" is normal with standard deviation 0.1.
        z: (N, d) vectors.
        y: (N,) their classes.
        classes: how many classes there are.
        seed: of starts, orders and the split.
        svm: of the attention machines.
        normalize: whether directions are scaled to length 1 (attention: w is, before it).
        held_out: share of each class's vectors that machines are judged on.

    Returns:
        The directions, and the machines' mean accuracy on the vectors held out; None without machines.

    Raises:
        UserError: for an unknown kind, and where a class has fewer than 2 vectors.
    """
    check_direction(kind)
    z, y = z.detach(), y.to(z.device)
    if kind == "random":
        return RandomDirections(normalize=normalize), None
    if kind == "closest":
        return ClosestDirections(z, y, normalize), None
    learn, judge = _parts(y, classes, held_out, seed)
    samples = [_pair(learn, y, *pair) for pair in pairs(classes)]
    if kind == "attention":
        rows, signs = (pad_sequence(list(part), batch_first=True) for part in zip(*samples, strict=True))
        machines = fit(z[rows], signs, svm, derive(seed, "machines"))
    else:
        machines = _linear_machines(z, samples, classes, derive(seed, "svc") % 2**31)
    accuracies = []
    for index, pair in enumerate(pairs(classes)):
        rows, signs = _pair(judge, y, *pair)
        accuracies.append(float((one(machines, index).score(z[rows][None])[0] * signs > 0).double().mean()))
    noise = 0.01 if kind == "svm-noise" else 0.0
    return BoundaryDirections(machines, classes, normalize, noise), sum(accuracies) / len(accuracies)


def one(machines: AttentionSVM, index: int) -> AttentionSVM:
    """One of several machines, as P = 1."""
    at = slice(index, index + 1)
    A, b = (None if value is None else value[at] for value in (machines.A, machines.b))
    return AttentionSVM(machines.w[at], machines.bias[at], A, b)


def pairs(classes: int) -> list[tuple[int, int]]:
    """All ordered pairs (source, target) of different classes."""
    return [(source, target) for source in range(classes) for target in range(classes) if source != target]


def check_direction(kind: str) -> None:
    """Refuse an unknown kind of direction.

    Raises:
        UserError: naming those there are.
    """
    one_of("direction", kind, get_args(Direction))


def linear(z: Tensor, sign: Tensor, seed: int) -> AttentionSVM:
    """A machine without attention: scikit-learn's LinearSVC with C = 1, as P = 1.

    Args:
        z: (N, d) vectors.
        sign: (N,) -1 or 1.
        seed: of liblinear's coordinate order.
    """
    from sklearn.svm import LinearSVC

    machine = LinearSVC(C=1.0, random_state=seed, max_iter=100_000).fit(z.cpu().double().numpy(), sign.cpu().numpy())
    return AttentionSVM(torch.from_numpy(machine.coef_).to(z), torch.from_numpy(machine.intercept_).to(z))


def _linear_machines(z: Tensor, samples: list[tuple[Tensor, Tensor]], classes: int, seed: int) -> AttentionSVM:
    """One machine for both orders of two classes, with opposite signs."""
    by_pair: dict[tuple[int, int], AttentionSVM] = {}
    for (source, target), (rows, signs) in zip(pairs(classes), samples, strict=True):
        opposite = by_pair.get((target, source))
        by_pair[source, target] = (
            linear(z[rows], signs, seed) if opposite is None else AttentionSVM(-opposite.w, -opposite.bias)
        )
    machines = by_pair.values()
    return AttentionSVM(torch.cat([m.w for m in machines]), torch.cat([m.bias for m in machines]))


def _parts(y: Tensor, classes: int, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to learn from and rows to judge on, both with every class."""
    learn, judge = [], []
    for label in range(classes):
        rows = (y == label).nonzero().squeeze(1)
        if len(rows) < 2:
            raise UserError(f"directions between classes need 2 or more inputs of each; class {label} has {len(rows)}")
        order = torch.randperm(len(rows), generator=generator(seed, "held out", label))
        rows = rows[order.to(rows.device)]
        count = min(max(1, round(held_out * len(rows))), len(rows) - 1)
        judge.append(rows[:count])
        learn.append(rows[count:])
    return torch.cat(learn), torch.cat(judge)


def _pair(rows: Tensor, y: Tensor, source: int, target: int) -> tuple[Tensor, Tensor]:
    """The rows of two classes, and -1 for the source, 1 for the target."""
    rows = rows[(y[rows] == source) | (y[rows] == target)]
    return rows, torch.where(y[rows] == target, 1.0, -1.0)
