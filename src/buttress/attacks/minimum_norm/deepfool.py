"""DeepFool: steps to the nearest face of the linearised decision region."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm, Smallest
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import NOT_GIVEN, Threat, check_threat, per_row
from buttress.validation import not_negative, whole

_BEYOND = 1e-4  # added to each step's length by the authors' code, so that rounding does not stop it at the boundary


@attack("deepfool")
@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimumNorm):
    """Newton-like steps to the nearest decision boundary (Moosavi-Dezfooli et al., CVPR 2016), in l2 and linf.

    Each step linearises the model, takes the nearest of the faces between the truth and a rival class and moves onto
    it. The steps are added up, and a point that is tried lies ``overshoot`` times further, as in the paper's algorithm
    2; it is clipped to the box. An input rests at the first adversarial point. Under a target the face is
    that between the target and its strongest rival at the current point.

    Cost per input: one forward for the unperturbed input, and for each step until it rests one forward and as many
    backwards as there are rivals (one under a target); and one forward after the last step if it has not.

    Args:
        threat: norm "l2" or "linf" and the box; the smallest perturbation found counts where it is within ``eps``.
        steps: linearisations at most.
        overshoot: how far beyond the boundary each point lies, as a share of the perturbation.
        candidates: rivals looked at, those of the highest logits on the clean input; None for all. The ten classes of
            the authors' code count the truth, hence nine.
    """

    needs_classes = True

    threat: Threat = NOT_GIVEN
    steps: int = 50
    overshoot: float = 0.02
    candidates: int | None = 9

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        check_threat("DeepFool", self.threat, "l2", "linf")
        whole("steps", self.steps)
        not_negative("overshoot", self.overshoot)
        if self.candidates is not None:
            whole("candidates", self.candidates)

    def search_passes(self, classes: int) -> PassCount:
        """Each step a gradient for each rival, and a forward after the last."""
        rivals = classes - 1 if self.candidates is None else min(self.candidates, classes - 1)
        return PassCount(self.steps + 1, self.steps * rivals)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The first point on the way that fools the model; the input itself where there was none."""
        best = Smallest(oracle, self.threat)
        rivals = self._rivals(oracle.clean, y)
        total, x_adv = torch.zeros_like(x), x
        for _ in range(self.steps):
            oracle.rest(best.successful)
            if oracle.done:
                break
            step = self._step(oracle, x_adv, rivals)
            best.offer(x_adv)
            total = total + step
            x_adv = self.threat.clip(x + (1 + self.overshoot) * total, x)
            x_adv = torch.where(per_row(best.successful, x), best.point, x_adv)
        oracle.rest(best.successful)
        oracle.logits(x_adv)
        best.offer(x_adv)
        oracle.wake()
        return best.point

    def _rivals(self, clean: Tensor, y: Tensor) -> Tensor:
        """(N, K) classes other than the truth, the highest clean logits first."""
        count = clean.shape[1] - 1
        count = count if self.candidates is None else min(self.candidates, count)
        return clean.scatter(1, y[:, None], -torch.inf).topk(count, dim=1).indices

    def _step(self, oracle: Oracle, x_adv: Tensor, rivals: Tensor) -> Tensor:
        """(N, ...) the way onto the nearest linearised face; 0 where the gradients are."""
        if oracle.target is None:
            value, grad = oracle.nearest_face(x_adv, rivals, lambda _, value, grad: self._way(value, grad))
        else:
            value, grad = oracle.loss_and_grad(x_adv, "margin")
        way, slope, grad = self._way(value, grad), self.threat.dual(grad), self.threat.free(grad)
        way = torch.where(way.isfinite(), way + _BEYOND * self.threat.unit, 0)
        if self.threat.norm == "linf":
            return per_row(way, grad) * self.threat.shared(grad.sign())
        return per_row(way / slope.clamp(min=torch.finfo(slope.dtype).tiny), grad) * grad

    def _way(self, value: Tensor, grad: Tensor) -> Tensor:
        """(N,) how far the linearised face is; infinite where the gradient is 0."""
        slope = self.threat.dual(grad)
        tiny = torch.finfo(slope.dtype).tiny
        return torch.where(slope > tiny, value.to(slope.dtype).abs() / slope.clamp(min=tiny), math.inf)
