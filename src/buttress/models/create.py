"""Models by name; each remembers how it was made, so that it can be made again."""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from buttress import registry
from buttress.errors import UserError
from buttress.models.surgery import replace_activation, set_stem_stride
from buttress.models.wrapping.normalized import Normalized
from buttress.random import own_draws
from buttress.user_modules import absolute, same_working_directory

Statistic = float | Sequence[float] | Tensor | None


def names() -> list[str]:
    """The registered names, sorted."""
    return registry.model.names()


def create(
    name: str,
    *,
    mean: Statistic = None,
    std: Statistic = None,
    seed: int | None = None,
    activation: str | None = None,
    stem_stride: int | None = None,
    **options: Any,
) -> nn.Module:
    """A model with fresh weights.

    Args:
        name: a registered name (``names()``), ``timm:NAME``, or a function of the user's that returns a module, as
            ``package.module:function`` or ``path/to/file.py:function``.
        mean: given this or ``std``, the model comes inside ``Normalized``; one number, or one per channel (default 0).
        std: likewise (default 1).
        seed: the initial weights are drawn on the CPU from this seed and the global random state is left as it was;
            without it they are drawn from the global state.
        activation: elu, gelu, silu or softplus (with beta 10) in the place of every ReLU; an architecture with an
            option of this name, such as mlp, gets it instead.
        stem_stride: stride of the first convolution; poolings are adapted where the network needs it. Likewise.
        **options: the architecture's own, such as ``classes``; those of ``timm.create_model`` for ``timm:NAME``,
            where ``classes`` and ``channels`` are understood too.

    Raises:
        UserError: for an unknown name or option, or an option's value that makes no sense.
    """
    common = {"activation": activation, "stem_stride": stem_stride}
    own = _named_options(name)
    options |= {key: value for key, value in common.items() if value is not None and key in own}
    surgery = {key: value for key, value in common.items() if value is not None and key not in own}
    return _created(name, options, mean, std, seed, surgery)


def _created(
    name: str,
    options: dict[str, Any],
    mean: Statistic,
    std: Statistic,
    seed: int | None,
    surgery: dict[str, Any],
) -> nn.Module:
    # Found before the seed is set: importing a module may draw numbers, and does so once only.
    maker = _timm(name, options) if name.startswith("timm:") else _maker(name, options)
    with _seeded(seed), same_working_directory():
        model: object = maker()
    if not isinstance(model, nn.Module):
        raise UserError(f"{name!r} returned a {type(model).__name__}: a torch.nn.Module was expected")
    size = options.get("image_size", options.get("img_size"))
    if "activation" in surgery:
        replace_activation(model, surgery["activation"], size)
    if "stem_stride" in surgery:
        set_stem_stride(model, surgery["stem_stride"], size)
    if mean is not None or std is not None:
        model = Normalized(model, 0.0 if mean is None else mean, 1.0 if std is None else std)
    spec = {"name": absolute(name), "options": options, "mean": _plain(mean), "std": _plain(std), **surgery}
    with contextlib.suppress(TypeError, ValueError):  # options that are no plain data cannot be remembered
        model._buttress_spec = json.loads(json.dumps(spec))
    return model


def spec_of(model: nn.Module) -> dict[str, Any] | None:
    """How ``create`` made the model, as plain data: ``name``, ``options``, ``mean``, ``std``, and surgery if any.

    None for a module that did not come from ``create``, or whose options are not plain data (JSON).
    """
    return copy.deepcopy(getattr(model, "_buttress_spec", None))


def from_spec(spec: dict[str, Any]) -> nn.Module:
    """The model of a ``spec_of``, with initial weights from seed 0: load the trained ones into it.

    Raises:
        UserError: for what is no such description, and as ``create``.
    """
    usual, surgery = {"name", "options", "mean", "std"}, ("activation", "stem_stride")
    if not isinstance(spec, dict) or not usual <= set(spec) <= usual.union(surgery):
        raise UserError(f"a model's description has the entries name, options, mean and std; got {spec!r}")
    name, options = spec["name"], spec["options"]
    if not isinstance(name, str) or not isinstance(options, dict) or {"name", "mean", "std", "seed"} & set(options):
        raise UserError(f"a model's description has a name as text and options by name; got {spec!r}")
    return _created(name, options, spec["mean"], spec["std"], 0, {key: spec[key] for key in surgery if key in spec})


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError(f"seed must be a whole number from 0 to 2**63 - 1; got {seed!r}")
    # On the CPU whatever the default device, so that a seed gives the same weights everywhere.
    with own_draws(seed), torch.device("cpu"):
        yield


def _named_options(name: str) -> set[str]:
    """The options that an architecture's factory names itself."""
    factory = None if name.startswith("timm:") else registry.model.get(name)
    if isinstance(factory, nn.Module) or not callable(factory):
        return set()
    return set(inspect.signature(factory).parameters)


def _maker(name: str, options: dict[str, Any]) -> Callable[[], Any]:
    maker: Callable[..., Any] = registry.model.get(name)
    if isinstance(maker, nn.Module) or not callable(maker):
        what = f"{name!r} is a {type(maker).__name__}: a function that returns a new module was expected"
        adapter = f", as in def make(): return {type(maker).__name__}(...)" if isinstance(maker, nn.Module) else ""
        raise UserError(what + adapter)
    signature = inspect.signature(maker)
    names = [p.name for p in signature.parameters.values() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for option in options:
        if option not in names and not open_ended:
            valid = f"its options are {', '.join(names)}" if names else "it takes none"
            raise UserError(f"the model {name!r} has no option {option!r}; {valid}")
    try:
        signature.bind(**options)
    except TypeError as error:
        raise UserError(f"the model {name!r} cannot be made: {error}") from None
    return functools.partial(maker, **options)


def _timm(name: str, options: dict[str, Any]) -> Callable[[], Any]:
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision made for another torch
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{name!r} needs timm, which cannot be imported ({reason}): pip install 'buttress[timm]'"
        ) from error
    theirs = name.removeprefix("timm:")
    if not timm.is_model(theirs):
        raise UserError(f"timm has no model {theirs!r}: timm.list_models() names those it has")
    words = {"classes": "num_classes", "channels": "in_chans"}

    def make() -> Any:
        try:
            return timm.create_model(theirs, **{words.get(key, key): value for key, value in options.items()})
        except TypeError as error:
            raise UserError(f"{name!r} cannot be made: {error}") from error

    return make


def _plain(value: Statistic) -> Any:
    # In float64, so that 0.1 stays 0.1.
    return None if value is None else torch.as_tensor(value, dtype=torch.float64).tolist()
