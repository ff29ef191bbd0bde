"""Several networks as one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.validation import one_of

Mean = Literal["logits", "probabilities"]


class Ensemble(nn.Module):
    """Networks that take the same inputs and have the same classes, combined by the mean of their outputs.

    Args:
        models: the networks; kept as ``.models``.
        mean: what it is taken of, "logits" or "probabilities". Of probabilities, the logits returned are those whose
            softmax (or sigmoid, for one logit per input) is the mean.

    Raises:
        UserError: for no models, things that are none, or an unknown mean; when called, for outputs of several shapes.
    """

    def __init__(self, models: Iterable[nn.Module], mean: Mean = "logits") -> None:
        super().__init__()
        members = list(models) if isinstance(models, Iterable) else []
        if not members or not all(isinstance(model, nn.Module) for model in members):
            raise UserError(f"an ensemble needs a list of torch modules, one at least; got {type(models).__name__}")
        one_of("mean", mean, get_args(Mean))
        self.models, self.mean = nn.ModuleList(members), mean

    def forward(self, x: Tensor) -> Tensor:
        """The mean logits, or the logits of the mean probabilities, of the shape of a single network's output."""
        outputs: list[Tensor] = [call_model(model, x) for model in self.models]
        shapes = {tuple(output.shape) for output in outputs}
        if len(shapes) > 1:
            text = " and ".join(str(shape) for shape in sorted(shapes))
            raise UserError(f"the networks of an ensemble must have the same classes; their outputs have shapes {text}")
        logits = torch.stack(outputs)
        if self.mean == "logits":
            return logits.mean(0)
        if logits.dim() == 2 or logits.shape[2:] == (1,):  # one logit per input
            return F.logsigmoid(logits).logsumexp(0) - F.logsigmoid(-logits).logsumexp(0)
        return logits.log_softmax(-1).logsumexp(0) - math.log(len(outputs))
