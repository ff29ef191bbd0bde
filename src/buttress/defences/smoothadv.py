"""Adversarial training of the smoothed network."""

from __future__ import annotations

from torch import nn

from buttress.attacks import Attack
from buttress.attacks.composed.smoothadv import SmoothAdv, noise_of
from buttress.attacks.gradient.pgd import PGD
from buttress.defences.base.crafting import CraftingDefence, crafting_passes
from buttress.defences.base.defence import Batch, Cost, Loss, StepContext
from buttress.engine.perturbation import attack_random
from buttress.engine.preserved_model import Mode
from buttress.registry import defence


@defence("smoothadv")
class SmoothAdvTraining(CraftingDefence):
    """Cross-entropy at points that beat the smoothed network, under the noise that they were found under.

    Salman et al., NeurIPS 2019: the attack `SmoothAdv` with ``samples`` draws, crafted in eval mode; each input is then
    trained on under its first draw, as by default in the released code (which can also train on all). Its budget can
    rise over some epochs, here where ``eps-warmup`` is put around. The authors attack by PGD, of 10 steps by default,
    or DDN, in l2. Radii of smoothed networks are in that norm: give the threat in it (``--threat.norm l2``). Cost: the
    attack's passes for each of the ``samples``, and 1 gradient of the weights per step.

    Args:
        attack: what perturbs each batch, on the smoothed network.
        sigma: standard deviation of the noise, in input units.
        samples: draws of the noise that the attack sees for each input.
        mode: the model's mode while crafting.
    """

    needs_classes = False
    paper = "Salman et al., NeurIPS 2019"

    def __init__(
        self, attack: Attack = PGD(steps=10), sigma: float = 0.25, samples: int = 2, mode: Mode = "eval"
    ) -> None:
        super().__init__()
        self._set_mode(mode, False)
        self._attack, self.sigma, self.samples = attack, sigma, samples
        self._smoothed = SmoothAdv(attack=attack, sigma=sigma, samples=samples)

    @property
    def cost(self) -> Cost | None:
        """The attack's passes under all draws, and those of the objective."""
        crafting = crafting_passes(self._smoothed, self.mode)
        return None if crafting is None else Cost(crafting, self.trained)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy at the crafted points, under the first draw of the noise."""
        x_adv = self._craft(context, self._smoothed)
        noise = noise_of(attack_random(context.seed, batch.ids), 0, self.sigma, batch.x)
        return Loss(context.task.objective(context.adversarial(x_adv + noise), batch.y))
