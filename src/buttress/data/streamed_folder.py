"""A folder of images that does not fit into memory: read batch by batch, in the order of its names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from buttress.data.dataset import BATCH
from buttress.data.images.class_list import class_list
from buttress.data.images.decode import common_format, load_images
from buttress.data.images.layout import WHOLE, read_layout
from buttress.errors import UserError
from buttress.validation import whole


class FolderBatches:
    """The images of ``PATH/<class>/*`` as ``(x, y)`` batches, for ``evaluate`` and other users of an iterable.

    Order, classes, sizes and modes are those of the data set ``folder:PATH``, see there. Only the files' headers are
    read beforehand. It can be iterated any number of times.

    Args:
        path: the folder; of one with splits ask for a split, as in ``PATH/test``.
        classes: the network's classes in its order, as for the data set.
        size: side, or (height, width), to resize to (bicubic); without it all images must have one size.
        batch: images per batch.

    Attributes:
        classes: their names, in the order of the labels.
        notes: sentences on what was used as what, and what is done to it.

    Raises:
        UserError: naming the file or folder, for an unreadable image, sizes that differ, or an empty class.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        classes: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        batch: int = BATCH,
    ) -> None:
        whole("batch", batch)
        layout = read_layout(Path(path))
        if WHOLE not in layout.parts:
            split = next(iter(layout.places.values()))
            raise UserError(f"{path}: expected folders of classes, got splits; ask for one, as in {path}/{split}")
        files = layout.parts[WHOLE]
        known = class_list([name for _, name in files], classes, str(path))
        self.classes = known.names
        self._files = [file for file, _ in files]
        self._labels = torch.tensor([known.labels[name] for _, name in files])
        self._format = common_format(self._files, size)
        self.notes = tuple(filter(None, (*layout.notes, *self._format.notes, known.note)))
        self._batch = batch

    def __len__(self) -> int:
        """How many batches there are."""
        return -(-len(self._files) // self._batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """float32 images (N, C, H, W) in [0, 1] and int64 labels (N,), batch by batch."""
        for start in range(0, len(self._files), self._batch):
            rows = slice(start, start + self._batch)
            x = torch.from_numpy(load_images(self._files[rows], self._format))
            yield x.float().div_(255), self._labels[rows]
