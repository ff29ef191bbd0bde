"""Weights & Biases: a run of a project."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from buttress.training.loggers.base import Logger, Run


class WandB(Logger):
    """A run of Weights & Biases, in the project that its own variables name (``WANDB_PROJECT``, ``WANDB_ENTITY``).

    The caller's own active run is left alone, and so is what is printed. A run that goes on is the same run there. With
    ``WANDB_MODE=offline`` each start leaves a folder of that run in ``wandb/`` of the run's own, for ``wandb sync``.
    """

    package = "wandb"
    install = "'buttress[wandb]'"

    def __init__(self, run: Run) -> None:
        import wandb

        identity = run.identity("wandb")
        if identity is None:
            identity = uuid.uuid4().hex[:8]
            run.remember("wandb", identity)
        self._run = wandb.init(
            id=identity,
            resume="allow",
            reinit="create_new",
            name=run.name,
            dir=str(run.folder),
            config=run.settings(),
            settings=wandb.Settings(console="off", silent=True),
        )

    def write(self, figures: Mapping[str, float], step: int) -> None:
        """One row of figures; of a step that is there already W&B keeps the first."""
        self._run.log(dict(figures), step=step)

    def close(self, *, finished: bool) -> None:
        """The run is finished, or crashed."""
        self._run.finish(exit_code=0 if finished else 1)
