"""The processes and the device that a computation runs on, by Lightning Fabric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buttress.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def start_fabric(accelerator: str, devices: int, **options: Any) -> Fabric:
    """Lightning Fabric, with all its processes.

    Args:
        accelerator: of Fabric: "cpu", "cuda", "auto" ...
        devices: processes; with more than one, they have been started with torchrun.
        **options: further ones of Fabric's constructor.

    Raises:
        UserError: when they cannot be had.
    """
    from lightning_fabric import Fabric

    settings: dict[str, Any] = {"accelerator": accelerator, "devices": devices, **options}
    try:
        fabric = Fabric(**settings)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:  # Fabric refuses in all of these
        named = ", ".join(f"{name} {value!r}" for name, value in settings.items())
        raise UserError(f"{named} cannot be had: {' '.join(str(error).split())}") from None
    if devices > 1:
        fabric.launch()
    return fabric
