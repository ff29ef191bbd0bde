"""Instance-adaptive adversarial training: a budget for each example."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import CraftingDefence, crafting_passes
from buttress.defences.base.defence import Batch, Cost, Epoch, Loss, Step, StepContext
from buttress.defences.base.memory import Rows
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import not_negative, number, positive


@defence("instance-eps")
class InstanceEps(CraftingDefence):
    """Adversarial training that attacks each example with as much as it resists, so that fewer are pushed too far.

    Balaji, Goldstein and Hoffman (arXiv 1910.08051), IAAT: an example that is still right under an attack of its
    budget plus ``gamma`` gets a larger budget, one that is wrong under its own a smaller one; the change is smoothed,
    budget <- budget + smoothing * gamma * (1, 0 or -1). Ours: the budget is judged in the visit that trains with it,
    by that step's own perturbed pass (and one more attack of budget plus gamma after the update), and serves from the
    next visit on, which saves one of the paper's three attacks; budgets are shares of eps, with an upper end.
    Within `AWP` the verdict is that of the moved weights.
    On several devices the budgets of examples that the first one saw move, and those of the others stay.

    Cost: twice that of the attack, one forward pass for the verdict, and 1 gradient of the weights per step; during
    ``warmup`` the second attack is left out.

    Args:
        threat: its eps is the budget that all examples start from.
        steps: steps of PGD.
        step_size: their length in input units at eps; it shrinks and grows with an example's budget. 2.5 eps / steps
            unless given.
        gamma: how much more an example must resist before its budget grows, as a share of eps.
        smoothing: share of gamma by which a budget moves at once.
        most: the largest budget, as a share of eps.
        warmup: epochs in which all examples keep the budget they start from.
    """

    needs_classes = False
    paper = "Balaji et al., arXiv 1910.08051"
    begins = ("warmup",)
    reconstruction = "when a budget is judged, its limits, and the constants"
    shares: Tensor

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        steps: int = 10,
        step_size: float | None = None,
        gamma: float = 0.25,
        smoothing: float = 0.1,
        most: float = 2.0,
        warmup: float = 0.0,
    ) -> None:
        super().__init__()
        positive("gamma", gamma)
        number("smoothing", smoothing, "(0, 1]")
        number("most", most, "[1, inf)")
        not_negative("warmup", warmup)
        self.threat, self.steps, self.step_size = threat, steps, step_size
        self.gamma, self.smoothing, self.most, self.warmup = gamma, smoothing, most, warmup
        self._attack = PGD(threat=threat, steps=steps, step_size=step_size)
        self.register_buffer("shares", torch.zeros(0))
        self.rows: Rows | None = None

    @property
    def cost(self) -> Cost | None:
        """Two attacks and a verdict, and one pass of each kind."""
        crafting = crafting_passes(self.attack)
        return None if crafting is None else Cost(2 * crafting + 1)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Give every training example the whole eps."""
        self.rows = Rows(data.train)
        self.shares = torch.ones(len(data.train), device=self.shares.device)
        return data

    def _places(self, ids: Tensor) -> Tensor:
        if self.rows is None:
            raise UserError("a budget for each example needs the training split: call prepare before loss")
        places: Tensor = self.rows(ids.to(self.shares.device))
        return places

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy at points crafted with each example's budget."""
        share = self.shares[self._places(batch.ids)].to(batch.x.device)
        x_adv = context.craft(self._attack, scale=share)
        return Loss(context.task.objective(context.adversarial(x_adv), batch.y), {"share of eps": share.mean()})

    def step(self, step: Step) -> None:
        """One update; then the budgets of its examples move."""
        super().step(step)
        if step.context.epoch < self.warmup:
            return
        places, y = self._places(step.batch.ids), step.batch.y
        task = step.context.task
        robust = ~task.is_adversarial(step.context.passes["adversarial"].logits.detach(), y)
        more = step.context.craft(self._attack, scale=(self.shares[places] + self.gamma).to(step.batch.x.device))
        with preserved(step.model, "eval", step.context.seed, more.device), torch.no_grad():
            robust_at_more = ~task.is_adversarial(task.read(call_model(step.model, more)), y)
        direction = torch.where(robust_at_more, 1.0, torch.where(robust, 0.0, -1.0)).to(self.shares)
        new_shares = self.shares[places] + self.smoothing * self.gamma * direction
        shares = self.shares.clone()
        shares[places] = new_shares.clamp(0, self.most)
        self.shares = shares

    def end_epoch(self, epoch: Epoch) -> None:
        """Log the mean budget."""
        epoch.figures["mean eps"] = self.threat.eps * float(self.shares.mean())
