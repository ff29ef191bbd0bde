"""A job as a spec: its parameters as options, those of its groups side by side with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from buttress.config import FROM_THE_COMMAND_LINE
from buttress.config.annotations import REQUIRED, Parameter, parameters
from buttress.config.option_errors import MissingOptionsError
from buttress.config.spec import Spec, built


def job_spec(job: Callable[..., Any]) -> Spec:
    """A job with no option set.

    Where the network must be named, no model is left to choose.
    """
    own = parameters(job)
    hidden = set(FROM_THE_COMMAND_LINE)
    if "network" in own and own["network"].default is REQUIRED:
        hidden.add("model")
    known: dict[str, Parameter] = {}
    for name, parameter in own.items():
        known |= _fields(parameter.annotation) if _is_flat(parameter) else {name: parameter}
    return Spec(job, (), {}, {name: one for name, one in known.items() if name not in hidden})


def _is_flat(parameter: Parameter) -> bool:
    """Whether the fields of this group are options of the job itself: --data, --model, --epochs."""
    return getattr(parameter.annotation, "flat", False) is True


def _fields(group: Any) -> dict[str, Parameter]:
    for_users = [f.name for f in fields(group) if f.repr]
    return {name: one for name, one in parameters(group).items() if name in for_users}


def arguments(spec: Spec) -> dict[str, Any]:
    """What the job is to be called with, objects built.

    Raises:
        MissingOptionsError: for options without a default that were not set.
        UserError: of a class, for settings that it refuses.
    """
    if missing := list(spec.missing()):
        raise MissingOptionsError(missing)
    values = {name: built(value) for name, value in spec.options.items()}
    for name, parameter in parameters(spec.kind).items():
        if _is_flat(parameter):
            group = parameter.annotation
            values[name] = group(**{f.name: values.pop(f.name) for f in fields(group) if f.name in values})
    return values
