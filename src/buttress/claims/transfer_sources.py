"""Networks that a table's transferred attacks make their points on: how they are named, trained and attacked."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from buttress.attacks import Attack
from buttress.attacks.composed.transfer import Transfer
from buttress.claims.experiment import AttackSpec, Experiment, Origin
from buttress.claims.recipe import blanks, fill_blanks, from_mapping
from buttress.claims.setup_training import load, train
from buttress.config.reading import build
from buttress.data.dataset import Dataset
from buttress.engine.machine import Accelerator
from buttress.errors import UserError
from buttress.jobs.fit_to_data import check_fit
from buttress.registry import nearest

_AWAY = 1000  # of a source's seed from the job's, unless it has its own
_CACHE_SIZE = 8  # networks a process remembers: rows of one seed, which are trained one after the other, share theirs
_WHERE = "claim: experiment: attacks"


def resolve_sources(
    entry: Mapping[str, Any], setups: Mapping[str, Any], defences: Mapping[str, Any], seed: int
) -> Mapping[str, Any]:
    """An entry of a table's attacks with all that its sources hang on; one without sources stays as it is.

    Args:
        entry: as the recipe has it.
        setups: the experiment's, by name.
        defences: of the table's rows, by name, which a source's ``$NAME`` stands for.
        seed: of the job.
    """
    if "sources" not in entry:
        return entry
    sources = {}
    for name, tree in entry["sources"].items():
        origin = from_mapping(Origin, tree, f"{_WHERE}: sources: {name}")
        sources[name] = {
            "setup": setups[origin.setup],
            "defence": fill_blanks(origin.defence, defences),
            "seed": seed + _AWAY if origin.seed is None else origin.seed,
        }
    return {**entry, "sources": sources}


def attacks_of(
    entry: Mapping[str, Any],
    dataset: Dataset,
    seed: int,
    data_dir: str | None,
    accelerator: Accelerator = "auto",
) -> Iterator[tuple[str | None, Attack]]:
    """The attacks of one resolved entry: itself, or one from each of its sources, which are trained here.

    Args:
        entry: see `resolve_sources`.
        dataset: what is attacked.
        seed: of the job; sources see the data that it gives, so that none is trained on what is attacked.
        data_dir: where original data files are.
        accelerator: that sources are trained on.

    Yields:
        The label, None for that which the attack has by itself, and the attack.
    """
    if "sources" not in entry:
        yield None, build(Attack, entry["attack"])
        return
    attack = _transfer(entry)
    for name, origin in entry["sources"].items():
        network = _network(json.dumps(origin, sort_keys=True), seed, data_dir, accelerator)
        try:
            check_fit(network, dataset)
        except UserError as reason:
            raise UserError(f"{_WHERE}: sources: {name}: {reason}") from None
        yield label(attack, name), replace(attack, surrogate=network)


def label(attack: Transfer, name: str) -> str:
    """How the accuracy under an attack from a source is called: "PGD-40 from mlp"."""
    return f"{attack.attack.label()} from {name}"


def labels(experiment: Experiment) -> list[str]:
    """What the accuracies under an experiment's attacks will be called."""
    names: list[str] = []
    for entry in experiment.attacks:
        if "sources" in entry:
            attack = _transfer(entry)
            names += [label(attack, name) for name in entry["sources"]]
        else:
            names.append(build(Attack, entry["attack"]).label())
    return names


def refuse_wrong(experiment: Experiment, rows: list[str]) -> None:
    """Refuse what is no entry of the attacks, and sources that could not be trained or would share a label.

    Raises:
        UserError: for unknown settings, sources of an attack that is no transfer, an unknown setup, and two sources of
            one label.
    """
    seen: set[str] = set()
    for entry in experiment.attacks:
        from_mapping(AttackSpec, entry, _WHERE)
        if "sources" not in entry:
            continue
        if not isinstance(entry["sources"], Mapping) or not entry["sources"]:
            raise UserError(f"{_WHERE}: sources must map names to networks; got {entry['sources']!r}")
        attack = _transfer(entry)
        for name, tree in entry["sources"].items():
            origin = from_mapping(Origin, tree, f"{_WHERE}: sources: {name}")
            if not isinstance(name, str):
                raise UserError(f"{_WHERE}: sources: a name must be a text; got {name!r}")
            if not isinstance(origin.setup, str) or origin.setup not in experiment.setups:
                known = nearest(str(origin.setup), list(experiment.setups))
                raise UserError(f"{_WHERE}: sources: {name}: there is no setup {origin.setup!r}; {known}")
            unknown = blanks(origin.defence) - set(rows)
            if unknown:
                raise UserError(f"{_WHERE}: sources: {name} has a blank ${min(unknown)} that nothing fills")
            if label(attack, name) in seen:
                raise UserError(f"{_WHERE}: two sources give {label(attack, name)!r}: call one of them otherwise")
            seen.add(label(attack, name))


def _transfer(entry: Mapping[str, Any]) -> Transfer:
    """The transfer of an entry, whose surrogate is to come."""
    tree = entry["attack"]
    name = tree.get("name") if isinstance(tree, Mapping) else tree
    if name != "transfer" or (isinstance(tree, Mapping) and "surrogate" in tree):
        raise UserError(f"{_WHERE}: sources are for {{name: transfer, attack: ...}} without a surrogate; got {tree!r}")
    options = tree if isinstance(tree, Mapping) else {"name": tree}
    attack: Attack = build(Attack, {**options, "surrogate": "source"})
    assert isinstance(attack, Transfer)
    return attack


@functools.lru_cache(maxsize=_CACHE_SIZE)
def _network(origin: str, data_seed: int, data_dir: str | None, accelerator: Accelerator) -> nn.Module:
    """The network that this JSON text describes; nobody changes it, since a transfer gives it back as it was."""
    tree = json.loads(origin)
    dataset = load(tree["setup"]["source"], data_dir, data_seed)
    return train(tree["setup"], tree["defence"], dataset, tree["seed"], accelerator)[0].model
