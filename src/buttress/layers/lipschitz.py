"""How much a function stretches small changes of its input: singular values of its Jacobian, without forming it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from buttress.layers.measures import power_of_two
from buttress.random import Random

TensorFunction = Callable[[Tensor], Tensor]

_NUMBERS = 2**25  # kept at once in the bases of the search: 128 MiB in float32


class Jacobian:
    """Products with the Jacobians J of a function at N points, one for each row, and with their transposes.

    J v is the derivative, by u, of J^T u in the direction v: two reverse passes do for any function that has a second
    derivative. Fused attention, which has none, is computed in its plain form meanwhile.

    Args:
        function: of (N, ...) tensors; its rows do not depend on each other.
        z: (N, ...) points.
        beside: what else the function takes, (N, ...) each, and holds constant.
    """

    def __init__(self, function: Callable[..., Tensor], z: Tensor, beside: Sequence[Tensor] = ()) -> None:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            self.z = z.detach().clone().requires_grad_()
            self.out = function(self.z.clone(), *beside)  # a copy, which the function may overwrite
            self._probe = torch.zeros_like(self.out, requires_grad=True)
            self._pulled: Tensor | None = None
            if self.out.requires_grad:
                (self._pulled,) = torch.autograd.grad(
                    self.out, self.z, self._probe, create_graph=True, materialize_grads=True
                )

    @property
    def square(self) -> bool:
        """Whether the output has as many numbers as the input."""
        return self.out[:1].numel() == self.z[:1].numel()

    def times(self, v: Tensor) -> Tensor:
        """(N, outputs) J v of (N, inputs) vectors."""
        if self._pulled is None or not self._pulled.requires_grad:
            return torch.zeros_like(self.out).flatten(1)
        (image,) = torch.autograd.grad(
            self._pulled, self._probe, v.view_as(self.z), retain_graph=True, materialize_grads=True
        )
        return image.flatten(1)

    def transposed_times(self, w: Tensor) -> Tensor:
        """(N, inputs) J^T w of (N, outputs) vectors."""
        if self._pulled is None:
            return torch.zeros_like(self.z).flatten(1)
        (image,) = torch.autograd.grad(self.out, self.z, w.view_as(self.out), retain_graph=True, materialize_grads=True)
        return image.flatten(1)

    def matrix(self) -> Tensor:
        """(N, outputs, inputs) J itself, by one reverse pass for each output."""
        rows = self.out.detach().flatten(1)
        units = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        return torch.stack([self.transposed_times(unit.expand_as(rows).contiguous()) for unit in units], dim=1)


@dataclass(frozen=True)
class Eigenpair:
    """The largest eigenvalue of N symmetric operators.

    Attributes:
        value: (N,), from below.
        vector: (N, D) its eigenvector, of length 1.
        converged: (N,) whether ``value`` is, within the tolerance, an eigenvalue.
    """

    value: Tensor
    vector: Tensor
    converged: Tensor


def largest_eigenvalue(apply: TensorFunction, start: Tensor, *, iterations: int, tolerance: float) -> Eigenpair:
    """The largest eigenvalue of a symmetric operator, by power iteration that remembers its iterates (Lanczos, 1950).

    The best value in the span of all iterates is taken in the place of the last one's: the same products with the
    operator, and far fewer of them where singular values lie close together. With full reorthogonalisation.

    Args:
        apply: (N, D) -> (N, D), the product of each row's operator with that row.
        start: (N, D), not 0.
        iterations: products at most.
        tolerance: enough where the residual is this share of the value or less.
    """
    count = min(iterations, start.shape[1])
    basis = start.new_zeros(len(start), count, start.shape[1])
    basis[:, 0] = start / start.norm(dim=1, keepdim=True)
    matrix = torch.zeros(len(start), count, count, dtype=torch.float64, device=start.device)
    alive = torch.ones(len(start), dtype=torch.bool, device=start.device)
    for k in range(count):
        so_far = basis[:, : k + 1]
        image = apply(basis[:, k])
        diagonal = (image * basis[:, k]).sum(1).double()
        # Once the space is exhausted what follows must be below all else: a quotient of Rayleigh less 1 or more.
        matrix[:, k, k] = torch.where(alive, diagonal, matrix[:, 0, 0] - 1 - matrix[:, 0, 0].abs())
        for _ in range(2):  # once is not enough in float32
            image = image - torch.einsum("nkd,nk->nd", so_far, torch.einsum("nkd,nd->nk", so_far, image))
        values, vectors = torch.linalg.eigh(matrix[:, : k + 1, : k + 1])
        remainder = image.norm(dim=1).double()
        scale = values.abs().amax(1)
        alive = alive & (remainder > 1e-6 * scale)
        remainder = torch.where(alive, remainder, 0)
        converged = remainder * vectors[:, -1, -1].abs() <= tolerance * scale
        if k + 1 == count or converged.all():
            break
        matrix[:, k, k + 1] = matrix[:, k + 1, k] = remainder
        basis[:, k + 1] = torch.where(alive[:, None], image / torch.where(alive, remainder, 1)[:, None], 0)
    vector = torch.einsum("nkd,nk->nd", so_far, vectors[:, :, -1].to(so_far.dtype))
    return Eigenpair(values[:, -1], vector, converged)


@dataclass(frozen=True)
class Stretch:
    """What the Jacobians J of a function at N points do to small changes; float64.

    Attributes:
        sigma: (N,) largest singular value of J.
        direction: (N, inputs) the change that is stretched most, of length 1.
        residual: (N,) largest singular value of I + J; None where J is not square, or not asked for.
        log_norm: (N,) logarithmic norm, the largest eigenvalue of (J + J^T) / 2; None likewise.
        converged: (N,) whether all these searches converged.
    """

    sigma: Tensor
    direction: Tensor
    residual: Tensor | None
    log_norm: Tensor | None
    converged: Tensor


def stretch(
    function: Callable[..., Tensor],
    z: Tensor,
    random: Random,
    *,
    beside: Sequence[Tensor] = (),
    residual: bool = True,
    iterations: int = 30,
    tolerance: float = 1e-3,
    starts: int = 2,
) -> Stretch:
    """The largest singular values of a function's Jacobians and their logarithmic norms.

    Args:
        function: of (N, ...) tensors; its rows do not depend on each other.
        z: (N, ...) points.
        random: of the points; gives the start vectors.
        beside: what else the function takes, (N, ...) each, and holds constant.
        residual: whether the function is one that is added to its input, so that I + J and the logarithmic norm mean
            something, too; three times the cost.
        iterations: products with J^T J, at most, from each start.
        tolerance: relative, of the singular values.
        starts: random start vectors; the largest outcome is taken.
    """
    size = max(1, _NUMBERS // max(1, iterations * z[:1].numel()))
    parts: list[Stretch] = []
    for rows in torch.split(torch.arange(len(z), device=z.device), size):
        jacobian = Jacobian(function, z[rows], [tensor[rows] for tensor in beside])
        chosen = random.only(rows.to(random.ids.device))
        vectors = [chosen.fork("start", k).normal((z[:1].numel(),), z.dtype).to(z.device) for k in range(starts)]
        parts.append(_stretch(jacobian, vectors, residual, iterations, tolerance))
    return _concatenated(parts)


def _stretch(jacobian: Jacobian, starts: list[Tensor], residual: bool, iterations: int, tolerance: float) -> Stretch:
    def largest(apply: TensorFunction) -> Eigenpair:
        # The square of a singular value has twice its relative error.
        pairs = [largest_eigenvalue(apply, s, iterations=iterations, tolerance=2 * tolerance) for s in starts]
        values = torch.stack([pair.value for pair in pairs])
        best, rows = values.argmax(0), torch.arange(values.shape[1], device=values.device)
        vectors = torch.stack([pair.vector for pair in pairs])[best, rows]
        converged = torch.stack([pair.converged for pair in pairs])[best, rows]
        return Eigenpair(values[best, rows], vectors, converged)

    # What is searched is divided by about its size, a power of two, which changes no digit: the square of a singular
    # value of 1e-25, or of 1e20, is no float32 number.
    size = _power_of_two(jacobian.times(starts[0]))
    size_of_shifted = torch.maximum(size, torch.ones_like(size))

    def gram(v: Tensor) -> Tensor:
        return _divided(jacobian.transposed_times(_divided(jacobian.times(v), size)), size)

    def shifted_gram(v: Tensor) -> Tensor:
        w = _divided(v, size_of_shifted) + _divided(jacobian.times(v), size_of_shifted)
        return _divided(w, size_of_shifted) + _divided(jacobian.transposed_times(w), size_of_shifted)

    def symmetric_part(v: Tensor) -> Tensor:
        return _divided(jacobian.times(v), 2 * size) + _divided(jacobian.transposed_times(v), 2 * size)

    def singular(pair: Eigenpair, size: Tensor) -> Tensor:
        return pair.value.clamp(min=0).sqrt() * size[:, 0]

    stretched = largest(gram)
    sigma, converged = singular(stretched, size), stretched.converged
    if not (residual and jacobian.square):
        return Stretch(sigma, stretched.vector, None, None, converged)
    shifted, symmetric = largest(shifted_gram), largest(symmetric_part)
    converged = converged & shifted.converged & symmetric.converged
    log_norm = symmetric.value * size[:, 0]
    return Stretch(sigma, stretched.vector, singular(shifted, size_of_shifted), log_norm, converged)


def _power_of_two(rows: Tensor) -> Tensor:
    """(N, 1) float64, a power of two near the largest value of each row; 1 where that is 0 or not finite."""
    return power_of_two(rows.double())


def _divided(rows: Tensor, by: Tensor) -> Tensor:
    """(N, ...) rows divided by powers of two that their own data type need not hold."""
    return (rows.double() / by).to(rows.dtype)


def _concatenated(parts: list[Stretch]) -> Stretch:
    def column(name: str) -> Iterator[Tensor]:
        return (getattr(part, name) for part in parts)

    square = parts[0].residual is not None
    return Stretch(
        torch.cat(list(column("sigma"))),
        torch.cat(list(column("direction"))),
        torch.cat(list(column("residual"))) if square else None,
        torch.cat(list(column("log_norm"))) if square else None,
        torch.cat(list(column("converged"))),
    )


def exact_singular_value(matrix: Tensor) -> Tensor:
    """(N,) largest singular value of (N, outputs, inputs) matrices, by their decomposition."""
    values: Tensor = torch.linalg.svdvals(matrix.double())
    return values[:, 0]


def upper_bound(matrix: Tensor) -> Tensor:
    """(N,) sqrt(||J||_1 ||J||_inf), which no singular value of (N, outputs, inputs) matrices exceeds."""
    sizes = matrix.double().abs()
    return (sizes.sum(1).amax(1) * sizes.sum(2).amax(1)).sqrt()
