"""What is to be built: a class and its options, each of which may be a class and its options again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from buttress.config.annotations import REQUIRED, Parameter, alternatives, is_group, parameters
from buttress.config.option_errors import MissingOptionsError, OptionPath, UnknownOptionError
from buttress.config.roles import role_of
from buttress.defences import Defence
from buttress.user_modules import place_of


@dataclass
class Spec:
    """A class and the options that were set; the others keep their defaults.

    Args:
        kind: what is called to build the object.
        path: the option that it is the value of; empty for a job.
        options: values by name, as they are passed on; a `Spec`, or a list of them, where objects are to be built.
        known: the parameters there are; those of ``kind`` unless given.
        owner: the member of a role, or the job, that a group of settings belongs to; messages speak of that.
    """

    kind: Callable[..., Any]
    path: OptionPath
    options: dict[str, Any]
    known: Mapping[str, Parameter]
    owner: Spec | None = None

    def parameter(self, name: str) -> Parameter:
        """One parameter.

        Raises:
            UnknownOptionError: with the nearest there is.
        """
        if name in self.known:
            return self.known[name]
        owner = self.owner or self
        inside = ".".join([*self.path[len(owner.path) :], name])
        member = owner.kind.__name__ if owner.path else ""
        raise UnknownOptionError(inside, owner.names(), owner.path, member)

    def names(self) -> list[str]:
        """The options there are, those of groups of settings with their dots; a job has no option for a whole group."""
        groups = {
            name: kind
            for name, parameter in self.known.items()
            for kind in alternatives(parameter.annotation)
            if is_group(kind)
        }
        own = [name for name in self.known if self.path or name not in groups]
        return own + [f"{name}.{f.name}" for name, kind in groups.items() for f in fields(kind) if f.repr]

    def missing(self) -> Iterator[OptionPath]:
        """Options without a default that were not set, here and further in."""
        needed = (name for name, parameter in self.known.items() if parameter.default is REQUIRED)
        yield from ((*self.path, name) for name in needed if name not in self.options)
        yield from (path for value in self.options.values() for spec in specs(value) for path in spec.missing())

    def build(self) -> Any:
        """The object.

        Raises:
            MissingOptionsError: for options without a default that were not set.
            UserError: of its class, for settings that it refuses.
        """
        if missing := list(self.missing()):
            raise MissingOptionsError(missing)
        return self.kind(**{name: built(value) for name, value in self.options.items()})


def new_spec(kind: Callable[..., Any], path: OptionPath, owner: Spec | None = None) -> Spec:
    """A class with no option set; a member of a role is its own owner."""
    spec = Spec(kind, path, {}, parameters(kind), owner if is_group(kind) else None)
    own = getattr(owner.kind, "default_threat", None) if owner is not None else None
    if isinstance(kind, type) and isinstance(own, kind):  # what is not set of a method's threat is the method's own
        spec.options = spec_of(own, path).options
    return spec


def spec_of(thing: Any, path: OptionPath, owner: Spec | None = None) -> Spec:
    """An object as its class and the options that differ from the defaults."""
    spec = new_spec(type(thing), path, owner)
    for name, parameter in spec.known.items():
        value = getattr(thing, name)
        if value is not parameter.default and (isinstance(value, Defence) or value != parameter.default):
            spec.options[name] = value
    return spec


def is_built(value: Any) -> bool:
    """Whether this is an object that has options of its own."""
    return not isinstance(value, type | Spec) and (role_of(type(value)) is not None or is_dataclass(value))


def specs(value: Any) -> list[Spec]:
    """The specs in an option's value."""
    return [part for part in (value if isinstance(value, list | tuple) else [value]) if isinstance(part, Spec)]


def built(value: Any) -> Any:
    """A value with the objects in it built."""
    if isinstance(value, Spec):
        return value.build()
    return type(value)(built(part) for part in value) if isinstance(value, list | tuple) else value


def plain(value: Any) -> Any:
    """A value as plain data for a YAML file, with defaults written out; a class by its place under ``class_path``."""
    if isinstance(value, Spec):
        tree = {}
        for name, parameter in value.known.items():
            chosen = value.options.get(name, parameter.default)
            if chosen is not REQUIRED:
                tree[name] = plain(chosen)
        if not value.path or is_group(value.kind):
            return tree
        return {"class_path": place(value.kind), "init_args": tree}
    if is_built(value):
        return plain(spec_of(value, ("member",)))
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return place(value) if callable(value) and hasattr(value, "__qualname__") else str(value)


def place(thing: Any) -> str:
    """Where a class or a function is to be found: by its module, or a user's own by its file."""
    where = place_of(thing)
    return f"{where}{':' if where.endswith('.py') else '.'}{thing.__qualname__}"
