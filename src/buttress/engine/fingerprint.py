"""What identifies attacks, networks and tensors: settings as plain data, weights by digests, code by its bytes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from buttress.engine.preserved_model import Model
from buttress.tensor_forms import parts


def plain(value: Any) -> Any:
    """A field's value as JSON; weights by their digest."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, Tensor):
        shape = [] if value.is_nested else list(value.shape)
        return [str(value.dtype), shape, digest_of(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
        return {"class": name_of(type(value)), **fields}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, functools.partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    if inspect.ismethod(value):
        return [plain(value.__self__), plain(value.__func__)]
    if inspect.isfunction(value):
        held = [plain(cell.cell_contents) for cell in value.__closure__ or ()]
        defaults = [plain(value.__defaults__), plain(value.__kwdefaults__)]
        return [name_of(value), _body(value.__code__), held, defaults]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type) or inspect.isbuiltin(value):
        return name_of(value)
    if hasattr(value, "__dict__"):
        return [name_of(type(value)), plain(vars(value))]
    return [type(value).__qualname__, repr(value)]


def name_of(thing: Any) -> str:
    """A class's or function's name; where it is buttress's own, without its file, which may move."""
    module: str = thing.__module__
    return f"{'buttress' if module.split('.')[0] == 'buttress' else module}.{thing.__qualname__}"


def _body(code: CodeType) -> Any:
    """What a function does, as far as its code tells: two lambdas of one place differ here."""
    constants = [_body(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [hashlib.sha256(code.co_code).hexdigest(), list(code.co_names), list(code.co_varnames), constants]


def digest(model: Model) -> str:
    """A digest of a network: its class and all weights and buffers; of another callable what it does."""
    if not isinstance(model, nn.Module):
        return hashlib.sha256(repr(plain(model)).encode()).hexdigest()
    result = hashlib.sha256(type(model).__qualname__.encode())
    for name, value in model.state_dict().items():
        result.update(name.encode() + digest_of(value).encode())
    return result.hexdigest()


def digest_of(*values: object) -> str:
    """The same for tensors, by their bytes; of several values one digest of all in this order."""
    if len(values) != 1:
        return hashlib.sha256("".join(map(digest_of, values)).encode()).hexdigest()
    (value,) = values
    if not isinstance(value, Tensor):  # what a module keeps as extra state
        return repr(plain(value))
    result = hashlib.sha256()
    for name, part in parts(value.detach()).items():
        result.update(name.encode() + part.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return result.hexdigest()
