"""Where a command computes: which accelerator, on how many devices, and how that is told."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch

from buttress.errors import UserError
from buttress.validation import one_of, whole

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
_STARTED = ("LOCAL_WORLD_SIZE", "SLURM_NTASKS")  # set by torchrun, by Slurm


def accelerators() -> list[str]:
    """Those that this machine has and this torch can use, the best first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, available in there.items() if available]


def device_name(device: torch.device | str) -> str:
    """What a device is called: "NVIDIA H200", "CPU"."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def told(device: torch.device) -> str:
    """What a command says first: "on cuda: NVIDIA H200", "on cpu, 1 thread"."""
    if device.type == "cuda":
        return f"on cuda: {device_name(device)}"
    threads = torch.get_num_threads()
    return f"on cpu, {threads} thread{'s' * (threads != 1)}" if device.type == "cpu" else f"on {device.type}"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where to compute.

    Args:
        accelerator: cpu, cuda or mps; auto takes the best that this machine has.
        devices: that share the work, one process each; with more than one, start the command with torchrun.

    Raises:
        UserError: for settings that mean nothing.
    """

    flat: ClassVar[bool] = True  # its fields are options of the job itself on the command line

    accelerator: Accelerator = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        one_of("accelerator", self.accelerator, get_args(Accelerator))
        whole("devices", self.devices)

    @property
    def kind(self) -> str:
        """The accelerator that is used: cpu, cuda or mps.

        Raises:
            UserError: for one that this machine has not.
        """
        there = accelerators()
        if self.accelerator == "auto":
            return there[0]
        if self.accelerator not in there:
            raise UserError(
                f"accelerator {self.accelerator!r} cannot be had: this torch finds {' and '.join(there)} on this "
                f"machine; give {' or '.join(there)}, or auto"
            )
        return self.accelerator

    @property
    def device(self) -> torch.device:
        """That of this process, or of the first, before `start_fabric` gives each its own.

        Raises:
            UserError: for an accelerator that this machine has not.
        """
        return torch.device("cpu") if self.kind == "cpu" else torch.device(self.kind, 0)

    def alone(self, command: str) -> torch.device:
        """The one device of a command that does not share its work.

        Raises:
            UserError: where more are asked for, or have been started.
        """
        started = int(os.environ.get(_STARTED[0], 1))
        if self.devices > 1 or started > 1:
            got = f"devices {self.devices}" if self.devices > 1 else f"{started} processes of torchrun"
            raise UserError(f"{command} computes on one device, in one process; got {got}: leave that out")
        return self.device

    def check_processes(self) -> None:
        """Refuse several devices where there are no processes for them.

        Raises:
            UserError: with the command to type.
        """
        if self.devices == 1 or any(name in os.environ for name in _STARTED):
            return
        ours = Path(sys.argv[0]).name in ("buttress", "__main__.py")
        what = shlex.join(["-m", "buttress", *sys.argv[1:]]) if ours else "your_script.py"
        raise UserError(
            f"{self.devices} devices take a process each: torchrun --standalone --nproc-per-node {self.devices} {what}"
        )
