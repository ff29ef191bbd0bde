"""What started this process, and how many beside it: torchrun, or Slurm's srun. Read from the environment alone."""

from __future__ import annotations

import os
from dataclasses import dataclass

from buttress.errors import UserError

_TORCHRUN = "TORCHELASTIC_RUN_ID"
_SRUN = "SLURM_STEP_NUM_TASKS"  # only in what srun starts; a batch script itself is one process, whatever it asked for
_INTERACTIVE = ("bash", "interactive")  # names of jobs in which Lightning Fabric, too, takes no notice of Slurm


@dataclass(frozen=True)
class Started:
    """One process among several.

    Attributes:
        by: torchrun or srun.
        rank: its number, from 0, among all.
        count: of all.
        local_rank: its number among those of its host.
        here: how many its host has.
        hosts: how many there are.
    """

    by: str
    rank: int
    count: int
    local_rank: int
    here: int
    hosts: int


def started() -> Started | None:
    """This process among those it was started with; None for one alone.

    Raises:
        UserError: where Slurm does not say how many processes each host has.
    """
    if _TORCHRUN in os.environ:
        rank, count, local, here = (_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        return Started("torchrun", rank, count, local, here, count // here) if count > 1 else None
    if _number(_SRUN, 1) < 2 or os.environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError("Slurm does not say how many processes a host has: start them with srun --ntasks-per-node=...")
    rank, count, local = (_number(name) for name in ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
    return Started("srun", rank, count, local, _number("SLURM_NTASKS_PER_NODE"), _number("SLURM_NNODES", 1))


def forget() -> None:
    """Make this process one alone, and those that it starts."""
    for name in (_TORCHRUN, _SRUN):
        os.environ.pop(name, None)


def _number(name: str, default: int | None = None) -> int:
    value = os.environ.get(name, "" if default is None else str(default))
    if not value.isdecimal():
        raise UserError(f"the environment's {name} must be a whole number, as torchrun and srun set it; got {value!r}")
    return int(value)
