"""What the caller has switched on in torch is laid aside while buttress computes, and comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from buttress.float64 import Float32ForFloat64, lacks_float64

_P = ParamSpec("_P")
_T = TypeVar("_T")
_CPU = torch.device("cpu")


@contextmanager
def usual_state(device: torch.device = _CPU, dtype: torch.dtype | None = torch.float32) -> Iterator[None]:
    """Compute as in a fresh process, whatever the caller has switched on; at the end all of it is on again.

    Laid aside are autocast, inference mode, disabled gradients, other default devices and data types, and a reduced
    precision of matrix products. On a machine whose accelerator has no float64, float32 stands in for it there
    (`Float32ForFloat64`). Deterministic algorithms stay on, and warn where there is none for an operation,
    instead of raising.

    Args:
        device: that is computed on; a default device other than this and the CPU is set aside.
        dtype: the default one; None leaves it.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in ("cpu",) if accelerator is None else ("cpu", accelerator.type):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if accelerator is not None and lacks_float64(accelerator):
            stack.enter_context(Float32ForFloat64())
        if torch.get_default_device() not in (_CPU, device):
            stack.enter_context(torch.device(device))
        if dtype is not None and (before := torch.get_default_dtype()) != dtype:
            torch.set_default_dtype(dtype)
            stack.callback(torch.set_default_dtype, before)
        if (precision := torch.get_float32_matmul_precision()) != "highest":
            torch.set_float32_matmul_precision("highest")
            stack.callback(torch.set_float32_matmul_precision, precision)
        if torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled():
            torch.use_deterministic_algorithms(True, warn_only=True)
            stack.callback(torch.use_deterministic_algorithms, True)
        yield


def in_usual_state(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """The function, computed in `usual_state`."""

    @wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with usual_state():
            return function(*args, **kwargs)

    return wrapped
