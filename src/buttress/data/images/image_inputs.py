"""Images as inputs: decoded once where they fit into memory, else whenever they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from buttress.data.images.decode import Format, load_images
from buttress.data.images.image_file import FileTable
from buttress.data.lazy_inputs import LazyInputs
from buttress.data.memory import fits

Inputs = Tensor | LazyInputs


class DecodedImages:
    """A source of uint8 inputs, for `LazyInputs`.

    Args:
        files: the images.
        form: what they are converted to.
    """

    dtype = torch.uint8

    def __init__(self, files: FileTable, form: Format) -> None:
        self._files, self._form = files, form
        self.shape: tuple[int, ...] = (len(form.mode), form.height, form.width)

    def read(self, rows: Sequence[int]) -> Tensor:
        """Decode some.

        Raises:
            UserError: naming the file that cannot be read any more.
        """
        return torch.from_numpy(load_images([self._files[row] for row in rows], self._form))


def image_inputs(parts: Sequence[FileTable], form: Format) -> tuple[list[Inputs], str]:
    """The images of each part of a data set: all in memory where they fit there, else none.

    Args:
        parts: for training, validation and test.
        form: what they are converted to.

    Returns:
        The inputs, and a sentence where they do not fit.
    """
    lazy = [LazyInputs(DecodedImages(files, form), torch.arange(len(files))) for files in parts]
    count, size = sum(map(len, lazy)), sum(inputs.nbytes for inputs in lazy)
    if fits(size):
        return [inputs.source.read(range(len(inputs))) for inputs in lazy], ""
    needed = f"of {count} images all would take {size / 1e9:.1f} GB, more than half of the memory that is free"
    return list(lazy), f"{needed}: they are decoded as they are needed"
