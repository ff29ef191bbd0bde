"""Networks that an attack or an audit names by the folders of their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import nn

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.attacks.composed.bpda import BPDA
from buttress.attacks.composed.ensemble import Ensemble
from buttress.attacks.composed.variant import Variant
from buttress.audits import Audit
from buttress.audits.base.ranking import joined
from buttress.audits.privacy.references import Reference
from buttress.data import without_classes
from buttress.data.dataset import Dataset
from buttress.engine.preserved_model import switch_mode
from buttress.errors import UserError
from buttress.jobs.fit_to_data import check_fit
from buttress.jobs.settings import Network, Source
from buttress.jobs.training_inputs import training_inputs
from buttress.tasks import Task
from buttress.training import load, read_facts

Thing = TypeVar("Thing")


def with_surrogates(
    thing: Thing, dataset: Dataset, device: torch.device | str = "cpu", task: Task = tasks.classification
) -> Thing:
    """``thing`` (an attack, an audit, a list of them) with the networks that it names by their runs' folders loaded.

    Those are a ``surrogate`` or ``baseline``, the ``models`` of an ensemble, and ``references``, with what they were
    trained on, which must fit the data; and the networks ``without`` a class, by its name, which must fit the data
    without it.

    Raises:
        UserError: also for BPDA without layers and an ensemble of nothing, each the attack inside under another name.
    """
    held: Any = thing
    if isinstance(held, list | tuple):
        parts = [with_surrogates(part, dataset, device, task) for part in held]
        same = all(new is old for new, old in zip(parts, held, strict=True))
        return thing if same else cast(Thing, type(held)(parts))
    if isinstance(held, BPDA) and held.layers is None:
        needs, how = "bpda needs the names of the layers whose gradients it replaces", "layers NAME,NAME"
        raise UserError(f"{needs}: layers=[NAMES] in Python, --by.{how} on the command line")
    if isinstance(held, Ensemble) and not held.models:
        needs, how = "ensemble needs the networks to attack beside the one in question", "models FOLDER,FOLDER"
        raise UserError(f"{needs}: models=[NETWORKS] in Python, --by.{how} (of runs) on the command line")
    if isinstance(held, Variant) and held.variant is None:
        needs, how = "variant needs the name of the network's variant to craft on", "variant NAME"
        raise UserError(f"{needs}: variant=NAME in Python, --by.{how} on the command line")
    members: Any = fields(held) if is_dataclass(held) and isinstance(held, Perturbation | Audit) else ()
    changed: dict[str, Any] = {}
    for name, value in ((f.name, getattr(held, f.name)) for f in members):
        if name in ("surrogate", "baseline") and isinstance(value, str):
            new: Any = _other(value, dataset, device, task)
        elif name == "references" and any(isinstance(one, str) for one in value):
            new = [_reference(one, dataset, device, task) if isinstance(one, str) else one for one in value]
        elif name == "models" and any(isinstance(model, str) for model in value):
            new = [_other(model, dataset, device, task) if isinstance(model, str) else model for model in value]
        elif name == "without" and isinstance(value, Mapping):
            new = {key: _without(key, one, dataset, device, task) for key, one in value.items()}
        else:
            new = with_surrogates(value, dataset, device, task)
        changed |= {} if new is value else {name: new}
    return cast(Thing, replace(cast(Any, held), **changed)) if changed else thing


def _reference(folder: str, dataset: Dataset, device: torch.device | str, task: Task) -> Reference:
    """The network of another run, and the identity of the inputs that it was trained on."""
    model, facts = _other(folder, dataset, device, task), read_facts(folder)
    own, _ = Source().load(0, facts, task)
    split = training_inputs(folder, own)
    if not facts.get("source") or split is None:
        raise UserError(f"the run {folder} does not say what it was trained on: train references by buttress train")
    return Reference(model, split.ids)


def _without(
    name: str | int, network: nn.Module | str, dataset: Dataset, device: torch.device | str, task: Task
) -> nn.Module:
    """The network of a run that was trained without one of the classes."""
    if not isinstance(network, str):
        return network
    rest = without_classes(dataset, [name])
    if (classes := read_facts(network).get("classes")) and tuple(classes) != rest.classes:
        raise UserError(
            f"{network}: a network for all classes but {name} was expected (buttress train --without-classes {name}); "
            f"got one for {joined(classes)}"
        )
    return _other(network, rest, device, task)


def _other(folder: str, dataset: Dataset, device: torch.device | str, task: Task) -> nn.Module:
    """The network of another run."""
    if not folder:
        raise UserError("networks that an attack or audit needs are named by their runs' folders; got an empty name")
    model = Network(output=read_facts(folder).get("output")).finish(load(folder))
    try:
        check_fit(model, dataset, task)
    except UserError as reason:
        raise UserError(f"{folder}: {reason}") from None
    switch_mode(model, "eval")
    return model.to(device)
