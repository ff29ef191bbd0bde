"""A learned training set as files: a picture to look at, and tensors to train on again."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from buttress import data
from buttress.data.dataset import Dataset, Split
from buttress.errors import UserError
from buttress.safe_files import full_disk_reported, sync

_WIDTH = 10  # images in a row of the picture
_SIDE = 32  # pixels that a small image is magnified to, at least


def write_set(file: str | Path, images: Tensor, labels: Tensor) -> None:
    """Write a learned set as safetensors: ``x`` (M, ...) float32, ``labels`` (M, C) float32, ``y`` (M,) int64.

    Args:
        file: replaced when it is there.
        images: (M, ...) inputs.
        labels: (M, C) outputs wanted for them; ``y`` is the class of the largest.
    """
    tensors = {"x": images.float(), "labels": labels.float(), "y": labels.argmax(1)}
    _write(Path(file), save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}))


def read_set(file: str | Path) -> tuple[Tensor, Tensor]:
    """The inputs (M, ...) and labels (M, C), both float32, that `write_set` wrote; no code is run.

    Raises:
        UserError: when the file is missing, damaged, or holds something else.
    """
    path = Path(file)
    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else "damaged, or no safetensors file"
        raise UserError(f"{path}: expected a learned set, the dataset.safetensors of a run, but: {reason}") from None
    x, labels = tensors.get("x"), tensors.get("labels")
    if x is None or labels is None or labels.dim() != 2 or len(labels) != len(x) or not len(x):
        contents = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
        raise UserError(
            f"{path}: expected a learned set, x (M, ...) with labels (M, C); it holds {contents or 'nothing'}"
        )
    return x.float(), labels.float()


def as_split(images: Tensor, labels: Tensor, first: int) -> Split:
    """A learned set as a split, on the CPU: classes are those of the largest label, ids count from ``first``."""
    ids = torch.arange(first, first + len(images))
    return Split(images.detach().float().cpu(), labels.argmax(1).cpu(), ids)


def free_id(dataset: Dataset) -> int:
    """The first id that no input of a data set has."""
    return 1 + max(int(split.ids.max()) for split in dataset.splits.values())


def learned(*, data_dir: str | Path | None = None, real: str = "fashion-mini", seed: int = 0) -> Dataset:
    """A learned set as a data set for any defence: it to train on, real inputs for validation and test.

    For the command line: ``--data buttress.defences.adv_kip.files:learned --data-dir RUN/dataset.safetensors``, and
    ``real`` among its options. Labels are classes here; learned labels that are no classes need `AdvKIP` itself.

    Args:
        data_dir: the file.
        real: the data set that it was learned from.
        seed: of that data set's validation split.

    Raises:
        UserError: when the file cannot be read or does not fit the real data.
    """
    if data_dir is None:
        raise UserError("expected the file of a learned set as data_dir, the dataset.safetensors of a run; got none")
    images, labels = read_set(data_dir)
    whole = data.load(real, seed=seed)
    check_fits(images, labels, whole, str(data_dir))
    train = as_split(images, labels, free_id(whole))
    provenance = f"learned from {real} by adv-kip, file {data_dir}; validation and test: {whole.provenance}"
    return replace(whole, name=f"{whole.name}, learned", train=train, provenance=provenance, augment=None)


def check_fits(images: Tensor, labels: Tensor, dataset: Dataset, where: str) -> None:
    """Refuse a learned set of another shape or other classes than a data set.

    Raises:
        UserError: naming ``where`` it is from, what was expected and what came.
    """
    expected = (dataset.shape, len(dataset.classes))
    got = (tuple(images.shape[1:]), labels.shape[1])
    if expected != got:
        raise UserError(f"{where}: expected inputs {expected[0]} of {expected[1]} classes, got {got[0]} of {got[1]}")


def write_picture(file: str | Path, images: Tensor, box: tuple[float, float] | None = (0.0, 1.0)) -> None:
    """Write images as one PNG, ten in a row, small ones magnified.

    Args:
        file: replaced when it is there.
        images: (M, C, H, W), C being 1 or 3.
        box: the values of black and white; the lowest and highest there are unless given.

    Raises:
        UserError: for inputs that are no images.
    """
    import io

    from PIL import Image

    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"a picture is made of images (M, 1 or 3, H, W); got inputs {tuple(images.shape)}")
    picture = Image.fromarray(grid(images, box))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    _write(Path(file), buffer.getvalue())


def grid(images: Tensor, box: tuple[float, float] | None) -> NDArray[np.uint8]:
    """(rows, columns) or (rows, columns, 3) pixels of all images, each with a white line around it."""
    values = images.detach().double().cpu()
    low, high = (float(values.min()), float(values.max())) if box is None else box
    levels = ((values - low) / max(high - low, 1e-12) * 255).round().clamp(0, 255).to(torch.uint8)
    factor = max(1, -(-_SIDE // images.shape[-1]))
    levels = levels.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    levels = torch.nn.functional.pad(levels, (1, 1, 1, 1), value=255)
    missing = -len(levels) % _WIDTH
    levels = torch.cat([levels, levels.new_full((missing, *levels.shape[1:]), 255)])
    count, channels, height, width = levels.shape
    lines = levels.view(count // _WIDTH, _WIDTH, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels: NDArray[np.uint8] = lines.reshape(count // _WIDTH * height, _WIDTH * width, channels).numpy()
    return pixels[:, :, 0] if channels == 1 else pixels


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step."""
    with full_disk_reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.tmp")
        try:
            beside.write_bytes(content)
            sync(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
