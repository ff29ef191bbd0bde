"""Crafting on another model than the one attacked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from buttress.attacks.composed.eot import WrapperAttack
from buttress.attacks.gradient.pgd import PGD
from buttress.engine.attack import Attack
from buttress.engine.call_checks import check_inputs
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import preserved
from buttress.engine.runner import Runner
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack


@attack("transfer")
@dataclass(frozen=True, kw_only=True)
class Transfer(WrapperAttack):
    """Another attack, run on a surrogate; the verdict is the attacked model's (Papernot et al., AsiaCCS 2017).

    Where the surrogate's points beat a model more often than its own gradients do, its gradients are masked. The
    attacked model needs none. Several surrogates are attacked as one by
    ``buttress.models.wrapping.mean_ensemble.Ensemble``.

    Cost per input: that of the attack inside, spent on the surrogate and counted; the surrogate runs in eval mode and
    comes back as it was.

    Args:
        attack: what runs on the surrogate; its threat is this one's.
        surrogate: takes the attacked model's inputs and knows its classes, in the same order. In a job, a run's folder.
    """

    attack: Attack = PGD()
    surrogate: nn.Module | str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no surrogate."""
        super().__post_init__()
        # The attack inside draws about the surrogate; for the attacked model's draws put EoT around this.
        object.__setattr__(self, "draws", 1)
        if self.surrogate is None:
            raise UserError(
                "transfer needs a surrogate, the network that points are made on: surrogate=NETWORK in Python, a run's "
                "folder on the command line, as in --by.surrogate FOLDER"
            )
        check_network("surrogate", self.surrogate)

    def search_passes(self, classes: int) -> PassCount | None:
        """Those of the attack inside, by its own draws, and the surrogate's output for the input."""
        passes = self.attack.search_passes(classes)
        return None if passes is None else (passes + PassCount(1)) * self.attack.draws

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What the attack inside finds on the surrogate, run to its end."""
        surrogate, rows, ours = self.surrogate, oracle.alive.nonzero().squeeze(1), oracle.runner
        if not isinstance(surrogate, nn.Module):
            raise UserError(f"surrogate must be a network here; got {surrogate!r}: load it first")
        if not len(rows):
            return x
        passes = runner_for(surrogate, oracle, self.attack.draws)
        target = None if oracle.target is None else oracle.target[rows]
        with preserved(surrogate, "eval", torch.initial_seed(), x.device):
            check_inputs(surrogate, x[rows], y[rows], self.threat.box)
            x_adv = self.crafted(oracle, Oracle(passes, x[rows], y[rows], target), rows, random)
        ours.precision = passes.precision  # the search was the surrogate's
        return x_adv


def check_network(name: str, network: object) -> None:
    """Refuse what is neither a module nor a name, as of a run's folder, that a job loads one by.

    Raises:
        UserError: for anything else, and an empty name.
    """
    if not isinstance(network, str | Path):
        check_module(name, network)
    elif not str(network).strip():
        raise UserError(f"{name} must be a network, in a job named by its run's folder; got {network!r}")


def check_module(name: str, module: object) -> None:
    """Refuse what is no torch module.

    Raises:
        UserError: naming the field and what came.
    """
    if not isinstance(module, nn.Module):
        raise UserError(f"{name} must be a torch module that takes the same inputs; got {type(module).__name__}")


def runner_for(model: nn.Module, oracle: Oracle, draws: int = 1) -> Runner:
    """PassCount of another model, in the precision and batch size of the oracle's own."""
    return Runner(
        model, oracle.task, oracle.runner.precision, oracle.runner.batch_size, draws, exact=oracle.runner.exact
    )
