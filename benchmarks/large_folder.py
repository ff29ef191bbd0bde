"""Training and audit of a folder of images that is larger than memory.

``make``: writes JPEGs of 224x224 by class; begun again, it goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 224
CLASSES = 10


def write_images(folder: Path, count: int) -> None:
    """``count`` JPEGs by class: nine tenths for training, the rest for validation and the test; those there stay."""
    for index in range(count):
        split = {18: "val", 19: "test"}.get(index // CLASSES % 20, "train")
        path = folder / split / str(index % CLASSES) / f"{index:06d}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_image(path, index)


def _write_image(path: Path, index: int) -> None:
    """Coloured clouds under stripes, of which each class has its own number."""
    coarse = np.random.default_rng(index).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    clouds = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    stripes = 32 * np.sin(2 * np.pi * 2 * (1 + index % CLASSES) * np.arange(SIDE) / SIDE)
    pixels = np.clip(clouds + stripes[None, :, None], 0, 255).astype(np.uint8)
    beside = path.with_suffix(".part")
    Image.fromarray(pixels).save(beside, "JPEG", quality=90)
    beside.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    write_images(options.folder, options.images)
