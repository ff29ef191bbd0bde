"""Models by name, and how they were made remembered so that they can be made again."""

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
from buttress.models.normalized import Normalized

Statistic = float | Sequence[float] | Tensor | None


def names() -> list[str]:
    """The registered names, sorted."""
    return registry.model.names()


def create(
    name: str, *, mean: Statistic = None, std: Statistic = None, seed: int | None = None, **options: Any
) -> nn.Module:
    """A model with fresh weights.

    Args:
        name: a registered name (``names()``), ``timm:NAME``, or a function of the user's that returns a module, as
            ``package.module:function`` or ``path/to/file.py:function``.
        mean: given this or ``std``, the model comes inside ``Normalized``; one number, or one per channel (default 0).
        std: likewise (default 1).
        seed: the initial weights are drawn on the CPU from this seed and the global random state is left as it was;
            without it they are drawn from the global state.
        **options: the architecture's own, such as ``classes``; those of ``timm.create_model`` for ``timm:NAME``,
            where ``classes`` and ``channels`` are understood too.

    Raises:
        UserError: for an unknown name or option, or an option's value that makes no sense.
    """
    # Found before the seed is set: importing a module may draw numbers, and does so once only.
    maker = _timm(name, options) if name.startswith("timm:") else _maker(name, options)
    with _seeded(seed):
        made: object = maker()
    if not isinstance(made, nn.Module):
        raise UserError(f"{name!r} returned a {type(made).__name__}: a torch.nn.Module was expected")
    model = made
    if mean is not None or std is not None:
        model = Normalized(made, 0.0 if mean is None else mean, 1.0 if std is None else std)
    spec = {"name": name, "options": options, "mean": _plain(mean), "std": _plain(std)}
    with contextlib.suppress(TypeError, ValueError):  # options that are no plain data cannot be remembered
        model._buttress_spec = json.loads(json.dumps(spec))
    return model


def spec_of(model: nn.Module) -> dict[str, Any] | None:
    """How ``create`` made the model, as plain data: ``name``, ``options``, ``mean``, ``std``.

    None for a module that did not come from ``create``, or whose options are not plain data (JSON).
    """
    return copy.deepcopy(getattr(model, "_buttress_spec", None))


def from_spec(spec: dict[str, Any]) -> nn.Module:
    """The model of a ``spec_of``, with initial weights from seed 0: load the trained ones into it.

    Raises:
        UserError: for what is no such description, and as ``create``.
    """
    if not isinstance(spec, dict) or set(spec) != {"name", "options", "mean", "std"}:
        raise UserError(f"a model's description has the entries name, options, mean and std, not {spec!r}")
    name, options = spec["name"], spec["options"]
    if not isinstance(name, str) or not isinstance(options, dict) or {"name", "mean", "std", "seed"} & set(options):
        raise UserError(f"a model's description has a name as text and options by name, not {spec!r}")
    return create(name, mean=spec["mean"], std=spec["std"], seed=0, **options)


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UserError(f"seed must be a whole number from 0 to 2**63 - 1, not {seed!r}")
    # On the CPU whatever the default device, so that a seed gives the same weights everywhere; and the CPU's generator
    # alone, since torch.manual_seed would reseed the accelerators too.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield


def _maker(name: str, options: dict[str, Any]) -> Callable[[], Any]:
    maker: Callable[..., Any] = registry.model.get(name)
    if isinstance(maker, nn.Module) or not callable(maker):
        raise UserError(f"{name!r} is a {type(maker).__name__}: a function that returns a new module was expected")
    signature = inspect.signature(maker)
    known = [p.name for p in signature.parameters.values() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for option in options:
        if option not in known and not open_ended:
            valid = f"its options are {', '.join(known)}" if known else "it takes none"
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
