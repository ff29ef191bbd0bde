"""Measures of a model under single-step and multi-step attacks, for monitors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.gradient.steepest_ascent import reach
from buttress.data.dataset import Split
from buttress.defences.base.defence import Batch
from buttress.model_call import call_model
from buttress.random import Random, derive
from buttress.tasks import Task
from buttress.threat import Threat, norms


def pgd(threat: Threat, steps: int) -> PGD:
    """PGD from a random start with steps of a quarter of the budget."""
    return PGD(threat=threat, steps=steps, step_size=reach(threat) / 4 or None)  # without a budget there is no step


def accuracy(attack: Perturbation, model: nn.Module, batch: Batch, seed: int, task: Task) -> float:
    """Robust accuracy: the share of a batch that is right under an attack."""
    result = attack(model, batch.x, batch.y, task=task, seed=seed, ids=batch.ids, search="first")
    return 1 - int(result.success.sum()) / len(batch.y)


def mean_cosine(one: Tensor, other: Tensor) -> float:
    """The mean over rows of the cosine of two (N, ...) tensors; 0 for rows of which one is 0 throughout."""
    one, other = one.double().flatten(1), other.double().flatten(1)
    size = norms(one, "l2") * norms(other, "l2")
    return float(((one * other).sum(1) / size.clamp(min=torch.finfo(size.dtype).tiny)).mean())


def gradient(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Tensor:
    """(N, ...) the gradient of each input's loss in float64 of its output, so that certainty does not hide it."""
    x = x.detach().requires_grad_()
    output = task.read(call_model(model, x)).double()
    return torch.autograd.grad(task.resolve(task.loss).value(output, y).sum(), x)[0]


class Probe:
    """What attacks make of a fixed part of the training inputs; PGD-10 is run at once.

    Args:
        model: in eval mode.
        split: the training inputs.
        count: how many of them, classes in proportion.
        threat: of all attacks.
        seed: of which inputs, and of the attacks' draws.
        like: inputs of the dtype and on the device that the model takes.
        task: what the model's output is for.

    Attributes:
        robust: accuracy under PGD-10.
    """

    def __init__(
        self, model: nn.Module, split: Split, count: int, threat: Threat, seed: int, like: Tensor, task: Task
    ) -> None:
        part = split.stratified(count, seed)
        x, y, ids = (values.to(like.device) for values in part.take(torch.arange(len(part))))
        self.model, self.threat, self.seed, self.task = model, threat, seed, task
        self.x, self.y, self.ids = x.to(like.dtype), y, ids
        self.moved, self.robust = self._under(pgd(threat, 10))

    def single_step(self) -> tuple[float, float, float]:
        """Accuracy under FGSM; and two mean cosines.

        Returns:
            The accuracy; the cosine between gradients at an input and at a random point of its threat; that between the
            perturbations of FGSM and PGD-10.
        """
        moved, single = self._under(FGSM(threat=self.threat))
        near = self.threat.random_start(self.x, Random(derive(self.seed, "near"), self.ids))
        linearity = mean_cosine(*(gradient(self.model, x, self.y, self.task) for x in (self.x, near)))
        return single, linearity, mean_cosine(moved - self.x, self.moved - self.x)

    def _under(self, attack: Perturbation) -> tuple[Tensor, float]:
        result = attack(self.model, self.x, self.y, task=self.task, seed=self.seed, ids=self.ids)
        return result.x_adv, 1 - int(result.success.sum()) / len(self.y)
