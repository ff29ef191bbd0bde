"""The processes and the device that a computation runs on, by Lightning Fabric."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from buttress.engine.machine import Machine
from buttress.errors import UserError, one_line
from buttress.processes import on_first_process
from buttress.started import Started, started

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

Result = TypeVar("Result")

# A process may wait for another that crafts for long; one that has gone is noticed otherwise (see `cli.together`).
_PATIENCE = timedelta(days=30)


def start_fabric(machine: Machine, strategy: str = "auto", **options: Any) -> Fabric:
    """Lightning Fabric, with all processes that were started together; with this one alone where ``devices`` is 1.

    Args:
        machine: on what; with more than one device, the processes have been started with torchrun or Slurm's srun.
        strategy: of several processes that train together, a name of Fabric's.
        **options: further ones of Fabric's constructor.

    Raises:
        UserError: when they cannot be had.
    """
    from lightning_fabric import Fabric

    if machine.devices != 1:
        machine.check_processes()
    together = None if machine.devices == 1 else started()
    here, hosts = (1, 1) if together is None else (together.here, together.hosts)
    settings: dict[str, Any] = {"accelerator": machine.kind, "devices": here, "num_nodes": hosts, **options}
    settings |= {} if together is None else {"strategy": strategy}
    try:
        fabric = Fabric(**settings, plugins=[_environment(together)])
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # Fabric refuses in all of these
        named = ", ".join(f"{name} {value!r}" for name, value in settings.items())
        raise UserError(f"{named} cannot be had: {' '.join(str(error).split())}") from None
    if together is not None:
        join()
        fabric.launch()
    return fabric


def start_processes(machine: Machine = Machine(), *, dry_run: bool = False) -> torch.device:
    """Join the processes that a command is shared by; the device of this one.

    Args:
        machine: what the command is given.
        dry_run: whether they only have to be there.

    Raises:
        UserError: when they cannot be had, or are not as many as the machine says.
    """
    machine.check_processes()
    return machine.device if dry_run or started() is None else start_fabric(machine).device


def first_answers(fabric: Fabric, work: Callable[[], Result]) -> Result:
    """What ``work`` returns in the first of the processes that Fabric holds, which may be this one alone.

    Raises:
        UserError: in each of them, where it raised one.
    """
    return on_first_process(work) if fabric.world_size > 1 else work()


def join() -> None:
    """Let the processes that were started together know of each other, once; nothing for one alone.

    Raises:
        UserError: where they do not find each other.
    """
    together = started()
    if together is None or distributed.is_initialized():
        return
    environment = _environment(together)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        distributed.init_process_group(backend, rank=together.rank, world_size=together.count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(
            f"the processes do not find each other at {where} (MASTER_ADDR, MASTER_PORT): {one_line(error)}"
        ) from None
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _environment(together: Started | None) -> ClusterEnvironment:
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if together is None:
        return LightningEnvironment()
    return TorchElasticEnvironment() if together.by == "torchrun" else SLURMEnvironment()
