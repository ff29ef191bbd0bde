"""Checkpoints that a crash cannot spoil: written beside, then put in place by one rename."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from buttress.errors import UserError
from buttress.plain_data import read_json
from buttress.safe_files import full_disk_reported, sync
from buttress.tensor_forms import plain_state

Content = tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]  # weights, state, progress
_PREFIX = "step-"
_KEPT = 2  # the newest, and one to fall back on should its files be damaged


def check_finite(weights: dict[str, Tensor], step: int, cure: str) -> None:
    """Refuse weights that are not numbers.

    Args:
        weights: by name.
        step: steps done.
        cure: what to do about it.

    Raises:
        UserError: naming the first one.
    """
    for name, value in plain_state(weights).items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"weight {name!r} is not finite at step {step}: training diverged; {cure}")


def save(
    folder: Path,
    step: int,
    weights: dict[str, Tensor],
    state: dict[str, Any],
    progress: dict[str, Any],
    cure: str,
) -> None:
    """Write the checkpoint of ``step`` into ``folder`` and remove all but the one before it.

    Args:
        folder: where checkpoints live.
        step: steps done.
        weights: tensors, kept as safetensors.
        state: the optimiser's and other state, tensors and plain values.
        progress: plain values, kept as JSON.
        cure: see `check_finite`.

    Raises:
        UserError: when a weight is not finite or the disk is full; the last good checkpoint stays.
    """
    check_finite(weights, step, cure)
    packed = io.BytesIO()
    torch.save(state, packed)  # in memory: on a full disk torch's writer raises what does not say so
    final, beside = folder / f"{_PREFIX}{step:09d}", folder / f".{_PREFIX}{step:09d}.tmp"
    with full_disk_reported(final):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            plain = {name: value.cpu().contiguous().clone() for name, value in plain_state(weights).items()}
            save_file(plain, beside / "weights.safetensors")
            (beside / "state.pt").write_bytes(packed.getbuffer())
            (beside / "progress.json").write_text(json.dumps(progress))
            for file in beside.iterdir():
                sync(file)
            shutil.rmtree(final, ignore_errors=True)
            os.rename(beside, final)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        sync(folder)
    for other in [*folder.glob(f".{_PREFIX}*"), *sorted(folder.glob(f"{_PREFIX}*"))[:-_KEPT]]:
        shutil.rmtree(other, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in ``folder``, if there is one."""
    folders = sorted(folder.glob(f"{_PREFIX}*"))
    return folders[-1] if folders else None


def load(path: Path) -> Content:
    """The weights, state and progress of a checkpoint; nothing in it is executed.

    Raises:
        UserError: when a part is missing or damaged.
    """
    try:
        weights = load_file(path / "weights.safetensors")
        state = torch.load(path / "state.pt", weights_only=True, map_location="cpu")
        progress = read_json((path / "progress.json").read_text())
        if not isinstance(state, dict) or not isinstance(progress, dict):
            raise ValueError("it lacks what a checkpoint holds")
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise UserError(
            f"the checkpoint {path} cannot be read ({reason}): remove it, and the one before it is used"
        ) from None
    return weights, state, progress
