"""Where a command computes: which accelerator, on how many devices, and how that is told."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from torch import nn

from buttress.errors import UserError
from buttress.float64 import lacks_float64
from buttress.processes import rank_and_count
from buttress.started import started
from buttress.validation import one_of, whole

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
_COUNTS = ("devices", "num_nodes")
_DOUBLE = (torch.float64, torch.complex128)


def accelerators() -> list[str]:
    """Those that this machine has and this torch can use, the best first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, available in there.items() if available]


def device_name(device: torch.device | str) -> str:
    """What a device is called: "NVIDIA H200", "CPU"."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()


def told(device: torch.device) -> str:
    """What a command says first: "on cuda: NVIDIA H200", "on cpu, 1 thread", "on mps", and by how many processes."""
    threads, count = torch.get_num_threads(), rank_and_count()[1]
    kinds = {"cuda": f": {device_name(device)}", "cpu": f", {threads} thread{'s' * (threads != 1)}"}
    shared = f", shared by {count} processes" if count > 1 else ""
    return f"on {device.type}{kinds.get(device.type, '')}{shared}"


def placed(model: nn.Module, device: torch.device) -> nn.Module:
    """The network, moved to the device.

    Raises:
        UserError: for a float64 network on a device that computes in float32 at most.
    """
    if lacks_float64(device):
        values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        found = next((name for name, value in values.items() if value.dtype in _DOUBLE), None)
        if found is not None:
            raise UserError(
                f"{device.type} has no float64, which the network's {found} is: give --accelerator cpu, or make the "
                "network float32 (model.float())"
            )
    return model.to(device)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where to compute.

    Args:
        accelerator: cpu, cuda or mps; auto takes the best that this machine has.
        devices: of each host, one process each, that share the work; as many as torchrun or srun started by default.
        num_nodes: hosts; as many as there are processes on by default.

    Raises:
        UserError: for settings that mean nothing.
    """

    flat: ClassVar[bool] = True  # its fields are options of the job itself on the command line

    accelerator: Accelerator = "auto"
    devices: int | None = None
    num_nodes: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        one_of("accelerator", self.accelerator, get_args(Accelerator))
        for name in _COUNTS:
            if getattr(self, name) is not None:
                whole(name, getattr(self, name))

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
        """That of this process: with its number on its host, where several were started together.

        Raises:
            UserError: for an accelerator that this machine has not.
        """
        together = None if self.devices == 1 else started()
        index = 0 if together is None else together.local_rank
        return torch.device("cpu") if self.kind == "cpu" else torch.device(self.kind, index)

    def check_processes(self) -> None:
        """Refuse other numbers of devices and hosts than there are processes for; what is not given follows them.

        Raises:
            UserError: with the command to type.
        """
        together = started()
        asked = (self.devices, self.num_nodes)
        if together is None and all(count in (None, 1) for count in asked):
            return
        if together is None:
            ours = Path(sys.argv[0]).name in ("buttress", "__main__.py")
            what = shlex.join(["-m", "buttress", *sys.argv[1:]]) if ours else "your_script.py"
            here, hosts = self.devices or 1, self.num_nodes or 1
            several = f"{here * hosts} devices take a process each"
            where = "--standalone" if hosts == 1 else f"--nnodes {hosts} --rdzv-backend c10d --rdzv-endpoint HOST:29500"
            on = "" if hosts == 1 else "on each host, "
            raise UserError(f"{several}: {on}torchrun {where} --nproc-per-node {here} {what}")
        for name, given, there in zip(_COUNTS, asked, (together.here, together.hosts), strict=True):
            if given not in (None, there):
                raise UserError(
                    f"{name} must be {there}, as {together.by} has started the processes; got {given}: leave it out"
                )
