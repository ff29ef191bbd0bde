"""What is certified is not attacked."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress.attacks.composed.eot import WrapperAttack
from buttress.attacks.gradient.pgd import PGD
from buttress.certificates import Verifier, certify
from buttress.certificates.verifiers.crown import CROWN
from buttress.engine.attack import Attack
from buttress.engine.composition import staged
from buttress.engine.ledger import Stage
from buttress.engine.oracle import Oracle
from buttress.errors import UserError
from buttress.model_call import half_precision
from buttress.random import Random
from buttress.registry import attack
from buttress.threat import Threat

log = logging.getLogger(__name__)


@attack("certified-first")
@dataclass(frozen=True, kw_only=True)
class CertifiedFirst(WrapperAttack):
    """Another attack, on the inputs alone that a verifier cannot certify; those that it can are robust.

    The verdict of an input is that of the attack inside: where a certificate holds, no point of the threat is
    adversarial. `AttackResult.stages` says how many were, as those that entered the stage "certified by crown".

    Cost per input that is not certified: that of the attack inside. What a verifier costs is in no passes.

    Args:
        attack: what is run on the others; its threat is this one's.
        verifier: a sound one, whose certificates are taken.
    """

    attack: Attack = PGD()
    verifier: Verifier = CROWN()

    @property
    def needs_classes(self) -> bool:
        """Certificates are of classes."""
        return True

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What the attack inside finds; certified inputs as they were."""
        others = oracle.alive & ~certified(oracle, x, y, self.threat, self.verifier)
        rows = others.nonzero().squeeze(1)
        points = x.clone()
        if len(rows):
            points[rows] = staged(oracle, self.attack, rows, random, self.attack.label())[0]
        return points


def certified(oracle: Oracle, x: Tensor, y: Tensor, threat: Threat, verifier: Verifier) -> Tensor:
    """(N,) bool: which inputs, of those that the oracle still asks about, a verifier certifies.

    None of a network in half precision, of which bounds say nothing.

    Raises:
        UserError: for a verifier that is not sound, a model that is no module or is in train mode, and a network that
            cannot be bounded, naming its layer.
    """
    if half_precision(oracle.runner.model) is not None:
        log.info("nothing is certified of a network in half precision: all inputs are attacked")
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)
    model, rows, name = oracle.runner.model, oracle.alive.nonzero().squeeze(1), verifier.label()
    if not verifier.sound:
        raise UserError(f"what {name} shows holds with some probability alone: to spare attacks take a sound verifier")
    if not isinstance(model, nn.Module) or oracle.runner.trains:
        raise UserError("certificates are of a torch module in eval mode: attack this model without a verifier")
    verified = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    if len(rows):
        found = certify(model, x[rows], y[rows], threat=threat, method=verifier, task=oracle.task)
        verified[rows] = found.verified
        oracle.ledger.add_stage(Stage(f"certified by {name}", int(verified.sum()), 0, 0, 0))
    return verified
