"""What it takes to open an audited network again, as plain data in the report; and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from buttress.config.reading import build
from buttress.config.spec import plain
from buttress.errors import UserError
from buttress.jobs.folder_options import whole_path
from buttress.jobs.settings import Network, Source, absolute_data
from buttress.user_modules import absolute


def opened_as(network: str, architecture: Network, source: Source) -> dict[str, Any]:
    """A job's network, and the options of it and of its data that differ from the defaults; paths are absolute.

    Empty where an option, given in Python, is no plain data: such a network cannot be opened from a record.
    """
    reference = str(Path(network).resolve()) if Path(network).exists() else absolute(network)
    options = {"architecture": _given(architecture), "source": _given(source)}
    try:
        json.dumps([architecture.model_args, source.data_args])
    except (TypeError, ValueError):
        return {}
    return {"network": reference} | {name: given for name, given in options.items() if given}


def reopened(record: Mapping[str, Any]) -> tuple[str, Network, Source]:
    """The arguments of `open_network` that `opened_as` made the record of.

    Raises:
        UserError: for a record that was changed to what is none.
    """
    reference = record.get("network")
    if not isinstance(reference, str):
        raise UserError("the report does not say how its network is opened: audit it again")
    return reference, build(Network, record.get("architecture", {})), build(Source, record.get("source", {}))


def _given(group: Network | Source) -> dict[str, Any]:
    default = type(group)()
    changed = {f.name: value for f in fields(group) if (value := getattr(group, f.name)) != getattr(default, f.name)}
    return {name: plain(_absolute(name, value)) for name, value in changed.items() if name != "model"}


def _absolute(name: str, value: Any) -> Any:
    """An option's value that means the same in every working directory."""
    if isinstance(value, Path):
        return str(value.resolve())
    if name == "data":
        return absolute_data(value)
    return [whole_path(word) for word in value] if name == "classes" else value
