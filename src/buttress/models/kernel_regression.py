"""Kernel ridge regression with the neural tangent kernel of a fully connected ReLU network, as a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.options import whole

# Nearer to 1 than this, the cosine of two inputs counts as 1: arccos has no finite slope there, and would turn the last
# digit of a cosine into the eighth of an angle.
_EDGE = 1e-12


def ntk(a: Tensor, b: Tensor, depth: int = 2, weight_variance: float = 2.0, bias_variance: float = 0.01) -> Tensor:
    """The neural tangent kernel of an infinitely wide fully connected ReLU network, in closed form.

    Jacot et al., NeurIPS 2018, with the arc-cosine kernels of Cho and Saul, NeurIPS 2009. The network has ``depth``
    hidden layers, each unit sum(w v) sqrt(weight_variance / fan-in) + sqrt(bias_variance) b with standard normal w and
    b, and a linear output of the same form. Gradients are finite for equal inputs, too: there the first
    arc-cosine kernel has its true slope, and that of order 0, which has a kink, the slope 0.

    Args:
        a: (N, ...) inputs, flattened.
        b: (M, ...) inputs with as many numbers each.
        depth: hidden layers; 0 gives the linear kernel.
        weight_variance: 2 keeps the size of what passes through a ReLU.
        bias_variance: 0 leaves the biases out.

    Returns:
        (N, M) float64.

    Raises:
        UserError: when the inputs have different numbers of features.
    """
    rows, columns = a.flatten(1).double(), b.flatten(1).double()
    if rows.shape[1] != columns.shape[1]:
        raise UserError(f"the kernel compares inputs of {columns.shape[1]} numbers each; got {rows.shape[1]}")
    scale = weight_variance / rows.shape[1]
    covariance = scale * rows @ columns.T + bias_variance
    row_variance = scale * rows.square().sum(1) + bias_variance
    column_variance = scale * columns.square().sum(1) + bias_variance
    tangent = covariance
    for _ in range(depth):
        size = (row_variance[:, None] * column_variance).clamp(min=1e-300).sqrt()
        angle = _angle(covariance / size)
        slope = weight_variance / (2 * math.pi) * (math.pi - angle)  # the kernel of order 0
        # size * cos(angle) is written as the covariance, so that its slope does not pass through the angle.
        covariance = weight_variance / (2 * math.pi) * size * angle.sin() + slope * covariance + bias_variance
        tangent = covariance + slope * tangent
        row_variance, column_variance = (
            weight_variance / 2 * variance + bias_variance for variance in (row_variance, column_variance)
        )
    return tangent


def _angle(cosine: Tensor) -> Tensor:
    """arccos, constant within `_EDGE` of its ends."""
    edge = cosine.abs() >= 1 - _EDGE
    ends = (1 - cosine.detach().sign()) * math.pi / 2
    return torch.where(edge, ends, cosine.masked_fill(edge, 0.0).acos())


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Which kernel a regression uses, and how much it is smoothed.

    Args:
        depth: hidden layers of the network whose tangent kernel it is.
        weight_variance: see `ntk`.
        bias_variance: see `ntk`.
        ridge: added to the diagonal of the support's kernel, as a share of the diagonal's mean.

    Raises:
        UserError: for numbers that give no positive definite kernel.
    """

    depth: int = 2
    weight_variance: float = 2.0
    bias_variance: float = 0.01
    ridge: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what is no kernel."""
        whole("depth", self.depth, 0)
        if not 0 < self.weight_variance < math.inf or not 0 <= self.bias_variance < math.inf:
            told = f"{self.weight_variance} and {self.bias_variance}"
            raise UserError(f"weight_variance must be positive and bias_variance 0 or more, both finite; got {told}")
        if not 0 <= self.ridge < math.inf:
            raise UserError(f"ridge must be a finite number of 0 or more; got {self.ridge}")

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, M) float64 kernel of inputs (N, ...) with inputs (M, ...)."""
        return ntk(a, b, self.depth, self.weight_variance, self.bias_variance)

    def coefficients(self, support: Tensor, labels: Tensor) -> Tensor:
        """(M, C) float64: what multiplies the kernel of an input with the support; differentiable in both.

        Args:
            support: (M, ...) inputs.
            labels: (M, C) their outputs.

        Raises:
            UserError: when the support's kernel cannot be inverted, as with equal points and no ridge.
        """
        gram = self(support, support)
        diagonal = self.ridge * gram.diagonal().mean()
        factor, failed = torch.linalg.cholesky_ex(gram + diagonal * torch.eye(len(gram)).to(gram))
        if bool(failed):
            raise UserError(
                f"the kernel of the {len(gram)} support points is singular with ridge {self.ridge}: "
                "raise the ridge, or take out points that are there twice"
            )
        return torch.cholesky_solve(labels.double(), factor)


