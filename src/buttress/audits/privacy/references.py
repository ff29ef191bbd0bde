"""Reference networks: others' answers to an input, which say what of a network's answer is the input's own ease."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from buttress.audits.base.subject import Subject
from buttress.audits.privacy.likelihood_ratio import log_odds
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.models import forward_checked


@dataclass(frozen=True, eq=False)
class Reference:
    """A network that was trained as the one in question, on other inputs.

    Attributes:
        model: the network; it has the classes of the one in question, in the same order.
        ids: (M,) int64, the identity of each input that it was trained on.
    """

    model: nn.Module
    ids: Tensor


def answers(references: Sequence[Reference | str], subject: Subject) -> tuple[Tensor, Tensor]:
    """What each reference makes of the subject's inputs, and which of these it was trained on.

    Returns:
        (K, N) float64 log-odds of the true class, and (K, N) bool, both on the CPU.

    Raises:
        UserError: for a folder, which only a job can read, and a network with other classes.
    """
    odds, seen = [], []
    for reference in references:
        if not isinstance(reference, Reference):
            raise UserError(
                f"references must be networks with the ids that they were trained on, Reference(model, ids); got "
                f"{reference!r}: folders of runs are for buttress audit"
            )
        logits = _logits(reference.model, subject)
        if logits.shape != subject.logits.shape:
            raise UserError(
                f"a reference network has {logits.shape[1]} classes, the network in question {subject.logits.shape[1]}"
            )
        odds.append(log_odds(logits, subject.y).cpu())
        seen.append(torch.isin(subject.ids.cpu(), reference.ids.cpu()))
    return torch.stack(odds), torch.stack(seen)


def _logits(model: nn.Module, subject: Subject) -> Tensor:
    """(N, C), in eval mode."""
    with preserved(model, "eval", subject.seed, subject.x.device), torch.no_grad():
        parts = torch.split(subject.x, subject.batch_size)
        return torch.cat([subject.task.read(forward_checked(model, part)) for part in parts])
