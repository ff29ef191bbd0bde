"""Single-step training on images with some pixels blanked out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from buttress.attacks import Attack
from buttress.attacks.corruptions.noises import pixels
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.fgsm_rs import FGSMRS
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Loss, StepContext
from buttress.engine.preserved_model import Mode
from buttress.random import derive, generator
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import number, one_of, positive

Pattern = Literal["random_per_batch", "random_per_sample", "fixed"]
TrainOn = Literal["masked", "unmasked"]
Start = Literal["zero", "uniform"]


@defence("masked-fgsm")
class MaskedFGSM(CraftingDefence):
    """FGSM training whose step is taken at images with a share of their pixels set to 0.

    One of the cheap changes that keep FGSM training from catastrophic overfitting in Li et al. (arXiv 2209.02684). The
    paper says that pixels are masked before the FGSM pass and that a mask may stay fixed; all else is a reconstruction.
    Here a pixel is set to 0 in all its channels with probability ``rate``, the step moves masked pixels, too, and the
    model is trained on the masked image plus the step, put into the box. A random start is not put into the box before
    the gradient. Evaluation never masks. Cost: 1 gradient of the inputs plus 1 of the weights per step.

    Args:
        threat: what the model is trained against.
        rate: probability of each pixel, in [0, 1).
        pattern: "random_per_batch" draws one mask for all inputs of a step, "random_per_sample" one for each input,
            "fixed" one for the whole training.
        train_on: "masked" images plus the step, or "unmasked" ones plus the same step.
        start: "zero" is FGSM, "uniform" FGSM-RS.
        alpha: length of the step after a uniform start, as a multiple of eps.
        mode: the model's mode while crafting.
        move_statistics: whether a pass that crafts in "train" moves BatchNorm's running statistics.
    """

    needs_classes = False
    paper = "Li et al., arXiv 2209.02684"
    reconstruction = "how pixels are drawn, how many, and what is trained on: the paper was read in its abstract only"

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        rate: float = 0.3,
        pattern: Pattern = "random_per_batch",
        train_on: TrainOn = "masked",
        start: Start = "zero",
        alpha: float = 1.25,
        mode: Mode = "train",
        move_statistics: bool = False,
    ) -> None:
        super().__init__()
        number("rate", rate, "[0, 1)")
        positive("alpha", alpha)
        choices = (("pattern", pattern, Pattern), ("train_on", train_on, TrainOn), ("start", start, Start))
        for name, value, allowed in choices:
            one_of(name, value, get_args(allowed))
        self.threat, self.rate, self.pattern, self.train_on = threat, rate, pattern, train_on
        self.start, self.alpha = start, alpha
        self._set_mode(mode, move_statistics)
        self._attack = self._step_of(threat)
        self._free = self._step_of(replace(self.threat, box=None))
        self._seed = 0

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Choose the fixed mask."""
        self._seed = derive(seed, "mask")
        return data

    def mask(self, x: Tensor, context: StepContext) -> Tensor:
        """(1 or N, 1 or C, ...) ones and zeros, zero where a pixel is masked in this step."""
        shape = pixels(x)
        if self.pattern == "random_per_sample":
            draws = context.random.uniform(shape, x.dtype)
        else:
            seed = self._seed if self.pattern == "fixed" else derive(context.seed, "mask")
            draws = torch.rand(1, *shape, generator=generator(seed, "pixels")).to(x)
        return (draws >= self.rate).to(x.dtype)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy where the step leads."""
        x = context.batch.x
        masked = x * self.mask(x, context)
        there = copy.copy(context)  # the same step, at the masked images
        there.batch = Batch(masked, batch.y, batch.ids)
        x_adv_masked = self._craft(there, self._free)
        base = masked if self.train_on == "masked" else x
        # Without a box while crafting: a masked pixel at the box's edge keeps its step for the unmasked image.
        x_adv = self.threat.project(base + (x_adv_masked - masked), base)
        return Loss(context.task.objective(context.adversarial(x_adv), batch.y))

    def _step_of(self, threat: Threat) -> Attack:
        return FGSM(threat=threat) if self.start == "zero" else FGSMRS(threat=threat, alpha=self.alpha)
