"""Make the embedded data set fashion-mini from the idx files of Fashion-MNIST.

    python scripts/make_fashion_mini.py SOURCE_DIR [OUT]

SOURCE_DIR is where Debian's package dataset-fashion-mnist puts its files: /usr/share/datasets/fashion-mnist. OUT is the
file to write, by default the one in the package. The same source gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from buttress.data.sets.fashion_mini import FILE, SHA256
from buttress.data.sets.mnist import read_pair

PER_CLASS = {"train": 900, "test": 100}
PREFIX = {"train": "train", "test": "t10k"}
# sha256 of the images and of the labels as decoded, C order: the same whichever way the files are compressed.
SOURCE_SHA256 = {
    "train": (
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    ),
    "test": (
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ),
}


def select(labels: NDArray[np.uint8], per_class: int) -> NDArray[np.int64]:
    """The first ``per_class`` rows of each class, in ascending order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in range(10)]))


def pack(arrays: dict[str, NDArray[np.uint8]]) -> bytes:
    """An .npz file, compressed as far as deflate goes (no Python lacks it) and without the time of writing."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(entry, content.getvalue(), compresslevel=9)
    return out.getvalue()


def make(source: Path) -> bytes:
    """The file's content from the folder with the four idx files."""
    arrays = {}
    for part, prefix in PREFIX.items():
        paths = [source / f"{prefix}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
        x, y = read_pair(*paths)
        digests = tuple(hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for array in (x, y))
        if digests != SOURCE_SHA256[part]:
            sys.exit(f"{source}: the {part} files are not the published Fashion-MNIST: sha256 {digests}")
        rows = select(y, PER_CLASS[part])
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x[rows, 0], y[rows]
    return pack(arrays)


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else FILE
    content = make(Path(sys.argv[1]))
    digest = hashlib.sha256(content).hexdigest()
    out.write_bytes(content)
    print(f"{out}: {len(content)} bytes, sha256 {digest}")
    if digest != SHA256:
        sys.exit(f"this is not the sha256 that buttress.data.sets.fashion_mini expects: {SHA256}")


if __name__ == "__main__":
    main()
