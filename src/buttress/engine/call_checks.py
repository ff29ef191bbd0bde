"""What is refused before an attack begins, each case with what came and what to do."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor, nn

from buttress.engine.oracle import Search
from buttress.engine.preserved_model import Mode, Model
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.model_call import parameter_dtype
from buttress.tasks.task import length_hint
from buttress.threat.box import Box, Ends
from buttress.validation import one_of, whole


def check_call(search: Search, mode: Mode, precision: Precision, batch_size: int | None) -> None:
    """Refuse settings of a call that are unknown or do not go together.

    Raises:
        UserError: naming the setting, its value and what it may be.
    """
    for name, value, choices in (
        ("search", search, get_args(Search)),
        ("mode", mode, get_args(Mode)),
        ("precision", precision, get_args(Precision)),
    ):
        one_of(name, value, choices)
    if batch_size is not None:
        whole("batch_size", batch_size)
    if mode == "train" and (search == "first" or batch_size is not None):
        raise UserError('mode="train" mixes the inputs of a batch: it needs search="full" and no batch_size')
    if mode == "train" and precision not in ("fp32", "bf16"):
        raise UserError(f'mode="train" computes with the batch\'s own statistics: fp32 or bf16; got {precision!r}')


def check_inputs(model: Model, x: Tensor, y: Tensor, box: Ends | None) -> None:
    """Refuse inputs and labels of the wrong kind, and a model that does not fit them.

    Raises:
        UserError: naming what came and what to do.
    """
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        raise UserError(f"inputs and labels must be tensors; got {type(x).__name__} and {type(y).__name__}")
    check_numbers(x)
    if y.dim() == 0 or len(y) != len(x):
        came = f"{len(y)}" if y.dim() else "a single one"
        raise UserError(f"{len(x)} inputs need as many labels; got {came}{length_hint(y, len(x))}")
    if y.device != x.device:
        raise UserError(f"inputs and labels must be on one device; got {x.device} and {y.device}")
    if not bool(torch.isfinite(x).all()):
        bad = int((~torch.isfinite(x.flatten(1))).any(1).sum())
        raise UserError(f"inputs must be finite; {bad} of {len(x)} hold NaN or infinity")
    low, high = (float(v) for v in torch.aminmax(x.detach())) if x.numel() else (0.0, 0.0)
    limits = Box.read(box)
    if limits is not None and limits.uniform and not limits.holds(x):
        raise UserError(
            f"inputs must lie in the box {limits.plain()}; got {low:.4g} to {high:.4g}: if the loader normalises, take "
            "that out and wrap the model as models.Normalized(model, mean, std); for other data, set the box"
        )
    if limits is not None and not limits.uniform:
        limits.check(x)
    check_fit(model, x)


def check_fit(model: Model, x: Tensor) -> None:
    """Refuse inputs that are on another device than the model, or in float64 where its weights are float32.

    Raises:
        UserError: naming both.
    """
    weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if weights is not None and weights.device != x.device:
        raise UserError(f"the model is on {weights.device}, the inputs are on {x.device}: move one of them")
    if x.dtype == torch.float64 and parameter_dtype(model) == torch.float32:
        raise UserError(f"the model's weights are torch.float32, the inputs {x.dtype}: convert one of them")


def check_tensor(x: object) -> None:
    """Refuse inputs that are no tensor.

    Raises:
        UserError: saying what came.
    """
    if not isinstance(x, Tensor):
        raise UserError(f"inputs must be a tensor; got a {type(x).__name__}")


def check_numbers(x: Tensor) -> None:
    """Refuse inputs that cannot be moved by a little, and those of less than single precision.

    Raises:
        UserError: with what to type instead: for tokens `models.FromEmbedding`.
    """
    check_tensor(x)
    if x.dtype in (torch.float32, torch.float64):
        return
    hint = "x.float() / 255" if x.dtype == torch.uint8 else "x.float()"
    if not x.is_floating_point() and x.dtype not in (torch.uint8, torch.bool):
        hint += "; for tokens wrap the network, model = models.FromEmbedding(model), and give model.embed(x)"
    raise UserError(f"inputs must be float32 or float64; got {x.dtype}: use {hint}")
