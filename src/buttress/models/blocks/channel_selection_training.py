"""What networks with channel selection share: the joint loss, and what an adaptive attacker makes of them."""

from __future__ import annotations

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from buttress.models.blocks.channel_selection import ChannelSelection, Selection

_SWEEP = (0.1, 1.0, 2.0, 10.0, 100.0)  # weights of the probes in a joint attack


class Selective(nn.Module):
    """A network whose probes are trained along with it.

    Training adds beta / L times the sum of the L probes' cross-entropies to the loss. At the published beta of 2 that
    is the joint loss of CIFS, 3 / (beta + 1) (CE + beta / L sum_l CE_l); at another beta it is so up to the factor in
    front, which is left to the learning rate.

    Attributes:
        beta: weight of the probes' part.
    """

    beta: float

    @abstractmethod
    def answers(self, x: Tensor, y: Tensor | None = None, detach: bool = True) -> tuple[Tensor, list[Tensor]]:
        """(N, K) logits, and those of each probe; ``y`` and ``detach`` are those of `Selection`."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) logits. No labels are used: masks follow the probes' own ranking, also in training mode."""
        return self.answers(x)[0]

    def forward_with_auxiliary(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) logits, in training mode by the masks of the true classes ``y``, and the probes' loss, weighted."""
        logits, probes = self.answers(x, y)
        losses = [F.cross_entropy(probe, y) for probe in probes]
        return logits, sum(losses, logits.new_zeros(())) * (self.beta / max(1, len(losses)))

    def attack_variants(self) -> dict[str, nn.Module]:
        """What an adaptive attacker would craft on; see `Experts` and `NotDetached`.

        "joint" weighs the probes as training does, "joint beta B" by others, "probes only" leaves the final logits out.
        "not detached" is there where a mask is detached.
        """
        selections = [module for module in self.modules() if isinstance(module, Selection)]
        if not selections:
            return {}
        betas = {f"joint beta {beta:g}": beta for beta in _SWEEP if beta != self.beta}
        variants: dict[str, nn.Module] = {
            name: Experts(self, beta) for name, beta in {"joint": self.beta, **betas}.items()
        }
        variants["probes only"] = Experts(self, 1.0, final=0.0)
        if any(isinstance(selection, ChannelSelection) and selection.detach for selection in selections):
            variants["not detached"] = NotDetached(self)
        return variants


class Experts(nn.Module):
    """A network and its probes as one: ``final`` log p + ``beta`` / L sum_l log p_l, of the network's own weights.

    Minus the output for the true class (the loss "negative_logit") is the joint loss of that beta; its cross-entropy is
    that of the product of all classifiers' probabilities.
    """

    def __init__(self, network: Selective, beta: float, final: float = 1.0) -> None:
        super().__init__()
        self.network, self.beta, self.final = network, beta, final

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) weighted sums of log-probabilities."""
        logits, probes = self.network.answers(x)
        total = self.final * _log_probabilities(logits)
        for probe in probes:
            total = total + self.beta / len(probes) * _log_probabilities(probe)
        return total.to(logits.dtype)


class NotDetached(nn.Module):
    """A network whose masks give gradients to the features, and so to the input."""

    def __init__(self, network: Selective) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(N, K) the network's own logits."""
        return self.network.answers(x, detach=False)[0]


def _log_probabilities(logits: Tensor) -> Tensor:
    """In float64: a saturated softmax would hide its gradient from an attack."""
    return logits.double().log_softmax(1)
