"""Adversarial training in one step of FGSM: from the input, from a random start (fast), from large noise (N-FGSM)."""

from __future__ import annotations

from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.fgsm_rs import FGSMRS
from buttress.attacks.gradient.n_fgsm import NFGSM
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.engine.preserved_model import Mode
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat


@defence("fgsm")
class FGSMTraining(AdversarialTraining):
    """Adversarial training by FGSM without a random start (FGSM-AT; Goodfellow et al., ICLR 2015).

    The base of the single-step methods, and the one that overfits catastrophically first: from one epoch to the next
    the accuracy under PGD can fall to 0 while that under FGSM rises. Cost: 1 gradient of the inputs plus 1 of the
    weights per step.

    Args:
        threat: what the model is trained against.
        mode: the model's mode while crafting; "train", as in the public code of the single-step methods.
        move_statistics: whether the crafting pass moves BatchNorm's running statistics, as it does in that code.
    """

    paper = "Goodfellow et al., ICLR 2015"

    def __init__(self, threat: Threat = NOT_GIVEN, mode: Mode = "train", move_statistics: bool = False) -> None:
        super().__init__(FGSM(threat=threat), mode, move_statistics)
        self.threat = threat


@defence("fast")
class Fast(AdversarialTraining):
    """Adversarial training by FGSM from a random start (FGSM-RS; Wong, Rice and Kolter, ICLR 2020).

    The start is put into the box before the gradient, as in the authors' code for CIFAR-10; their code for MNIST leaves
    it outside. Cost: 1 gradient of the inputs plus 1 of the weights per step. May overfit catastrophically at a large
    eps.

    Args:
        threat: what the model is trained against.
        alpha: length of the step, as a multiple of eps.
        mode: the model's mode while crafting; "train" in the authors' code.
        move_statistics: whether the crafting pass moves BatchNorm's running statistics, as it does in that code.
    """

    paper = "Wong et al., ICLR 2020"

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        alpha: float = 1.25,
        mode: Mode = "train",
        move_statistics: bool = False,
    ) -> None:
        super().__init__(FGSMRS(threat=threat, alpha=alpha), mode, move_statistics)
        self.threat, self.alpha = threat, alpha


@defence("n-fgsm")
class NFGSMTraining(AdversarialTraining):
    """Adversarial training by FGSM from noise larger than the budget, without clipping to it (N-FGSM).

    De Jorge et al., NeurIPS 2022. The inputs to train on may lie (k + alpha) eps away, which is intended; clipping
    them turns the method into FGSM-RS with a larger start. Validation uses the threat itself. Cost: 1 gradient of the
    inputs plus 1 of the weights per step.

    Args:
        threat: what the model shall become robust to; linf only.
        k: the largest noise, as a multiple of eps; 2 in the paper, but 3 for SVHN at 12/255 and 4 for WRN-28-10 on
            CIFAR-10 at 16/255.
        alpha: length of the step, as a multiple of eps; 1 in the paper, but steps of 8/255 for a WRN on SVHN at 10/255
            and 12/255, and on SVHN eps and step grow over 5 epochs (see `EpsWarmup`).
        clip: clip to the ball of size eps after all, for comparison.
        mode: the model's mode while crafting; "train" in the authors' code.
        move_statistics: whether the crafting pass moves BatchNorm's running statistics, as it does in that code.
    """

    paper = "de Jorge et al., NeurIPS 2022"

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        k: float = 2.0,
        alpha: float = 1.0,
        clip: bool = False,
        mode: Mode = "train",
        move_statistics: bool = False,
    ) -> None:
        super().__init__(NFGSM(threat=threat, k=k, alpha=alpha, clip=clip), mode, move_statistics)
        self.threat, self.k, self.alpha, self.clip = threat, k, alpha, clip
