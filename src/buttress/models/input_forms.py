"""Other forms of the same inputs: the one that a network takes which has refused them, with the adapter to write."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn

from buttress.model_call import call_model

_IMAGES = ("pixel_values", "images", "image", "imgs", "img", "input_values")  # as other libraries call their inputs
_Form = tuple[str, str, int, Callable[[Tensor], Tensor]]  # in words, in code, of inputs with so many axes, and done
_FORMS: tuple[_Form, ...] = (
    ("the channels last", "x.permute(0, 2, 3, 1)", 4, lambda x: x.permute(0, 2, 3, 1)),
    ("the channels first", "x.permute(0, 3, 1, 2)", 4, lambda x: x.permute(0, 3, 1, 2)),
    ("three equal channels", "x.expand(-1, 3, -1, -1)", 4, lambda x: x.expand(-1, 3, -1, -1)),
    ("one channel, their mean", "x.mean(1, keepdim=True)", 4, lambda x: x.mean(1, keepdim=True)),
    ("three channels, without transparency", "x[:, :3]", 4, lambda x: x[:, :3]),
    ("an axis of channels", "x[:, None]", 3, lambda x: x[:, None]),
    ("one row each", "x.flatten(1)", 0, lambda x: x.flatten(1)),
)


def adapter(given: str) -> str:
    """What to write around a network that is to be given something else than ``x`` alone."""
    return f"write a module around it with def forward(self, x): return self.network({given})"


def other_form(network: nn.Module, x: Tensor) -> str | None:
    """How a network that raised an error for images or vectors runs with them, and the adapter; None where it does not.

    Args:
        network: without this package's wrappers.
        x: (N, ...) what it was given.
    """
    if (name := _name_of_images(network)) is not None:
        return f"it takes images as {name}: {adapter(f'{name}=x')}"
    for words, code, axes, form in _FORMS:
        if axes in (0, x.dim()) and _runs(network, form, x[:2]):
            return f"it takes them with {words}: {adapter(code)}"
    return None


def _name_of_images(network: nn.Module) -> str | None:
    """The parameter that images are meant for, where it is not the first, as in networks of images and text."""
    names = list(inspect.signature(network.forward).parameters)
    return next((name for name in _IMAGES if name in names[1:]), None)


def _runs(network: nn.Module, form: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    try:
        with torch.no_grad():
            call_model(network, form(x))
    except Exception:  # whatever a network raises for what it is not made for
        return False
    return True
