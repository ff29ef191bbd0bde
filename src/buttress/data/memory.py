"""How much memory is free for inputs: the host's under every limit that this process has, and a device's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from buttress.errors import UserError
from buttress.started import started

_SHARE = 0.5  # of what is free; the rest is for the network, its activations, and what is found
_NO_LIMIT = float("inf")
_CGROUPS = Path("/sys/fs/cgroup")


_HOST = torch.device("cpu")


def fits(size: int, device: torch.device = _HOST) -> bool:
    """Whether ``size`` bytes may be held there: half of what is free, which the processes of a host share."""
    return size <= room(device)


def room(device: torch.device = _HOST) -> float:
    """Bytes that may be held there."""
    return _SHARE * (free_memory() if device.type == "cpu" else free_memory_of(device))


def require_memory(size: int, what: str, device: torch.device = _HOST) -> None:
    """Refuse what does not fit.

    Args:
        size: in bytes.
        what: what takes them, as the subject of a sentence.
        device: where they would be.

    Raises:
        UserError: with the sizes, and what to type.
    """
    if size > (most := room(device)):
        where = "memory" if device.type == "cpu" else f"the memory of {device}"
        raise UserError(
            f"{what} would take {size / 1e9:.1f} GB of {where}, more than half of the {most / _SHARE / 1e9:.1f} GB "
            "that are free: take fewer (--limit N) or smaller ones (--data-args.size N of a folder)"
        )


def free_memory() -> float:
    """Bytes that this process may still take; infinite where the system does not say.

    The least of what the system and the process's control groups (a container's or a batch job's) have left, shared
    equally among the processes that torchrun or srun started on this host, and of this process's own limits (ulimit).
    """
    together = started()
    of_host = min(_of_system(), *_of_cgroups(), _NO_LIMIT)
    return max(0.0, min(of_host / (1 if together is None else together.here), _of_limits()))


def free_memory_of(device: torch.device) -> float:
    """Bytes that tensors may still take on an accelerator; infinite where torch does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(0.0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return _NO_LIMIT


def _of_system() -> float:
    try:
        return _kibibytes(Path("/proc/meminfo"), "MemAvailable")
    except (OSError, KeyError, ValueError):
        pass
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (OSError, ValueError, AttributeError):
        return _NO_LIMIT


def _of_cgroups() -> Iterator[float]:
    """What each control group above this process has left, of version 1 or 2; cached files count as left."""
    try:
        memberships = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in memberships:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUPS, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = _CGROUPS / "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = root / path.lstrip("/")
        for group in (own, *own.parents):
            if group == root or root in group.parents:  # the group of a container may lie outside of what it sees
                yield _left(group, *names)


def _left(group: Path, limit: str, usage: str, droppable: str) -> float:
    try:
        most = (group / limit).read_text().strip()
        if most == "max":
            return _NO_LIMIT
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return float(most) - float((group / usage).read_text()) + float(counts[droppable])
    except (OSError, KeyError, ValueError):
        return _NO_LIMIT


def _of_limits() -> float:
    """What ``ulimit -v`` and ``-d`` leave of addresses and of data."""
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return _NO_LIMIT
    left = _NO_LIMIT
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            try:
                left = min(left, most - _kibibytes(Path("/proc/self/status"), used))
            except (OSError, KeyError, ValueError):
                left = min(left, most)
    return left


def _kibibytes(file: Path, name: str) -> float:
    known = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return float(known[name].split()[0]) * 1024
