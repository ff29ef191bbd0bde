"""What of a threat was not typed is that of the method: ``--by cw --by.threat.eps 0.5`` is an l2 threat."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import yaml

from buttress.errors import UserError
from buttress.registry import import_thing
from buttress.threat import Threat


def completed(member: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """A member's options with its own threat in the place of what was left out of theirs."""
    threat = options.get("threat")
    return {**options, "threat": {**_default(member), **threat}} if isinstance(threat, Mapping) else dict(options)


def _default(member: type) -> dict[str, Any]:
    default = getattr(member, "default_threat", Threat())
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(default).items()}


class DefaultThreats:
    """Reads along which members are named, and completes a threat when the first part of it is typed."""

    def __init__(self) -> None:
        self._threats: dict[str, dict[str, Any]] = {}

    def follow(self, word: str) -> None:
        """See which members a word such as "--by={class_path: ...}" names; of a list, what follows means the last."""
        option, _, text = word.partition("=")
        if text.startswith(("{", "[")):
            key = option.removeprefix("--").removesuffix("+")
            self._threats = {name: threat for name, threat in self._threats.items() if not name.startswith(f"{key}.")}
            with suppress(yaml.YAMLError):  # the parser says what is amiss
                self._add("" if key == "config" else key, yaml.safe_load(text))

    def begin(self, key: str) -> list[str]:
        """What must come before a part of a threat, such as "by.threat.eps", is set for the first time."""
        name = key.rpartition(".")[0]
        threat = self._threats.pop(name, None)
        return [] if threat is None else [f"--{name}={yaml.safe_dump(threat, default_flow_style=True).strip()}"]

    def _add(self, key: str, tree: Any) -> None:
        if isinstance(tree, list) and tree:
            self._add(key, tree[-1])
        if not isinstance(tree, Mapping):
            return
        options = tree.get("init_args", {}) if "class_path" in tree else tree
        if "class_path" in tree and options.get("threat") is None:
            self._threats[f"{key}.threat"] = _default(_class(str(tree["class_path"])))
        for name, value in options.items():
            self._add(f"{key}.{name}" if key else name, value)


def _class(path: str) -> type:
    module, _, name = path.rpartition(".")
    try:
        thing = import_thing(f"{module}:{name}") if module else object
    except UserError:  # the parser says what is amiss
        return object
    return thing if isinstance(thing, type) else object
