"""A run's figures as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from buttress.safe_files import write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Logs:
    """Where a run's figures go, until `close`.

    Args:
        folder: gets ``metrics.csv`` (whole after each epoch, so a resumed run has no row twice) and ``tensorboard/``,
            with one file for each time that the run was started or went on; None writes nothing.
        step: steps done when the run starts or goes on; TensorBoard drops what a killed run wrote after it.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self.folder = folder
        self.step = step
        self.board: SummaryWriter | None = None

    def write(self, history: list[dict[str, float]], step: int) -> None:
        """Write the rows so far; the last one is new, at ``step``."""
        if self.folder is None:
            return
        names = list(dict.fromkeys(name for row in history for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.folder / "metrics.csv", text.getvalue())
        if self.board is None:
            from torch.utils.tensorboard import SummaryWriter

            # TensorBoard drops what came at the purge step and later: the row of the checkpoint's own step is to stay.
            self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)
        for name, value in history[-1].items():
            self.board.add_scalar(name, value, step)
        self.board.flush()

    def close(self) -> None:
        """Nothing more is written."""
        if self.board is not None:
            self.board.close()
