"""Models and data made to fit: what a factory asks for is filled in, what does not fit is refused at once."""

from __future__ import annotations

import inspect
import logging
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from buttress import models, registry, tasks
from buttress.data.dataset import Dataset
from buttress.engine.input_dtype import input_dtype
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.model_call import call_model, output_parts
from buttress.models.preprocessing import Statistics
from buttress.random import own_draws
from buttress.tasks import Classification, Task

# What an option of a simple type may be given as, and how that is called.
_SIMPLE: dict[object, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}


log = logging.getLogger(__name__)

# What the users' factories call what the data say.
_CLASSES = ("classes", "num_classes", "n_classes", "nb_classes", "num_labels", "n_labels")
_COMMON = {"classes": _CLASSES[1:], "channels": ("in_channels", "in_chans", "input_channels", "n_channels")}
_OF_IMAGES = {**_COMMON, "image_size": ("img_size", "input_size")}
_OF_VECTORS = {"classes": _CLASSES[1:], "features": ("in_features", "input_dim", "in_dim", "n_features", "input_size")}


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
    if name.startswith("timm:"):
        takes = {"classes": inspect.Parameter.empty, "channels": inspect.Parameter.empty}
    else:
        factory = registry.model.get(name)
        check_options(f"the model {name!r}", factory, options)
        known = inspect.signature(factory).parameters if callable(factory) else {}  # what is none is refused below
        takes = {key: parameter.default for key, parameter in known.items()}
    mean, std = (None, None) if statistics is None else statistics.by_channel(dataset.channels)
    model = models.create(name, mean=mean, std=std, seed=seed, **{**_facts(dataset, takes), **options})
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        model.eval()  # so that no statistics move
        with own_draws(seed), torch.no_grad():
            call_model(model, dataset.usual.take(torch.arange(min(2, len(dataset.usual))))[0])
        model.train()
    return model


def _facts(dataset: Dataset, takes: Mapping[str, Any]) -> dict[str, Any]:
    """What the data say of a factory's parameters, by their names; ``takes`` maps these to their defaults."""
    shape = dataset.train.x.shape[1:]  # as stored: of tokens their number, not the shape of their values
    images = len(shape) == 3
    facts: dict[str, Any] = {"classes": len(dataset.classes), "channels": shape[0]}
    facts |= {"examples": len(dataset.train)} if len(dataset.train) else {}
    facts |= {"image_size": shape[-1]} if images else {}
    facts["features"] = math.prod(shape)
    for fact, names in (_OF_IMAGES if images else _OF_VECTORS).items():
        facts |= {name: tuple(shape[1:]) if _is_pair(takes.get(name)) else facts[fact] for name in names}
    if len(dataset.classes) == 2:  # one logit for two classes is what some models are made for
        facts = {key: value for key, value in facts.items() if key not in _CLASSES or takes.get(key) != 1}
    return {key: value for key, value in facts.items() if key in takes}


def _is_pair(default: object) -> bool:
    return isinstance(default, tuple | list) and len(default) == 2


def with_training_output(model: nn.Module, dataset: Dataset) -> nn.Module:
    """A network that returns more in training mode only, such as auxiliary logits, with what it returns else.

    That is the first part of its output that has the shape of the output in eval mode. Other networks as they are.
    """
    x = dataset.usual.take(torch.arange(min(2, len(dataset.usual))))[0]
    x = x.to(input_dtype(model, x))
    with preserved(model, "train", 0, x.device), torch.no_grad():
        parts = output_parts(call_model(model, x))
    if parts is None:
        return model
    with preserved(model, "eval", 0, x.device), torch.no_grad():
        usual = call_model(model, x)
    alike = [
        key for key, part in parts.items() if isinstance(part, Tensor) and part.shape == getattr(usual, "shape", 0)
    ]
    if not alike:
        return model
    log.warning(
        "in training mode the network returns %d outputs: %r is trained, the others are not", len(parts), alike[0]
    )
    wrapped = models.Output(model, alike[0], training_only=True)
    if models.spec_of(model) is not None:  # so that a run remembers how the network inside is made
        wrapped._buttress_spec = model._buttress_spec
    return wrapped


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
    if isinstance(task, Classification) and not dataset.ordered and output.shape[1] > len(dataset.classes):
        raise UserError(
            f"the network tells {output.shape[1]} classes apart, {dataset.name} has images of {len(dataset.classes)}: "
            "say which they are, all classes of the network in its order (--classes FILE, or a,b,c, or their number)"
        )
    task.check(output, y)
