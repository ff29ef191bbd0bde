"""A run's figures as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from buttress.safe_files import write_text


class Logs:
    """Where a run's figures go.

    Args:
        folder: gets ``metrics.csv`` (whole after each epoch, so a resumed run has no row twice) and ``tensorboard/``;
            None writes nothing.
        step: steps done when the run starts or goes on; TensorBoard drops what a killed run wrote after it.
    """

    def __init__(self, folder: Path | None, step: int) -> None:
        self.folder = folder
        self.step: int | None = step  # None once this run has written

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
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard drops what came at the purge step and later: the row of the checkpoint's own step is to stay.
        purge = None if self.step is None else self.step + 1
        board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=purge)
        for name, value in history[-1].items():
            board.add_scalar(name, value, step)
        board.close()
        self.step = None
