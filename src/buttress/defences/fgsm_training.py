"""Adversarial training by one step from the input itself."""

from __future__ import annotations

from buttress.attacks.gradient.fgsm import FGSM
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
    """

    paper = "Goodfellow et al., ICLR 2015"

    def __init__(self, threat: Threat = NOT_GIVEN, mode: Mode = "train") -> None:
        super().__init__(FGSM(threat=threat), mode)
        self.threat = threat
