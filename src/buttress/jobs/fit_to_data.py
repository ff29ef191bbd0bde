"""Models and data made to fit: what a factory asks for is filled in, what does not fit is refused at once."""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from buttress import models, registry, tasks
from buttress.data.dataset import Dataset
from buttress.engine.input_dtype import input_dtype
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.models.preprocessing import Statistics
from buttress.tasks import Classification, Task

# What an option of a simple type may be given as, and how that is called.
_SIMPLE: dict[object, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}


def check_options(what: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Hold options of a simple type (numbers, texts) against a factory's annotations; others are the factory's affair.

    Raises:
        UserError: naming the option, what was expected and what came.
    """
    try:
        hints = typing.get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    except (NameError, TypeError):  # annotations that cannot be looked up here say nothing
        return
    for name, value in options.items():
        accepted, called = _SIMPLE.get(hints.get(name), ((object,), ""))
        if not isinstance(value, accepted) or (isinstance(value, bool) and called):
            raise UserError(f"{what}: {name} must be {called}; got {value!r}")


def create_for(
    dataset: Dataset, name: str, options: Mapping[str, Any], statistics: Statistics | None, seed: int
) -> nn.Module:
    """A model that fits a data set: whatever its factory asks for and the data tell is filled in.

    Args:
        dataset: the data.
        name: of the model.
        options: the user's, which come before what is filled in.
        statistics: by which its inputs are normalised inside it; None for inputs as they are.
        seed: of the initial weights.
    """
    shape = dataset.train.x.shape[1:]  # as stored: of tokens their number, not the shape of their values
    images = len(shape) == 3
    facts: dict[str, Any] = {"classes": len(dataset.classes), "channels": shape[0]}
    facts["examples"] = len(dataset.train)
    facts |= {"image_size": shape[-1]} if images else {}
    facts["features"] = math.prod(shape)
    if name.startswith("timm:"):
        takes = {"classes", "channels"}
    else:
        factory = registry.model.get(name)
        parameters = inspect.signature(factory).parameters
        check_options(f"the model {name!r}", factory, options)
        takes = set(parameters)
        default = parameters["classes"].default if "classes" in parameters else None
        if default == 1 and len(dataset.classes) == 2:
            takes.discard("classes")  # one logit for two classes is what this model is made for
    filled = {key: value for key, value in facts.items() if key in takes}
    mean, std = (None, None) if statistics is None else statistics.by_channel(dataset.channels)
    return models.create(name, mean=mean, std=std, seed=seed, **{**filled, **options})


def check_fit(model: nn.Module, dataset: Dataset, task: Task = tasks.classification) -> None:
    """Run two inputs through: shapes, kind of output and number of classes must fit, before any work is done.

    Args:
        model: the network.
        dataset: what it is to run on.
        task: what its output is for.

    Raises:
        UserError: saying what does not fit.
    """
    x, y, _ = dataset.test.take(torch.arange(min(2, len(dataset.test))))
    with preserved(model, "eval", 0, x.device), torch.no_grad():
        output = task.read(models.forward_checked(model, x.to(input_dtype(model, x))))
    if isinstance(task, Classification) and output.shape[1] < len(dataset.classes):
        raise UserError(
            f"the network tells {output.shape[1]} classes apart, {dataset.name} has {len(dataset.classes)}: "
            "give a network made for these data"
        )
    task.check(output, y)
