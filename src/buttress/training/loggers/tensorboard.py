"""TensorBoard: files of events in the run's own folder."""

from __future__ import annotations

from collections.abc import Mapping

from buttress.training.loggers.base import Logger, Run


class TensorBoard(Logger):
    """``tensorboard/`` in the run's folder, with one file for each time that the run was started or went on.

    TensorBoard shows these as one run, and drops what a killed run wrote after the step at which it goes on.
    """

    package = "tensorboard"
    install = "tensorboard"
    at_once = False

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What came at the purge step and later is dropped: the row of the checkpoint's own step is to stay.
        self._board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """One scalar for each figure."""
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def close(self, *, finished: bool) -> None:
        """The file of events is whole."""
        self._board.close()
