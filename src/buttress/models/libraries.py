"""Architectures that an installed library makes: ``timm:NAME`` and ``robustbench:NAME``."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from buttress.errors import UserError
from buttress.models.wrapping.normalized import Normalized
from buttress.near_names import nearest

Maker = Callable[[], Any]
ROBUSTBENCH = "robustbench:"
_OPTIONS = {"timm:": frozenset({"classes", "channels"}), ROBUSTBENCH: frozenset[str]()}


def library_options(name: str) -> frozenset[str] | None:
    """What of the data a library's architecture is made for, of `create`'s options; None for other names."""
    return next((options for prefix, options in _OPTIONS.items() if name.startswith(prefix)), None)


def library_maker(name: str, options: Mapping[str, Any]) -> Maker:
    """What makes the network; for names with `library_options`.

    Raises:
        UserError: for a library that cannot be imported, with what to install, and a name or options it does not know.
    """
    return _robustbench(name, options) if name.startswith(ROBUSTBENCH) else _timm(name, options)


def check_trained(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an architecture of a library whose weights would be random, where a trained network is wanted.

    Args:
        name: of the model.
        options: the user's; of timm some load weights.

    Raises:
        UserError: saying which file to give.
    """
    if name.startswith(ROBUSTBENCH):
        place, _ = _entry(name)
        raise UserError(
            f"{name} is an architecture without trained weights, and none are downloaded: give --weights FILE; where "
            f"RobustBench's load_model has fetched them, that is models/{place}.pt"
        )
    if name.startswith("timm:") and not {"pretrained", "checkpoint_path"} & set(options):
        raise UserError(
            f"{name} is an architecture without trained weights: give --weights FILE, or --model-args.pretrained true "
            "for those that timm downloads"
        )


def _timm(name: str, options: Mapping[str, Any]) -> Maker:
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


def _robustbench(name: str, options: Mapping[str, Any]) -> Maker:
    """The architecture of an entry of RobustBench's zoo, which takes inputs in [0, 1], with new weights."""
    if options:
        raise UserError(f"{name!r} has no option {next(iter(options))!r}; it takes none")
    _, entry = _entry(name)

    def make() -> Any:
        try:
            with _no_downloads():
                return _readable(entry["model"]())
        except Exception as error:  # of whatever kind their constructors have
            reason = str(error).partition("\n")[0]
            raise UserError(f"{name!r} cannot be made: {type(error).__name__}: {reason}") from error

    return make


def _entry(name: str) -> tuple[str, Mapping[str, Any]]:
    """An entry of the zoo by its name, and where RobustBench keeps it, as in cifar10/Linf/Standard.

    Raises:
        UserError: for a name that is not there, and one that several benchmarks have.
    """
    try:
        from robustbench.model_zoo import model_dicts
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{name!r} needs RobustBench, which cannot be imported ({reason}): "
            "pip install git+https://github.com/RobustBench/robustbench"
        ) from error
    entries = {
        f"{_text(data)}/{_text(threat)}/{theirs}": entry
        for data, threats in model_dicts.items()
        for threat, models in threats.items()
        for theirs, entry in models.items()
    }
    asked = name.removeprefix(ROBUSTBENCH)
    found = [place for place in entries if asked in (place, place.rpartition("/")[2])]
    if not found:
        known = [place.rpartition("/")[2] for place in entries]
        raise UserError(f"RobustBench as installed has no model {asked!r}; {nearest(asked, [*known, *entries])}")
    if len({id(entries[place]["model"]) for place in found}) > 1:
        choices = " or ".join(ROBUSTBENCH + place for place in found)
        raise UserError(f"RobustBench has several models {asked!r}: type {choices}")
    return found[0], entries[found[0]]


def _text(key: Any) -> str:
    """A key of the zoo, which is an enum's member."""
    return str(getattr(key, "value", key))


def _readable(network: Any) -> Any:
    """The network with the normalisation that RobustBench puts before some in a module of ours.

    So weights of the network alone fit into it, and what is done to its inputs can be told.
    """
    if isinstance(network, nn.Sequential) and [name for name, _ in network.named_children()] == ["normalize", "model"]:
        first = dict(network[0].named_buffers())
        if first.keys() == {"mean", "std"}:
            return Normalized(network[1], first["mean"].flatten(), first["std"].flatten())
    return network


@contextmanager
def _no_downloads() -> Iterator[None]:
    """Some entries fetch published weights as they are made, which a file of the user's replaces anyway."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError("it wants to download weights: make it in a function of your own, file.py:function")

    usual = socket.getaddrinfo
    socket.getaddrinfo = refuse
    try:
        yield
    finally:
        socket.getaddrinfo = usual
