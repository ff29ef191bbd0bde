"""A folder of images that does not fit into memory: read batch by batch, in the order of its names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from buttress.data.dataset import BATCH
from buttress.data.folder import class_names, common_format, image_files, load_images
from buttress.validation import whole


class FolderBatches:
    """The images of ``PATH/<class>/*`` as ``(x, y)`` batches, for ``evaluate`` and other users of an iterable.

    Order, classes, sizes and modes are those of the data set ``folder:PATH``: classes and files sorted by name, of 8
    bits, grey if all are grey. Only the files' headers are read beforehand. It can be iterated any number of times.

    Args:
        path: the folder.
        size: side, or (height, width), to resize to (bicubic); without it all images must have one size.
        batch: images per batch.

    Attributes:
        classes: the folders' names, sorted.

    Raises:
        UserError: naming the file or folder, for an unreadable image, sizes that differ, or an empty class.
    """

    def __init__(self, path: str | Path, *, size: int | tuple[int, int] | None = None, batch: int = BATCH) -> None:
        whole("batch", batch)
        self.classes = tuple(class_names(Path(path)))
        self._files = image_files(Path(path), self.classes)
        self._shape, self._mode = common_format(self._files, size)
        self._batch = batch

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-len(self._files) // self._batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (N, C, H, W) in [0, 1] and int64 labels (N,), batch by batch."""
        for start in range(0, len(self._files), self._batch):
            x, y = load_images(self._files[start : start + self._batch], self._shape, self._mode)
            yield torch.from_numpy(x).float().div_(255), torch.from_numpy(y)
