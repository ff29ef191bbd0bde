"""Nonlinear conjugate gradients in function space, for standalone neural ODEs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from buttress.data.dataset import Dataset
from buttress.defences.adv_kip.defence import normalisation
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, Step, StepContext
from buttress.defences.snode.conjugate_gradients import RULES, Direction, Energy, Rule, conjugacy, dot
from buttress.errors import UserError
from buttress.models.architectures.snode import SNODE
from buttress.models.blocks.snode_problems import Trajectory, adjoint, direct, sobolev_matrix, weight_sensitivity
from buttress.registry import defence
from buttress.validation import not_negative, number, one_of, positive, whole


@defence("snode-ncg")
class SnodeNCG(Defence):
    """Conjugate gradients on each batch, for a network of the model ``snode`` (Jaroudi et al., arXiv 2205.13933).

    Each iteration solves the direct and the adjoint problem, which give the gradient of E with respect to W(t) and
    b(t), in L2 or, so that they stay smooth, in the Sobolev space H1; makes it conjugate to the last direction; solves
    the sensitivity problem along it; and moves to where E is smallest, the output taken as linear in the step. What is
    known of the last direction is forgotten at each batch, so training has no state of its own, and the trainer's
    optimiser, its learning rate and its schedule are not used. For E see `conjugate_gradients.Energy`.

    The step is exact only for that linear output, so it has a longest length, and is halved while E rises; where
    halving does not help the batch is left. A direction that does not lead downwards gives way to the gradient's
    negative. These guards are our own. Norms in gamma are those of L2, of Sobolev gradients too. W and b are moved in
    the weights' precision, whatever the trainer's is. A wrapper's own loss has no influence.

    Cost: 2 forwards at the start, and 1 backward, 1 pass of the sensitivity problem and 1 forward per iteration, with a
    further forward for each halving.

    Args:
        iterations: on each batch.
        sobolev: whether gradients are those of H1.
        gamma: how directions are made conjugate: "fr" as published, "pr" (safer on small batches), "fr-pr", "hs",
            "dy", or "none" for steepest descent.
        mu1: weight of the squared distance to the target in E.
        mu2: of the cross-entropy.
        mu3: of the squared distance to T sigma(0).
        mu4: of the squared size of W and b, integrated over time.
        low: the target's value for the other classes; beyond the classes it is 0.
        high: for the true class.
        longest: the largest step.
        halvings: of a step at which E rises, at most.
    """

    paper = "Jaroudi et al., arXiv 2205.13933"
    perturbed_pass = False

    def __init__(
        self,
        iterations: int = 6,
        sobolev: bool = True,
        gamma: Rule = "fr",
        mu1: float = 1.0,
        mu2: float = 0.0,
        mu3: float = 0.0,
        mu4: float = 0.0,
        low: float = 0.0,
        high: float = 1.0,
        longest: float = 10.0,
        halvings: int = 10,
    ) -> None:
        super().__init__()
        whole("iterations", iterations)
        whole("halvings", halvings, 0)
        one_of("gamma", gamma, RULES)
        for name, weight in (("mu1", mu1), ("mu2", mu2), ("mu3", mu3), ("mu4", mu4)):
            not_negative(name, weight)
        if not mu1 + mu2 + mu3 > 0:
            raise UserError("one of mu1, mu2 and mu3 must be above 0; got 0 for all")
        positive("longest", longest)
        number("low", low)
        number("high", high)
        self.iterations, self.sobolev, self.gamma = iterations, sobolev, gamma
        self.mu1, self.mu2, self.mu3, self.mu4 = mu1, mu2, mu3, mu4
        self.low, self.high, self.longest, self.halvings = low, high, longest, halvings

    @property
    def energy(self) -> Energy:
        """E."""
        return Energy(self.mu1, self.mu2, self.mu3, self.mu4, self.low, self.high)

    @property
    def cost(self) -> Cost:
        """As many passes as are made where no step is halved."""
        return Cost(crafting=0, training=2 + 3 * self.iterations, objectives=self.iterations)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Look at the network.

        Raises:
            UserError: for one that is no ``snode``.
        """
        _parts(model)
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """E, which can be differentiated as usual."""
        view, net = _parts(model)
        return Loss(self.energy.value(net, net.end(net.encode(view(batch.x))), batch.y))

    def step(self, step: Step) -> None:
        """All iterations on one batch.

        Raises:
            UserError: for a network that is no ``snode``, and where several processes train.
        """
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        if together and torch.distributed.get_world_size() > 1:
            raise UserError("snode-ncg searches for its step on whole batches: train in one process")
        view, net = _parts(step.model)
        loss = step.loss()
        # For the log, and the check that it is finite; there is nothing to differentiate.
        step.backward(Loss(loss.value.detach().requires_grad_(), loss.logs))
        self.descend(net, net.encode(view(step.batch.x)).detach(), step.batch.y)
        step.optimizer.zero_grad()  # so that the optimiser leaves the weights where they are
        step.apply()

    def descend(self, net: SNODE, start: Tensor, y: Tensor) -> list[float]:
        """Conjugate gradients on one batch, in place; E before, and after each iteration that lowered it.

        Args:
            net: the network.
            start: (B, d) states at time 0.
            y: (B,) classes.
        """
        path = direct(net, start)
        values = [float(self.energy.value(net, path.end, y).detach())]
        direction: Direction | None = None
        before: Direction | None = None
        for _ in range(self.iterations):
            plain, slope = self._gradients(net, path, y)
            turn = 0.0
            if direction is not None and before is not None:
                turn = conjugacy(self.gamma, slope, before, direction)
            direction = _plus(slope, -1.0, direction, turn)
            if not dot(direction, plain) < 0:
                direction = _plus(slope, -1.0, None, 0.0)
            before = slope
            xi = weight_sensitivity(net, path, *direction)
            length = self.energy.along(net, path.end, y, xi, direction).best(self.longest)
            result = self._line_search(net, start, y, direction, length, values[-1])
            if result is None:
                break
            path, value = result
            values.append(value)
        return values

    def _gradients(self, net: SNODE, path: Trajectory, y: Tensor) -> tuple[Direction, Direction]:
        """Of E, in L2 and in the space that is searched; 0 for frozen weights."""
        terminal = self.energy.terminal(net, path.end, y).to(path.end.dtype)
        gradients = adjoint(net, path, terminal)
        weight = (gradients.weight + self.mu4 * net.weight.detach()) * net.weight.requires_grad
        bias = (gradients.bias + self.mu4 * net.bias.detach()) * net.bias.requires_grad
        if not self.sobolev:
            return (weight, bias), (weight, bias)
        smooth = sobolev_matrix(net.steps, net.time).to(weight)
        return (weight, bias), (torch.tensordot(smooth, weight, dims=1), smooth @ bias)

    def _line_search(
        self, net: SNODE, start: Tensor, y: Tensor, direction: Direction, length: float, value: float
    ) -> tuple[Trajectory, float] | None:
        """Go along a direction, halving the length while E rises; None, and back, where it always does."""
        parameters = (net.weight, net.bias)
        origin = [parameter.detach().clone() for parameter in parameters]
        for halving in range(self.halvings + 1):
            with torch.no_grad():
                for parameter, here, way in zip(parameters, origin, direction, strict=True):
                    parameter.copy_(here + length / 2**halving * way)
            path = direct(net, start)
            then = float(self.energy.value(net, path.end, y).detach())
            if length and then < value:
                return path, then
        with torch.no_grad():
            for parameter, here in zip(parameters, origin, strict=True):
                parameter.copy_(here)
        return None


def _parts(model: nn.Module) -> tuple[Callable[[Tensor], Tensor], SNODE]:
    """What is done to images first, and the network.

    Raises:
        UserError: for one that is no ``snode``.
    """
    view, net = normalisation(model)
    if not isinstance(net, SNODE):
        raise UserError(f"snode-ncg trains networks of the model snode only; got {type(net).__name__}")
    return view, net


def _plus(one: Direction, share: float, other: Direction | None, turn: float) -> Direction:
    if other is None or not turn:
        return share * one[0], share * one[1]
    return share * one[0] + turn * other[0], share * one[1] + turn * other[1]
