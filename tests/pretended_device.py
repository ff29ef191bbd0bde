"""A device that is not there: tensors on the CPU that say they lie elsewhere, and operations that mix neither.

Storages are marked, so views, `.data` and what autograd saves are marked with them. What an operation makes of marked
tensors is marked; what is made from nothing is where its ``device`` says. As on a GPU a tensor without axes and the
indices of a marked tensor may lie on the CPU, and copies go from one to the other.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
_FUNCTORCH = torch._C._functorch
_ALIASING = {torch.as_tensor, torch.asarray}
_COPIES = {"aten::copy_", "aten::_to_copy"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index", "aten::_index_put_impl_"}
_JOINED = {"aten::cat", "aten::stack"}  # of which not even a tensor without axes may lie elsewhere
_FREE = 10**12  # bytes that it says are free
_QUESTIONS = {"is_cuda": "cuda", "is_mps": "mps", "is_cpu": "cpu"}


class PretendedDevice:
    """A context in which ``device`` can be used, as in ``x.to(device)``.

    Args:
        kind: "cuda", or "mps", which has no float64.
    """

    def __init__(self, kind="cuda"):
        self.device = torch.device(kind, 0)
        self.float64 = kind != "mps"
        self._marked = {}  # weak references, which keep a storage's address from being used again
        self._inside = []  # where what a running operation makes from nothing is
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        known = torch.get_device_module
        own = SimpleNamespace(
            manual_seed=lambda seed: None,
            get_rng_state=lambda *where: torch.zeros(1, dtype=torch.uint8),
            set_rng_state=lambda *state_and_where: None,
        )
        kind = self.device.type

        def module(device=None):
            return own if torch.device(device or "cpu").type == kind else known(device)

        parsed = torch._C._nn._parse_to  # what `Module.to` reads its arguments with

        def parse(*args, **kwargs):
            device, *rest = parsed(*args, **kwargs)
            like = tensors_in(args, kwargs)
            return (self.of(like[0]) if like else device, *rest)

        self._replace(torch._C._nn, "_parse_to", parse)
        self._replace(torch, "get_device_module", module)
        self._replace(torch.accelerator, "device_index", lambda index: contextlib.nullcontext())
        self._replace(torch.accelerator, "is_available", lambda: True)
        self._replace(torch.accelerator, "current_accelerator", lambda *_, **__: torch.device(kind))
        self._replace(torch.accelerator, "current_stream", lambda *_: SimpleNamespace(is_capturing=lambda: False))
        self._replace(torch.cuda, "get_device_name", lambda device=None: "a pretended GPU")
        self._replace(torch.cuda, "mem_get_info", lambda device=None: (_FREE, _FREE))
        self._replace(torch.mps, "recommended_max_memory", lambda: _FREE)
        self._replace(torch.mps, "driver_allocated_memory", lambda: 0)
        self._stack.enter_context(_Dispatch(self))
        self._stack.enter_context(_Function(self))
        return self

    def __exit__(self, *error):
        self._stack.close()

    def _replace(self, owner, name, value):
        before = getattr(owner, name)
        setattr(owner, name, value)
        self._stack.callback(setattr, owner, name, before)

    def of(self, tensor):
        """Where a tensor is."""
        return self.device if self._storage(tensor) in self._marked else CPU

    def put(self, tensor, device):
        """Mark a tensor that nothing else shares."""
        if device == CPU:
            self._marked.pop(self._storage(tensor), None)
            return
        if not self.float64 and tensor.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"{self.device.type} has no {tensor.dtype}")
        storage = tensor.untyped_storage()
        self._marked[storage._cdata] = StorageWeakRef(storage)
        if len(self._marked) > 100_000:
            self._marked = {key: ref for key, ref in self._marked.items() if not ref.expired()}

    @staticmethod
    def _storage(tensor):
        while _FUNCTORCH.is_functorch_wrapped_tensor(tensor):
            tensor = _FUNCTORCH.get_unwrapped(tensor)
        if tensor.layout != torch.strided:
            tensor = tensor.values() if tensor.layout in (torch.sparse_csr, torch.sparse_csc) else tensor._values()
        return tensor.untyped_storage()._cdata

    def pretended(self, value):
        """Whether this argument names the device."""
        if isinstance(value, torch.device | str) and not isinstance(value, bool):
            try:
                return torch.device(value).type == self.device.type
            except RuntimeError:
                return False
        return False


def tensors_in(*values):
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += tensors_in(*value)
        elif isinstance(value, dict):
            found += tensors_in(*value.values())
    return found


class _Function(TorchFunctionMode):
    """Answers where a tensor is, and does as told where arguments name a device."""

    def __init__(self, place):
        self.place = place

    def __torch_function__(self, func, types, args=(), kwargs=None):
        place, kwargs = self.place, dict(kwargs or {})
        name, owner = getattr(func, "__name__", ""), getattr(func, "__self__", None)
        if name == "__get__":
            if owner is torch.Tensor.device:
                return place.of(args[0])
            for question, kind in _QUESTIONS.items():
                if owner is getattr(torch.Tensor, question):
                    return place.of(args[0]).type == kind
            return func(*args, **kwargs)
        if func is torch.Tensor.get_device:
            return -1 if place.of(args[0]) == CPU else 0
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            if place.of(args[0]) != CPU and not kwargs.get("force"):
                raise TypeError(f"can't convert {place.device} device type tensor to numpy")
            return func(*args, **kwargs)
        if func is torch.Tensor.pin_memory:
            if place.of(args[0]) != CPU:
                raise RuntimeError("cannot pin what is not on the CPU")
            return args[0].clone()
        if func in (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda):
            return self._moved(func, args, kwargs)
        if func is torch.Tensor.__deepcopy__:
            copied = func(*args, **kwargs)
            place.put(copied, place.of(args[0]))
            return copied
        given = tensors_in(args, kwargs)
        within = next((place.device for tensor in given if place.of(tensor) != CPU), CPU)
        if kwargs.get("device") is not None:
            where = place.device if place.pretended(kwargs["device"]) else torch.device(kwargs["device"])
            if where == place.device and kwargs.get("generator") is not None:
                raise RuntimeError(f"expected a generator of {where}; got one of the CPU")
            return self._made(func, args, kwargs, where, given)
        if func is torch.Tensor.new_tensor:
            return self._made(func, args, kwargs, within, given)
        place._inside.append(within)
        try:
            return func(*args, **kwargs)
        finally:
            place._inside.pop()

    def _made(self, func, args, kwargs, where, given):
        here = {**kwargs, "device": CPU} if "device" in kwargs and where.type != "meta" else kwargs
        self.place._inside.append(where)
        try:
            made = func(*args, **here)
        finally:
            self.place._inside.pop()
        if isinstance(made, torch.Tensor) and where.type != "meta":
            if func in _ALIASING and self.place.of(made) != where:
                made = made.clone()
            self.place.put(made, where)
        return made

    def _moved(self, func, args, kwargs):
        place, (tensor, *rest) = self.place, args
        before = place.of(tensor)
        after = {torch.Tensor.cpu: CPU, torch.Tensor.cuda: place.device}.get(func, before)
        named = [*rest, kwargs.get("device"), kwargs.get("other")]
        for value in named:
            if isinstance(value, torch.Tensor):
                after = place.of(value)
            elif place.pretended(value):
                after = place.device
            elif isinstance(value, torch.device | str):
                after = torch.device(value)
        if after.type not in ("cpu", place.device.type):
            return func(*args, **kwargs)
        if func is torch.Tensor.cuda:
            func, rest, kwargs = torch.Tensor.to, [CPU], {}
        rest = [CPU if place.pretended(value) else value for value in rest]
        kwargs = {name: CPU if place.pretended(value) else value for name, value in kwargs.items()}
        place._inside.append(before)
        try:
            result = func(tensor, *rest, **kwargs)
            if after != before and place._storage(result) == place._storage(tensor):
                result = result.clone()
        finally:
            place._inside.pop()
        if place._storage(result) != place._storage(tensor):
            place.put(result, after)
        return result


class _Dispatch(TorchDispatchMode):
    """Refuses operations on tensors that lie in two places, and marks what they make."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        place, kwargs = self.place, kwargs or {}
        given = tensors_in(args, kwargs)
        if any(tensor.is_meta for tensor in given):
            return func(*args, **kwargs)
        where = place._inside[-1] if not given and place._inside else CPU
        if any(place.of(tensor) != CPU for tensor in given):
            where = place.device
            self._check(func, args, kwargs, given)
        held = {place._storage(tensor) for tensor in given}
        result = func(*args, **kwargs)
        name = func._schema.name
        if where != CPU:
            if kwargs.get("generator") is not None:
                raise RuntimeError(f"{name}: expected a generator of {where}; got one of the CPU")
            for tensor in tensors_in(result):
                given_back = place._storage(tensor) in held
                if not tensor.is_meta and not (given_back and place.of(tensor) == CPU):
                    place.put(tensor, where)
        return result

    def _check(self, func, args, kwargs, given):
        place, name = self.place, func._schema.name
        if name in _COPIES:
            return
        if name in _INDEXED and place.of(args[0]) != CPU:
            given = tensors_in(args[0], args[2:], kwargs)
        written = set()
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                value = args[position] if position < len(args) else kwargs.get(argument.name)
                written |= {id(tensor) for tensor in tensors_in(value)}
        for tensor in given:
            exempt = tensor.dim() == 0 and id(tensor) not in written and name not in _JOINED
            if place.of(tensor) == CPU and not exempt:
                raise RuntimeError(
                    f"{name}: expected all tensors to be on the same device, but found {place.device} and cpu"
                )