class KernelRegression(nn.Module):
    """Kernel ridge regression on a support set, whose outputs are taken as logits.

    f(x) = K(x, S) (K(S, S) + ridge * mean of the diagonal * I)^-1 Y. All of it is computed in float64 and handed on in
    the inputs' dtype. Nothing is kept between calls, so that it is differentiable in the inputs, the support and the
    labels alike: a call costs a factorisation, M^3 / 3 operations, and N M evaluations of the kernel.

    Support and labels are parameters. Labels whose rows sum to 0 (one-hot minus 1 / C) are recommended: outputs that
    sum to 1 would be taken for probabilities.

    Args:
        support: (M, ...) inputs, floats.
        labels: (M, C) outputs wanted for them, floats.
        kernel: which kernel, and its ridge.

    Raises:
        UserError: for shapes that do not fit; when called, for inputs of another number of features.
    """

    def __init__(self, support: Tensor, labels: Tensor, kernel: Kernel = Kernel()) -> None:
        super().__init__()
        if support.dim() < 2 or labels.dim() != 2 or len(support) != len(labels) or not len(support):
            told = f"{tuple(support.shape)} and {tuple(labels.shape)}"
            raise UserError(f"a support set is (M, ...) inputs with (M, C) labels, M of 1 or more; got {told}")
        self.support = nn.Parameter(support.detach().clone())
        self.labels = nn.Parameter(labels.detach().clone())
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) outputs for inputs (N, ...), in their dtype."""
        return (self.kernel(x, self.support) @ self.kernel.coefficients(self.support, self.labels)).to(x.dtype)

    def extra_repr(self) -> str:
        """The support's shape, the classes and the kernel."""
        return f"{tuple(self.support.shape)}, classes={self.labels.shape[1]}, {self.kernel}"


def centred(y: Tensor, classes: int) -> Tensor:
    """(N, C) float64 labels of classes (N,): one-hot minus 1 / C, so that each row sums to 0."""
    return torch.nn.functional.one_hot(y, classes).double() - 1 / classes


def kernel_regression(
    *,
    features: int = 2,
    classes: int = 2,
    points: int = 100,
    depth: int = 2,
    weight_variance: float = 2.0,
    bias_variance: float = 0.01,
    ridge: float = 1e-6,
) -> KernelRegression:
    """A kernel regression that has learned nothing yet: uniform random points in [0, 1], classes in turn.

    As ``models.create("buttress.models.kernel_regression:kernel_regression", features=64)`` it is made, saved and read
    back like any other model.

    Args:
        features: numbers per input; images are flattened.
        classes: number of classes.
        points: of the support set.
        depth: see `Kernel`, like the rest.
        weight_variance: see `Kernel`.
        bias_variance: see `Kernel`.
        ridge: see `Kernel`.
    """
    points, classes = whole("points", points, 1), whole("classes", classes, 2)
    kernel = Kernel(depth=depth, weight_variance=weight_variance, bias_variance=bias_variance, ridge=ridge)
    labels = centred(torch.arange(points) % classes, classes).float()
    return KernelRegression(torch.rand(points, whole("features", features, 1)), labels, kernel)
