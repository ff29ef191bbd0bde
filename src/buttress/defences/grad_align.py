"""Single-step training that keeps the gradient alike within the budget."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.fgsm import FGSM
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Cost, Loss, StepContext
from buttress.engine.oracle import Oracle
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.random import Random
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat, check_threat
from buttress.validation import not_negative

_LARGEST = 16 / 255  # up to here the authors used their rule for the weight


@dataclass(frozen=True, kw_only=True)
class _Slope(Perturbation):
    """The gradient of the loss at the input, crafted like an attack so that it is computed once a step."""

    threat: Threat = NOT_GIVEN

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        return oracle.loss_and_grad(x)[1]

    def _moved(self, oracle: Oracle, seed: int, ids: Tensor) -> Tensor:
        return self.perturb(oracle, oracle.x, oracle.y, Random(seed, ids))  # a gradient, not a point of the threat


@defence("grad-align")
class GradAlign(CraftingDefence):
    """FGSM training plus lam times the misalignment of the gradients at an input and at a random point near it.

    Andriushchenko and Flammarion, NeurIPS 2020, equation 6: 1 - cos(g(0), g(eta)), averaged over the inputs, with g(v)
    the gradient of the cross-entropy with respect to the input at x + v, and eta uniform in [-eps, eps]. The first
    gradient is also FGSM's and is held fixed; the penalty is differentiated through the second one only. Inputs with a
    gradient of exact zeros are left out. Both are taken in train mode and with the same dropout. Unlike the authors'
    code: the first gradient is one with respect to the input itself, theirs goes through a clamp to the box, which
    halves it at values of exactly 0 and 1 (a tie; the sign, and so FGSM's step, is the same, the cosine is not); and
    BatchNorm's statistics follow the perturbed inputs alone unless ``move_statistics``.

    Cost: 2 gradients of the inputs, 1 of the weights and one pass back through the second gradient, about 3 times
    FGSM's time.

    A weight that is too large ends in a constant prediction, where all gradients vanish and so does the penalty.

    Args:
        threat: what the model is trained against; linf only.
        lam: weight of the misalignment; unless given the authors' rule for CIFAR-10, 0.02 * 10 ** (255 eps / 8) with
            eps in widths of the box, up to 16/255, where it is 2 (theirs for SVHN is 1.657 at 1/255, 2.5 at 8/255 and
            3.162 at 12/255). Beyond, nothing was published and the rule explodes: 0.2, its value at 8/255, is taken,
            since 2 is too large already at eps 0.2 on 8x8 digits.
        move_statistics: whether the passes of both gradients move BatchNorm's running statistics, as they do in the
            authors' code.
    """

    needs_classes = False
    paper = "Andriushchenko and Flammarion, NeurIPS 2020"

    def __init__(self, threat: Threat = NOT_GIVEN, lam: float | None = None, move_statistics: bool = False) -> None:
        super().__init__()
        self._set_mode("train", move_statistics)
        check_threat("grad-align", threat, "linf")
        self.threat, self.lam = threat, lam
        if not math.isfinite(self.threat.eps):
            raise UserError(f"grad-align needs a finite eps; got {self.threat.eps}")
        if lam is not None:
            not_negative("lam", lam)
        self._attack, self._slope = FGSM(threat=threat), _Slope(threat=threat)

    @property
    def cost(self) -> Cost:
        """FGSM's passes, those of the perturbed batch, and 3 of the second gradient, which is passed back twice."""
        return Cost(crafting=2, training=5)

    @property
    def weight(self) -> float:
        """Of the misalignment: ``lam``, or the rule's value."""
        if self.lam is not None:
            return self.lam
        eps = self.threat.eps / self.threat.unit
        return 0.02 * 10 ** (eps * 255 / 8) if eps <= _LARGEST else 0.2

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy at FGSM's points plus the weighted misalignment."""
        x, eps = context.batch.x, context.scale * self.threat.eps
        first = self._craft(context, self._slope).detach()  # no inputs, whose gradient would go to an embedding
        eta = self.threat.shared(eps * (2 * context.random.uniform(x.shape[1:], x.dtype) - 1))
        penalty = misalignment(first, self._second(model, x + eta, batch.y, context))
        ball = replace(self.threat, eps=eps)
        x_adv = ball.project(ball.ascend(x, first, eps), x)
        value = context.task.objective(context.adversarial(x_adv), batch.y)
        return Loss(value + self.weight * penalty, {"misalignment": penalty.detach()})

    def _second(self, model: nn.Module, x_noisy: Tensor, y: Tensor, context: StepContext) -> Tensor:
        """(N, ...) the gradients at the moved inputs, which can be differentiated once more."""
        with preserved(model, "train", context.seed, x_noisy.device, move_statistics=self.move_statistics):
            x_noisy = x_noisy.requires_grad_()
            loss = context.task.resolve(context.task.loss)
            value = loss.value(context.task.read(call_model(model, x_noisy)), y).sum()
            return torch.autograd.grad(value, x_noisy, create_graph=True)[0]


def misalignment(first: Tensor, second: Tensor) -> Tensor:
    """1 minus the mean cosine between the rows of both, rows of exact zeros left out; 0 where no row is left."""
    rows, others = first.flatten(1), second.flatten(1)
    sizes = [part.detach().abs().amax(1, keepdim=True) for part in (rows, others)]
    used = ((sizes[0] > 0) & (sizes[1] > 0)).squeeze(1)
    if not bool(used.any()):
        return second.new_zeros(())
    # Rows divided by their largest entry: the squares of faint gradients would vanish.
    rows, others = (part[used] / size[used] for part, size in zip((rows, others), sizes, strict=True))
    return 1 - F.cosine_similarity(rows, others).mean()
