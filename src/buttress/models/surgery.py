"""Model surgery: smooth activations in the place of ReLU, and a first convolution with a larger stride."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.registry import nearest
from buttress.validation import whole

SMOOTH: dict[str, Callable[[], nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": partial(nn.Softplus, beta=10),  # with beta 1 it is far from a ReLU near 0
}
_RELUS = frozenset(("relu", "relu_"))
_SIDES = (32, 28, 64, 224, 16, 8)  # of images to try a network with that does not say for which it was made
_POOLINGS: dict[type[nn.Module], type[nn.Module]] = {
    nn.MaxPool2d: nn.AdaptiveMaxPool2d,
    nn.AvgPool2d: nn.AdaptiveAvgPool2d,
}


def first_layer(model: nn.Module, kinds: tuple[type[nn.Module], ...] = (nn.Linear,)) -> tuple[str, nn.Module]:
    """Name and module of the first convolution, or layer of one of ``kinds``, in the order of their definition.

    Raises:
        UserError: when there is none.
    """
    modules: dict[str, nn.Module] = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, (*kinds, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return name, module
    raise UserError(f"{type(model).__name__} has no convolution{' or linear layer' if kinds else ''}")


def replace_activation(model: nn.Module, activation: str, image_size: int | None = None) -> None:
    """Put a smooth activation in the place of every ``nn.ReLU``, in place.

    Args:
        model: the network; all else of it, initial weights included, stays.
        activation: elu, gelu, silu, or softplus (with beta 10).
        image_size: height and width of its images, if known.

    Raises:
        UserError: for an unknown activation; for a network without ``nn.ReLU``; and for one that calls ReLU as a
            function, which cannot be replaced, or that could not be run to see whether it does.
    """
    if activation not in SMOOTH:
        raise UserError(f"there is no smooth activation {activation!r}; {nearest(activation, list(SMOOTH))}")
    network, replacements = type(model).__name__, dict[nn.Module, nn.Module]()
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.ReLU) and name:
            if module not in replacements:  # one module used in several places stays one
                replacements[module] = SMOOTH[activation]()
            _set_submodule(model, name, replacements[module])
    x = example_input(model, image_size)
    if x is None:
        raise UserError(
            f"{network} cannot be tried out, and may call relu as a function: set its activation in its code"
        )
    with _ReluCalls() as calls:
        accepts(model, x)
    if calls.count:
        raise UserError(
            f"{network} calls relu as a function, which cannot be replaced: use nn.ReLU modules in its code"
        )
    if not replacements:
        raise UserError(f"{network} has no ReLU that {activation} could replace")


def set_stem_stride(model: nn.Module, stride: int, image_size: int | None = None) -> None:
    """Give the first convolution of an image network another stride, in place.

    Where the network pools to a fixed size in the end nothing else changes. Where it is made for one size of images,
    the first pooling is removed, since the stride does its work, and the last one becomes adaptive, so that the linear
    layers get as many numbers as before.

    Args:
        model: the network; its initial weights stay.
        stride: of the first convolution, in both directions.
        image_size: height and width of its images, if known.

    Raises:
        UserError: for a stride that is no whole number of 1 or more, a network that does not begin with a convolution
            over images or could not be run, and one of which the stride leaves too small a map.
    """
    whole("stem_stride", stride, 1)
    network, (name, stem) = type(model).__name__, first_layer(model, ())
    x = example_input(model, image_size)
    if not isinstance(stem, nn.Conv2d) or x is None:
        raise UserError(f"{network} cannot be tried out on images: set the stride of its {name} in its code")
    with _pooling_sizes(model) as before:
        accepts(model, x)
    stem.stride = (stride, stride)
    if accepts(model, x):
        return
    size = "x".join(map(str, x.shape[2:]))
    small = (
        f"stem_stride {stride} leaves {network} too small a map of {size} images: take larger ones or a smaller stride"
    )
    if not before:
        raise UserError(small)
    *earlier, last = before
    if earlier:
        _set_submodule(model, earlier[0], nn.Identity())
    size_before = before[last][1]
    _set_submodule(model, last, _adaptive(model.get_submodule(last), size_before))
    with _pooling_sizes(model, tuple(_POOLINGS.values())) as after:
        fits = accepts(model, x)
    if not fits or any(have < want for have, want in zip(after[last][0], size_before, strict=True)):
        raise UserError(small)


def example_input(model: nn.Module, image_size: int | None = None) -> Tensor | None:
    """One input of zeros that the network accepts, or None when there is none.

    Args:
        model: the network.
        image_size: height and width of its images; its own attribute of this name, or usual ones, unless given.
    """
    try:
        _, first = first_layer(model)
    except UserError:
        return None
    dtype: torch.dtype = next(model.parameters()).dtype
    if isinstance(first, nn.Linear):
        candidates = [torch.zeros(1, first.in_features, dtype=dtype)]
    elif isinstance(first, nn.Conv2d):
        side = image_size or getattr(model, "image_size", None)
        sides = (side,) if isinstance(side, int) else _SIDES
        candidates = [torch.zeros(1, first.in_channels, side, side, dtype=dtype) for side in sides]
    else:
        return None
    return next((x for x in candidates if accepts(model, x)), None)


def accepts(model: nn.Module, x: Tensor) -> bool:
    """Whether the network accepts these inputs; in eval mode, and with no change to it."""
    flags = [(module, module.training) for module in model.modules()]
    x = x.to(next(model.parameters()).device)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            call_model(model.eval(), x)
    except (
        RuntimeError,
        ValueError,
        IndexError,
        TypeError,
        AssertionError,
        UserError,
    ):  # the network rejects these inputs
        return False
    finally:
        for module, flag in flags:
            module.training = flag
    return True


class _ReluCalls(TorchFunctionMode):
    """Counts the calls of ReLU as a function."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += getattr(func, "__name__", "") in _RELUS
        return func(*args, **(kwargs or {}))


@contextmanager
def _pooling_sizes(
    model: nn.Module, kinds: tuple[type[nn.Module], ...] = tuple(_POOLINGS)
) -> Iterator[dict[str, tuple[tuple[int, ...], tuple[int, ...]]]]:
    """Height and width of what goes into and comes out of each pooling, by name, in the order of execution."""
    sizes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def record(name: str, module: nn.Module, args: Any, output: Any) -> None:
        sizes[name] = tuple(args[0].shape[2:]), tuple(output.shape[2:])

    poolings = [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]
    handles = [module.register_forward_hook(partial(record, name)) for name, module in poolings]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def _adaptive(pooling: nn.Module, size: tuple[int, ...]) -> nn.Module:
    for kind, adaptive in _POOLINGS.items():
        if isinstance(pooling, kind):
            return adaptive(size)
    raise AssertionError(f"{type(pooling).__name__} is no pooling")


def _set_submodule(model: nn.Module, name: str, module: nn.Module) -> None:
    """Set the submodule of this name."""
    parent, _, own = name.rpartition(".")
    model.get_submodule(parent)._modules[own] = module.train(model.training)
