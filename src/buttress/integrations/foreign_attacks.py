"""Attacks of torchattacks, foolbox and ART as attacks of this package, for audits, comparisons and training alike.

Their searches are run as they are; what they return is projected into the threat and judged by the network itself in
float32, as any attack's result is, so a library's own verdict, bounds and rounding play no part. None of the libraries
is imported before an attack of it runs, and none is needed for the rest.
"""

from __future__ import annotations

import random as python_random
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import Function

from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.random import Random
from buttress.threat import NOT_GIVEN, Threat

Make = Callable[[Any, Threat], Any]


class _Network(nn.Module):
    """The network under attack as other libraries call it: logits of a batch; its passes are counted.

    It has one weight, by which libraries tell the device, and not the network's own, which they might change.
    """

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros((), device=oracle.x.device), requires_grad=False)
        self._runner = oracle.runner
        self.forwards = self.backwards = 0  # of single inputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) logits."""
        logits: Tensor = cast(Any, _Pass).apply(x, self)  # untyped in torch
        return logits

    def ask(self, x: Tensor) -> Tensor:
        """The pass itself."""
        self.forwards += len(x)
        logits: Tensor = self._runner.task.read(call_model(self._runner.model, x))
        return logits


class _Pass(Function):
    """A pass whose gradient ends at the inputs: ``loss.backward()`` leaves none at the network's weights.

    Libraries go back through one pass several times, as for the gradients of all classes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, network: _Network) -> Tensor:
        """(N, C) logits, and where they came from."""
        ctx.network, ctx.x = network, x.detach().requires_grad_(ctx.needs_input_grad[0])
        with torch.set_grad_enabled(ctx.needs_input_grad[0]):
            ctx.logits = network.ask(ctx.x)
        return cast(Tensor, ctx.logits.detach())

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[Tensor, None]:
        """(N, ...) the gradient for the inputs."""
        ctx.network.backwards += len(ctx.x)
        (slope,) = torch.autograd.grad(ctx.logits, ctx.x, slopes[0], retain_graph=True)
        return slope, None


class ForeignAttack(Attack):
    """An attack of another library; its classes say how that library calls a network and is called.

    Args of all of them:
        make: (network or what the library makes of it, threat) -> the library's attack. The threat is the one at hand,
            which an audit changes from budget to budget: give its ``eps`` on to attacks that want it at their making.
        threat: what is allowed; the job's unless given.
        name: shown beside the library's in tables; that of the attack's class is not known before it is made.

    The library draws from torch's, NumPy's and Python's own generators, for the batch as a whole: results depend on
    ``seed`` and the batch, not on the input alone. Passes are counted for the batch and spread over its inputs, rounded
    up. The search is in float32.
    """

    by_input = False
    exact = True
    needs_classes = True
    library: ClassVar[str]

    make: Make
    name: str = ""

    def label(self) -> str:
        """The library, and the name that was given."""
        return f"{self.library} {self.name}".strip()

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What the library's attack returns.

        Raises:
            UserError: where the library is not installed, for a target, and for results of another shape or that are
                no numbers.
        """
        if oracle.target is not None:
            raise UserError(f"{self.label()} is run untargeted: its own targets are given where it is made")
        classes = oracle.logits(x).shape[1]
        network = _Network(oracle).eval()
        with _own_generators(random), torch.enable_grad():
            points = self._run(network, x.detach().clone(), y, classes)
        each = len(x)
        oracle.ledger.count(slice(None), -(-network.forwards // each), -(-network.backwards // each))
        if not isinstance(points, Tensor) or points.shape != x.shape:
            what = f"shape {tuple(points.shape)}" if isinstance(points, Tensor) else f"a {type(points).__name__}"
            raise UserError(f"{self.label()} must return inputs of shape {tuple(x.shape)}; got {what}")
        points = points.detach().to(x)
        if not bool(points.isfinite().all()):
            raise UserError(f"{self.label()} returned values that are no numbers, which would count as robust")
        return points

    @abstractmethod
    def _run(self, network: nn.Module, x: Tensor, y: Tensor, classes: int) -> Any:
        """(N, ...) what the library finds."""

    def _library(self, package: str, distribution: str) -> Any:
        try:
            return import_module(package)
        except ImportError as error:
            raise UserError(f"{self.label()} needs {distribution}: pip install {distribution} ({error})") from None

    def _bounds(self) -> tuple[float, float]:
        box = self.threat.box
        if box is None or any(isinstance(end, Tensor) for end in box):
            raise UserError(f"{self.label()} needs one box for all features, such as box=(0, 1); got {box}")
        return float(box[0]), float(box[1])


@dataclass(frozen=True, kw_only=True)
class TorchAttack(ForeignAttack):
    """An attack of torchattacks: ``TorchAttack(make=lambda net, threat: torchattacks.PGD(net, eps=threat.eps))``.

    Its attacks take inputs in [0, 1], so the threat's box must lie there. Arguments as in `ForeignAttack`.
    """

    library = "torchattacks"

    make: Make
    threat: Threat = NOT_GIVEN
    name: str = ""

    def _run(self, network: nn.Module, x: Tensor, y: Tensor, classes: int) -> Any:
        low, high = self._bounds()
        if low < 0 or high > 1:
            raise UserError(f"{self.label()} takes inputs in [0, 1]; got a box of {low:g} to {high:g}")
        return self.make(network, self.threat)(x, y)


@dataclass(frozen=True, kw_only=True)
class FoolboxAttack(ForeignAttack):
    """An attack of foolbox: ``FoolboxAttack(make=lambda net, threat: foolbox.attacks.LinfPGD(steps=20))``.

    It is called with the threat's eps, or none where that is infinite. Arguments as in `ForeignAttack`.
    """

    library = "foolbox"

    make: Make
    threat: Threat = NOT_GIVEN
    name: str = ""

    def _run(self, network: nn.Module, x: Tensor, y: Tensor, classes: int) -> Any:
        foolbox = self._library("foolbox", "foolbox")
        wrapped = foolbox.PyTorchModel(network, bounds=self._bounds(), device=x.device)
        eps = None if self.threat.eps == float("inf") else self.threat.eps
        _, points, _ = self.make(wrapped, self.threat)(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=eps)
        return points


@dataclass(frozen=True, kw_only=True)
class ARTAttack(ForeignAttack):
    """An attack of the Adversarial Robustness Toolbox, made from its ``PyTorchClassifier``.

    ``ARTAttack(make=lambda net, threat: ProjectedGradientDescent(net, eps=threat.eps, eps_step=threat.eps / 4))``.
    Arguments as in `ForeignAttack`.
    """

    library = "ART"

    make: Make
    threat: Threat = NOT_GIVEN
    name: str = ""

    def _run(self, network: nn.Module, x: Tensor, y: Tensor, classes: int) -> Any:
        estimators = self._library("art.estimators.classification", "adversarial-robustness-toolbox")
        classifier = estimators.PyTorchClassifier(
            model=network,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=classes,
            clip_values=self._bounds(),
            device_type="gpu" if x.is_cuda else "cpu",
        )
        points = self.make(classifier, self.threat).generate(x=x.cpu().numpy(), y=y.cpu().numpy())
        return torch.as_tensor(points) if isinstance(points, np.ndarray) else points


@contextmanager
def _own_generators(random: Random) -> Iterator[None]:
    """NumPy's and Python's generators from a seed of this batch's; torch's the engine sets and restores itself."""
    seed = int(random.integers(2**31).sum()) % 2**32
    shared = np.random.mtrand._rand  # what np.random.rand and its like draw from
    numpy_state, python_state = shared.get_state(), python_random.getstate()
    try:
        shared.seed(seed)
        python_random.seed(seed)
        yield
    finally:
        shared.set_state(numpy_state)
        python_random.setstate(python_state)
