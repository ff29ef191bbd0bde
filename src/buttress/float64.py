"""float32 in the place of float64 on devices that have none, such as Apple's (mps)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WITHOUT = ("mps",)  # kinds of devices

_Method = TypeVar("_Method", bound=Callable[..., Tensor])


def lacks_float64(device: torch.device | str | int | None) -> bool:
    """Whether a device computes in float32 at most."""
    return device is not None and not isinstance(device, int) and torch.device(device).type in WITHOUT


def exact(method: _Method) -> _Method:
    """A method of tensors that is computed in float64: on the CPU, where their device has none.

    The result goes back to the device, float64 rounded to float32.
    """

    @wraps(method)
    def computed(self: object, *tensors: Tensor, **more: Any) -> Tensor:
        device = tensors[0].device
        if not lacks_float64(device):
            return method(self, *tensors, **more)
        result = method(self, *(tensor.cpu() for tensor in tensors), **more)
        return result.to(device, torch.float32 if result.dtype == torch.float64 else result.dtype)

    return cast(_Method, computed)


def above_zero(x: Tensor) -> Tensor:
    """``x``, or in the place of 0 and less a number so small that it counts as 0 in its data type: to divide by."""
    return x.clamp(min=1e-300 if x.dtype == torch.float64 else 1e-30)


class Float32ForFloat64(TorchFunctionMode):
    """While it is active, what asks for float64 on a device without it gets float32 there.

    All code may so ask for float64 wherever it wants the digits, and on the CPU it always gets them. What has to be
    exact (see `Threat.project`) is computed on the CPU instead.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function, with float32 for float64 among what it is told, where its tensors or results lie there."""
        named = dict(kwargs or {})
        if getattr(func, "__name__", "") == "__get__" or not _there([*args, *named.values()]):
            return func(*args, **named)
        if func is Tensor.double:
            return args[0].to(torch.float32, **named)
        arguments = [_narrow(value) for value in args]
        named = {name: _narrow(value) for name, value in named.items()}
        told = (*arguments[1:], *named.values())
        if func is Tensor.to and not any(isinstance(value, torch.dtype | Tensor) for value in told):
            arguments[0] = arguments[0].to(torch.float32) if arguments[0].dtype == torch.float64 else arguments[0]
        return func(*arguments, **named)


def _there(values: Sequence[Any]) -> bool:
    """Whether a tensor or a device among the arguments is one without float64."""
    for value in values:
        if isinstance(value, Tensor):
            if lacks_float64(value.device):
                return True
        elif isinstance(value, torch.device):
            if lacks_float64(value):
                return True
        elif isinstance(value, str):
            if value.partition(":")[0] in WITHOUT:
                return True
        elif isinstance(value, list | tuple) and _there(value):
            return True
    return False


def _narrow(value: Any) -> Any:
    return torch.float32 if value is torch.float64 else value
