"""Random draws by input, not by batch: a counter-based hash of (seed, input id, draw, element).

The draws of an input depend on nothing else, so they are the same for another batch size, order or sharding, and on
every device. The hash is the finaliser of SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 2**64 divided by the golden ratio, as a signed number
_MIX_1, _MIX_2 = -4658895280553007687, -7723592293110705685
_WORD = (1 << 64) - 1


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser, in place on an int64 tensor (products wrap, shifts are made logical by the masks)."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        z ^= (z >> shift) & ((1 << (64 - shift)) - 1)
        z *= factor
    z ^= (z >> 31) & ((1 << 33) - 1)
    return z


def _mix_number(z: int) -> int:
    """`_mix` of one number, without its sign: a network's every pass derives a seed, and tensors are slow at that."""
    for shift, factor in ((30, _MIX_1), (27, _MIX_2)):
        z = (z ^ z >> shift) * factor & _WORD
    return z ^ z >> 31


def derive(seed: int, *path: int | str) -> int:
    """A seed in [0, 2**63) that depends on ``seed`` and on the place of its use: ``derive(seed, "data", 3)``."""
    z = int(seed) & (_WORD >> 1)  # numpy's integers do not grow
    for part in path:
        number = zlib.crc32(part.encode()) if isinstance(part, str) else int(part) & (_WORD >> 1)
        z = _mix_number((z + 1) * _GOLDEN + number & _WORD)  # 0 is a fixed point of the mixing
    return z & (_WORD >> 1)


def generator(seed: int, *path: int | str) -> torch.Generator:
    """A CPU generator of its own for one purpose, seeded by `derive`."""
    return torch.Generator("cpu").manual_seed(derive(seed, *path))


def seed_torch(seed: int, device: torch.device | None = None) -> None:
    """Seed torch's own generators, those that a network's dropout draws from: the CPU's, and that of ``device``.

    Not `torch.manual_seed`, which seeds every accelerator of the machine, also for a computation on the CPU; and which
    keeps, where there is none, a stack trace for each kind that it knows, at every call and for good.
    """
    torch.default_generator.manual_seed(seed)
    if device is not None and device.type not in ("cpu", "meta"):
        module = torch.get_device_module(device)
        if device.index is None or device.type == "mps":
            module.manual_seed(seed)
        else:
            with torch.accelerator.device_index(device.index):
                module.manual_seed(seed)


@contextmanager
def own_draws(seed: int, devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Draw from torch's own generators after `seed_torch`; their states at the start come back at the end.

    Args:
        seed: of the CPU's generator and those of the devices.
        devices: accelerators that may draw meanwhile; the CPU always may.
    """
    accelerators = [device for device in devices if device.type not in ("cpu", "meta")]
    modules = [torch.get_device_module(device) for device in accelerators]
    where = [() if device.type == "mps" else (device,) for device in accelerators]  # mps has one device, and no name
    states = [module.get_rng_state(*place) for module, place in zip(modules, where, strict=True)]
    cpu = torch.default_generator.get_state()
    try:
        seed_torch(seed)
        for device in accelerators:
            seed_torch(seed, device)
        yield
    finally:
        torch.default_generator.set_state(cpu)
        for module, place, state in zip(modules, where, states, strict=True):
            module.set_rng_state(state, *place)


class Random:
    """The draws of a batch of inputs, one independent stream per input.

    Args:
        seed: the run's seed.
        ids: (N,) int64, what identifies each input across batches; rows with equal ids draw equal numbers.
    """

    def __init__(self, seed: int, ids: Tensor) -> None:
        self.ids = ids.to(torch.int64)
        self._seed = seed
        self._keys = _mix(self.ids * _GOLDEN + derive(seed, "random"))
        self._draw = 0

    def __len__(self) -> int:
        return len(self.ids)

    def fork(self, *path: int | str) -> Random:
        """Draws of their own for one part of a work, whatever has been drawn before: ``random.fork("restart", 2)``."""
        return Random(derive(self._seed, *path), self.ids)

    def only(self, rows: Tensor | slice) -> Random:
        """The same streams, at the same place, for some of the inputs: (M,) indices, (N,) bool or a slice."""
        part = Random(self._seed, self.ids[rows])
        part._draw = self._draw
        return part

    def _bits(self, shape: Sequence[int]) -> Tensor:
        self._draw += 1
        draw = torch.full_like(self._keys, self._draw) * _GOLDEN
        keys = _mix(self._keys + draw)
        elements = torch.arange(math.prod(shape), dtype=torch.int64, device=keys.device) * _GOLDEN
        return _mix(keys[:, None] + elements).view(len(self), *shape)

    def uniform(self, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, *shape) numbers in [0, 1), each a multiple of 2**-24."""
        return ((self._bits(shape) >> 40) & 0xFFFFFF).to(dtype) * 2.0**-24

    def sign(self, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, *shape) numbers that are -1 or 1 with equal chance."""
        return (self._bits(shape) >> 63).to(dtype) * 2 + 1

    def normal(self, shape: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, *shape) standard normal numbers (Box and Muller, 1958)."""
        bits = self._bits(shape)
        radius = ((bits >> 40) & 0xFFFFFF).to(torch.float32).add_(1).mul_(2.0**-24).log_().mul_(-2).sqrt_()
        angle = (bits & 0xFFFFFF).to(torch.float32).mul_(2 * math.pi * 2.0**-24)
        return angle.cos_().mul_(radius).to(dtype)

    def integers(self, high: int, shape: Sequence[int] = ()) -> Tensor:
        """(N, *shape) int64 numbers in [0, high)."""
        return ((self._bits(shape) >> 33) & 0x7FFFFFFF) % high
