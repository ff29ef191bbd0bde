"""Fast adversarial training."""

from __future__ import annotations

from buttress.attacks.gradient.fgsm_rs import FGSMRS
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.engine.preserved_model import Mode
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat


@defence("fast")
class Fast(AdversarialTraining):
    """Adversarial training by FGSM from a random start (FGSM-RS; Wong, Rice and Kolter, ICLR 2020).

    Cost: 1 gradient of the inputs plus 1 of the weights per step. May overfit catastrophically at a large eps.

    Args:
        threat: what the model is trained against.
        alpha: length of the step, as a multiple of eps.
        mode: the model's mode while crafting; "train" in the authors' code.
    """

    paper = "Wong et al., ICLR 2020"

    def __init__(self, threat: Threat = NOT_GIVEN, alpha: float = 1.25, mode: Mode = "train") -> None:
        super().__init__(FGSMRS(threat=threat, alpha=alpha), mode)
        self.threat, self.alpha = threat, alpha
