"""Crafting on a variant of the attacked model, made of its own weights, that the model itself offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from buttress.attacks.composed.eot import WrapperAttack
from buttress.attacks.composed.transfer import check_module, runner_for
from buttress.attacks.gradient.pgd import PGD
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import Model, preserved
from buttress.errors import UserError
from buttress.models.wrapping.wrappers import network_with, rewrap
from buttress.random import Random
from buttress.registry import attack
from buttress.validation import one_name, one_of

Missing = Literal["refuse", "itself"]


@attack("variant")
@dataclass(frozen=True, kw_only=True)
class Variant(WrapperAttack):
    """Another attack, run on a variant of the model that has the model's own weights; the verdict is the model's.

    Some networks are hard to attack for a reason that is no robustness: a cut gradient, a coarse solver, chance.
    Such a network can name what an adaptive attacker would craft on instead, by a method
    ``attack_variants() -> dict[str, nn.Module]``; see `variants_of`. The weights are live, so training can craft on a
    variant too, in the mode in which the model itself is.

    Cost per input: that of the attack inside, spent on the variant and counted.

    Args:
        attack: what runs on the variant; its threat is this one's.
        variant: the variant's name. Without one it is the attack inside, for ablations.
        missing: what to do where the model has no such variant: "refuse", or attack the model "itself", so that one
            list of attacks serves models with and without.
    """

    attack: Attack = PGD()
    variant: str | None = None
    missing: Missing = "refuse"

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        if self.variant is not None:
            one_name("variant", self.variant)
        one_of("missing", self.missing, get_args(Missing))

    def label(self) -> str:
        """The variant and the attack inside, too: "Variant 'fine' of PGD-20"."""
        variant = "" if self.variant is None else f" {self.variant!r}"
        return f"{self._name()}{variant} of {self.attack.label()}"

    def search_passes(self, classes: int) -> PassCount | None:
        """Those of the attack inside, and the variant's output for the input."""
        passes = self.attack.search_passes(classes)
        return None if passes is None else passes + PassCount(1)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What the attack inside finds on the variant, run to its end."""
        model = self.chosen(oracle.runner.model)
        if model is None:
            return self.attack.points(oracle, x, y, random)
        rows, ours = oracle.alive.nonzero().squeeze(1), oracle.runner
        if not len(rows):
            return x
        passes = runner_for(model, oracle, self.attack.draws)
        target = None if oracle.target is None else oracle.target[rows]
        trains = bool(getattr(ours.model, "training", False))
        with preserved(model, "train" if trains else "eval", torch.initial_seed(), x.device):
            x_adv = self.crafted(oracle, Oracle(passes, x[rows], y[rows], target), rows, random)
        ours.precision = passes.precision  # the search was the variant's
        return x_adv

    def chosen(self, model: Model) -> nn.Module | None:
        """The variant to craft on; None for the model itself.

        Raises:
            UserError: naming the variants that there are, where the model has no such one and ``missing`` is "refuse".
        """
        if self.variant is None:
            return None
        variants = variants_of(model)
        if self.variant in variants:
            return variants[self.variant]
        if self.missing == "itself":
            return None
        has = f"it has {', '.join(map(repr, variants))}" if variants else "it has none"
        raise UserError(
            f'the network has no variant {self.variant!r} to craft on; {has}. Choose another, or missing="itself" to '
            "craft on the network itself"
        )


def variants_of(model: Model) -> dict[str, nn.Module]:
    """The networks that an adaptive attacker would craft examples on instead of this one, by name.

    They take the network's inputs, answer as it does, and are made of its own live weights. Empty where there is no
    method ``attack_variants``. Of a network inside others that hold it as ``model`` (such as
    ``buttress.models.wrapping.normalized.Normalized``) they are in its wrappers; a parallel container is left away.

    Raises:
        UserError: where a variant is no torch module.
    """
    return optional_networks(model, "attack_variants", "variant")


def optional_networks(model: Model, method: str, kind: str) -> dict[str, nn.Module]:
    """The networks that one offers by a method without arguments, by name, in its wrappers.

    Args:
        model: the network, or what it is in: others that hold it as ``model``, and parallel containers, which are left
            away.
        method: name of the method; without one there are none.
        kind: what an error calls them.

    Raises:
        UserError: where one is no torch module.
    """
    owner = network_with(model, method)
    networks: dict[str, nn.Module] = {} if owner is None else dict(getattr(owner, method)())
    for name, network in networks.items():
        check_module(f"the {kind} {name!r}", network)
    return {name: rewrap(model, network, owner) for name, network in networks.items()}
