"""Kernel ridge regression with the neural tangent kernel of a ReLU network, as a classifier."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.float64 import above_zero
from buttress.models.blocks.conv_kernel import angle_of, conv_ntk
from buttress.validation import not_negative, one_of, positive, whole

Kind = Literal["fc", "conv"]


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
        size = above_zero(row_variance[:, None] * column_variance).sqrt()
        angle = angle_of(covariance / size)
        slope = weight_variance / (2 * math.pi) * (math.pi - angle)  # the kernel of order 0
        # size * cos(angle) is written as the covariance, so that its slope does not pass through the angle.
        covariance = weight_variance / (2 * math.pi) * size * angle.sin() + slope * covariance + bias_variance
        tangent = covariance + slope * tangent
        row_variance, column_variance = (
            weight_variance / 2 * variance + bias_variance for variance in (row_variance, column_variance)
        )
    return tangent


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Which kernel a regression uses, and how much it is smoothed.

    Args:
        kind: "fc" is `ntk`, of a fully connected network; "conv" is `buttress.models.blocks.conv_kernel.conv_ntk`, of a
            convolutional one, for images alone, whose cost has a factor of the images' pixels.
        depth: hidden layers, or convolutions, of the network whose tangent kernel it is.
        weight_variance: see `ntk`.
        bias_variance: see `ntk`.
        ridge: added to the diagonal of the support's kernel, as a share of the diagonal's mean.

    Raises:
        UserError: for an unknown kind, and for numbers that give no positive definite kernel.
    """

    kind: Kind = "fc"
    depth: int = 2
    weight_variance: float = 2.0
    bias_variance: float = 0.01
    ridge: float = 1e-6

    def __post_init__(self) -> None:
        """Refuse what is no kernel."""
        one_of("kernel", self.kind, get_args(Kind))
        whole("depth", self.depth, 0)
        positive("weight_variance", self.weight_variance)
        not_negative("bias_variance", self.bias_variance)
        not_negative("ridge", self.ridge)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(N, M) float64 kernel of inputs (N, ...) with inputs (M, ...)."""
        function = conv_ntk if self.kind == "conv" else ntk
        return function(a, b, self.depth, self.weight_variance, self.bias_variance)

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
    the inputs' dtype. In training mode nothing is kept between calls: it is differentiable in the inputs, the support
    and the labels alike, and a call costs the kernel of the support with itself, a factorisation, M^3 / 3 operations,
    and N M evaluations of the kernel. In evaluation mode support and labels are constants; what multiplies the kernel
    is computed once, and again when either or the kernel has changed.

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
            shapes = f"{tuple(support.shape)} and {tuple(labels.shape)}"
            raise UserError(f"a support set is (M, ...) inputs with (M, C) labels, M of 1 or more; got {shapes}")
        self.support = nn.Parameter(support.detach().clone())
        self.labels = nn.Parameter(labels.detach().clone())
        self.kernel = kernel
        # The kernel, copies of support and labels, and the coefficients.
        self._cache: tuple[Kernel, Tensor, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) outputs for inputs (N, ...), in their dtype."""
        support: Tensor = self.support
        labels: Tensor = self.labels
        if support[0].numel() == math.prod(x.shape[1:]):
            support = support.reshape(len(support), *x.shape[1:])
        if self.training:
            return (self.kernel(x, support) @ self.kernel.coefficients(support, labels)).to(x.dtype)
        support = support.detach()
        return (self.kernel(x, support) @ self._constant(support, labels.detach())).to(x.dtype)

    def _constant(self, support: Tensor, labels: Tensor) -> Tensor:
        """The coefficients of this support, those of the last call where it is the same."""
        if self._cache is not None:
            kernel, points, values, coefficients = self._cache
            if kernel == self.kernel and _same(points, support) and _same(values, labels):
                return coefficients
        with torch.inference_mode(False), torch.no_grad():  # the cache may be used with gradients later
            coefficients = self.kernel.coefficients(support, labels)
            self._cache = (self.kernel, support.clone(), labels.clone(), coefficients)
        return coefficients

    def extra_repr(self) -> str:
        """The support's shape, the classes and the kernel."""
        return f"{tuple(self.support.shape)}, classes={self.labels.shape[1]}, {self.kernel}"


def _same(cached: Tensor, now: Tensor) -> bool:
    """Whether two tensors have the same numbers, of one kind, on one device."""
    alike = (cached.shape, cached.dtype, cached.device) == (now.shape, now.dtype, now.device)
    return alike and torch.equal(cached, now)


def centred(y: Tensor, classes: int) -> Tensor:
    """(N, C) float64 labels of classes (N,): one-hot minus 1 / C, so that each row sums to 0."""
    return torch.nn.functional.one_hot(y, classes).double() - 1 / classes


def kernel_regression(
    *,
    features: int = 2,
    classes: int = 2,
    points: int = 100,
    kernel: Kind = "fc",
    depth: int = 2,
    weight_variance: float = 2.0,
    bias_variance: float = 0.01,
    ridge: float = 1e-6,
) -> KernelRegression:
    """A kernel regression that has learned nothing yet: uniform random points in [0, 1], classes in turn.

    As ``models.create("buttress.models.blocks.kernel_regression:kernel_regression", features=64)`` it is made, saved
    and read back like any other model.

    Args:
        features: numbers per input; images are flattened.
        classes: number of classes.
        points: of the support set.
        kernel: "fc" or "conv", see `Kernel`, like the rest; images keep their shape for "conv".
        depth: see `Kernel`.
        weight_variance: see `Kernel`.
        bias_variance: see `Kernel`.
        ridge: see `Kernel`.
    """
    points, classes = whole("points", points, 1), whole("classes", classes, 2)
    of_network = Kernel(
        kind=kernel, depth=depth, weight_variance=weight_variance, bias_variance=bias_variance, ridge=ridge
    )
    labels = centred(torch.arange(points) % classes, classes).float()
    return KernelRegression(torch.rand(points, whole("features", features, 1)), labels, of_network)
