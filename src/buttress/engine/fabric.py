"""The processes and the device that a computation runs on, by Lightning Fabric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buttress.engine.machine import Machine
from buttress.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def start_fabric(machine: Machine, **options: Any) -> Fabric:
    """Lightning Fabric, with all its processes.

    Args:
        machine: on what; with more than one device, the processes have been started with torchrun.
        **options: further ones of Fabric's constructor.

    Raises:
        UserError: when they cannot be had.
    """
    from lightning_fabric import Fabric

    settings: dict[str, Any] = {"accelerator": machine.kind, "devices": machine.devices, **options}
    machine.check_processes()
    try:
        fabric = Fabric(**settings)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # Fabric refuses in all of these
        named = ", ".join(f"{name} {value!r}" for name, value in settings.items())
        raise UserError(f"{named} cannot be had: {' '.join(str(error).split())}") from None
    if machine.devices > 1:
        fabric.launch()
    return fabric
