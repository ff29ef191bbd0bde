"""What a network computes last before its answer: one row of features for each input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.engine.input_dtype import suited
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.capture import capture
from buttress.model_call import call_model
from buttress.tasks import Task

INPUTS = "the inputs themselves"
_MOST = 4096  # features of an input; of more, the mean over all axes but the channels


def penultimate(
    model: nn.Module, x: Tensor, *, task: Task = tasks.classification, batch_size: int = 256, seed: int = 0
) -> tuple[Tensor, str]:
    """The features behind a network's answer: the last activation that is not the answer, one row for each input.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs, N of 1 or more.
        task: reads the network's output.
        batch_size: inputs computed at once.
        seed: of a network that draws.

    Returns:
        (N, D) float32 features, and the name of the layer; of a network without such a layer, or into which nobody can
        look, the inputs as they are and `INPUTS`.
    """
    name = _last_layer(model, x, task, seed)
    if name is None:
        return _rows(x), INPUTS
    return torch.cat(
        [_rows(_values(model, part, [name], task, seed)[0][name]) for part in torch.split(x, batch_size)]
    ), name


def _last_layer(model: nn.Module, x: Tensor, task: Task, seed: int) -> str | None:
    """The last activation with one value for each input that is something else than the output."""
    two, three = (x[torch.arange(count, device=x.device) % len(x)] for count in (2, 3))
    try:
        (few, _), (more, output) = (_values(model, part, "activations", task, seed) for part in (two, three))
    except UserError:  # scripted, frozen: nothing is seen inside
        return None
    for name, value in reversed(more.items()):
        by_input = value.dim() > 1 and len(value) == 3 and name in few and len(few[name]) == 2
        if by_input and value.is_floating_point() and not _is_output(value, output):
            return name
    return None


def _is_output(value: Tensor, output: Tensor) -> bool:
    return value.numel() == output.numel() and torch.equal(value.flatten().to(output.dtype), output.flatten())


def _values(
    model: nn.Module, x: Tensor, layers: str | list[str], task: Task, seed: int
) -> tuple[dict[str, Tensor], Tensor]:
    with preserved(model, "eval", seed, x.device), torch.no_grad(), capture(model, layers) as values:
        output = task.read(call_model(model, suited(model, x)))
        return dict(values), output


def _rows(values: Tensor) -> Tensor:
    wide = values.dim() > 2 and values[0].numel() > _MOST
    return (values.flatten(2).mean(2) if wide else values.flatten(1)).float()
