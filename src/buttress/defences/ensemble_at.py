"""Ensemble adversarial training: examples crafted on other networks, too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.composed.transfer import check_network
from buttress.attacks.gradient.fgsm import FGSM
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import CraftingDefence, crafting_passes
from buttress.defences.base.defence import Batch, Cost, Loss, StepContext
from buttress.defences.base.networks import freeze, load_network, new_network
from buttress.defences.base.pretraining import pretrain
from buttress.defences.base.step_context import rescaled
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.random import derive, generator
from buttress.registry import defence
from buttress.validation import whole


@defence("ensemble-at")
class EnsembleAT(CraftingDefence):
    """Half clean inputs, half inputs perturbed on a network that changes from step to step (Tramer et al., ICLR 2018).

    The sources are the model itself and static, trained members; in each round of as many steps as there are sources
    each serves once, in random order. Members are trained on clean inputs before training begins, from fresh weights
    of the model's own architecture, or given. They are frozen, in eval mode, follow from the seed (or from what was
    given) and so are in no checkpoint: a resumed run trains them again. Robust to attacks that transfer, and to single
    steps of its own; many steps of its own gradient are another matter, so validate with those.

    Cost: the attack's passes over the model itself in one of so many steps, and 2 gradients of the weights per step;
    not counted are the attack's passes over members in the other steps, and before training 2 passes per member, input
    and epoch.

    Args:
        attack: what perturbs; single steps in the paper.
        members: how many to train, or a list of modules and run folders, which may be of other architectures.
        epochs: of training each member by Adam, without augmentation.
    """

    needs_classes = False
    paper = "Tramer et al., ICLR 2018"
    preparation = "trains other networks"
    clean_pass = True
    keeps_inputs = True

    def __init__(
        self,
        attack: Perturbation = FGSM(),
        members: int | Sequence[str | nn.Module] = 2,
        epochs: int = 10,
    ) -> None:
        super().__init__()
        if not isinstance(members, list | tuple):
            whole("members, if they are no list of networks and run folders,", members)
        elif not members:
            raise UserError("members must be 1 or more, or a list of networks and run folders; got none")
        else:
            for member in members:
                check_network("members", member)
        whole("epochs", epochs)
        self._attack, self.members, self.epochs = attack, members, epochs
        self._networks: list[nn.Module] = []  # in a list, not as a submodule: neither trained nor in a checkpoint
        self._seed = 0

    @property
    def sources(self) -> int:
        """Networks that inputs are crafted on, the model itself included."""
        return 1 + (self.members if isinstance(self.members, int) else len(self.members))

    @property
    def cost(self) -> Cost | None:
        """The attack's passes in the model's own share of the steps, and those of a clean and of a perturbed batch."""
        crafting = crafting_passes(self.attack)
        return None if crafting is None else Cost(crafting / self.sources, 4)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Trains or loads the members."""
        self._seed = seed
        if isinstance(self.members, int):
            self._networks = []
            for number in range(self.members):
                member = new_network(model, derive(seed, "member", number))
                pretrain(
                    member, data.train, epochs=self.epochs, seed=derive(seed, "pretraining", number), task=self.task
                )
                self._networks.append(freeze(member))
        else:
            self._networks = [freeze(load_network(member)) for member in self.members]
        return data

    def source(self, index: int) -> nn.Module | None:
        """The member that step ``index`` crafts on; None for the model itself."""
        turn, place = divmod(index, self.sources)
        order = torch.randperm(self.sources, generator=generator(self._seed, "sources", turn))
        chosen = int(order[place])
        if chosen == 0:
            return None
        if not self._networks:
            raise UserError("EnsembleAT makes its members in prepare(model, data, seed): call that first")
        return self._networks[chosen - 1]

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Half the cross-entropy of the clean, half that of the perturbed batch."""
        member = self.source(context.index)
        x_adv = context.craft(self.attack) if member is None else self._crafted(member, context)
        natural = context.task.objective(context.clean(batch.x), batch.y)
        perturbed = context.task.objective(context.adversarial(x_adv), batch.y)
        logs = {"natural": natural.detach(), "adversarial": perturbed.detach()}
        return Loss(0.5 * natural + 0.5 * perturbed, logs)

    def _crafted(self, member: nn.Module, context: StepContext) -> Tensor:
        """The batch perturbed on a member, which is put where the batch is."""
        batch = context.batch  # in full precision, which mixed training hands to attacks alone
        precision: Precision = "bf16" if context.precision in ("bf16", "twin", "compiled") else "fp32"
        attack = rescaled(self.attack, context.scale)
        network = member.to(batch.x.device, batch.x.dtype)
        return attack.craft(
            network, batch.x, batch.y, task=context.task, seed=context.seed, ids=batch.ids, precision=precision
        )
