"""Groups of inputs at fixed boundaries: cut from data of any length, attacked, and kept one file each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from buttress.attacks import AttackResult, Perturbation
from buttress.data.batches import read_batches
from buttress.data.dataset import Split
from buttress.engine.fingerprint import digest_of
from buttress.engine.oracle import Search, Stage
from buttress.engine.pass_watch import passes_watched
from buttress.engine.preserved_model import Model
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.safe_files import full_disk_reported, sync
from buttress.tasks import Task

Data = Split | Iterable[Any]  # see `read_batches`
GROUP = 1024  # inputs attacked together; their compute batches stay full while inputs drop out
_TENSORS = ("x_adv", "loss", "distance", "forwards", "backwards")


@dataclass(frozen=True)
class InputGroup:
    """The inputs of one group: its number, (M, ...) inputs, (M,) labels and ids."""

    index: int
    x: Tensor
    y: Tensor
    ids: Tensor

    @cached_property
    def digest(self) -> str:
        """What tells these inputs, labels and ids from others."""
        return digest_of(self.x, self.y, self.ids)


@dataclass(frozen=True)
class Group:
    """The result of attacking one group.

    Attributes:
        index: its number, from 0.
        y: (M,) labels.
        ids: (M,) what identifies each input.
        outcome: of the attack, one entry per input.
        seconds: that the attack took.
        inputs: digest of what was attacked.
    """

    index: int
    y: Tensor
    ids: Tensor
    outcome: AttackResult
    seconds: float
    inputs: str


@dataclass(frozen=True, kw_only=True)
class GroupAttack:
    """How every group is attacked: the attack, the network, the settings of the call, and who is told of progress."""

    model: Model
    attack: Perturbation
    task: Task
    seed: int
    search: Search
    precision: Precision
    batch_size: int
    device: torch.device
    tell: Callable[[int, float], None] | None = None  # the index of the group, and the share of it that is done

    def __call__(self, inputs: InputGroup) -> Group:
        """Attack one group."""
        x, y, ids = (values.to(self.device) for values in (inputs.x, inputs.y, inputs.ids))
        named = ("task", "seed", "search", "precision", "batch_size")
        settings: dict[str, Any] = {name: getattr(self, name) for name in named}
        start = time.perf_counter()
        tell = None if self.tell is None else partial(self.tell, inputs.index)
        with passes_watched(self.attack.most_passes, tell):
            outcome = self.attack(self.model, x, y, ids=ids, **settings)
        return Group(inputs.index, y, ids, outcome, time.perf_counter() - start, inputs.digest)


def split_tensors(x: Tensor, y: Tensor, ids: Tensor, size: int) -> Iterator[InputGroup]:
    """Tensors in groups of ``size`` rows, the last one smaller."""
    for index, start in enumerate(range(0, len(x), size)):
        rows = slice(start, start + size)
        yield InputGroup(index, x[rows], y[rows], ids[rows])


def grouped(data: Data, size: int) -> Iterator[InputGroup]:
    """Any data in groups of ``size`` inputs, whatever batches they come in; no more than that is held at once.

    The ids are a split's own; of other data they are the positions.

    Raises:
        UserError: when an item of ``data`` is no batch.
    """
    if isinstance(data, Split):
        for index, start in enumerate(range(0, len(data), size)):
            yield InputGroup(index, *data.take(torch.arange(start, min(start + size, len(data)))))
        return
    pending: list[tuple[Tensor, Tensor]] = []
    index = 0
    for pair in read_batches(data, size):
        pending.append(pair)
        while sum(len(y) for _, y in pending) >= size:
            x, y = (torch.cat(parts) for parts in zip(*pending, strict=True))
            # Copies, so that no group keeps the whole of a larger batch alive.
            yield InputGroup(index, x[:size].clone(), y[:size].clone(), torch.arange(index * size, (index + 1) * size))
            pending, index = ([(x[size:].clone(), y[size:].clone())] if len(y) > size else []), index + 1
    if sum(len(y) for _, y in pending):
        x, y = (torch.cat(parts) for parts in zip(*pending, strict=True))
        yield InputGroup(index, x, y, torch.arange(index * size, index * size + len(y)))


def attack_groups(
    groups: Iterable[InputGroup], attack_group: Callable[[InputGroup], Group], folder: Path | None
) -> Iterator[Group]:
    """The result of each group: read from its file in ``folder`` where it is finished, else attacked and written.

    Raises:
        UserError: when a file is about other inputs or cannot be read, and when the disk is full.
    """
    for inputs_of_group in groups:
        if folder is None:
            yield attack_group(inputs_of_group)
            continue
        path = file_of(folder, inputs_of_group.index)
        if path.exists():
            group = read_group(path)
            if group.inputs != inputs_of_group.digest:
                raise UserError(f"{path} is about other inputs than now: give the same data, or another folder")
        else:
            group = attack_group(inputs_of_group)
            _write_group(path, group)
        yield group


def to_device(device: torch.device, outcome: AttackResult) -> AttackResult:
    """An outcome with its tensors on another device."""
    tensors = {f.name: value for f in fields(outcome) if isinstance(value := getattr(outcome, f.name), Tensor)}
    changes: dict[str, Any] = {name: value.to(device) for name, value in tensors.items()}
    return replace(outcome, **changes)


def file_of(folder: Path, index: int) -> Path:
    """Where a group is kept."""
    return folder / f"group-{index:06d}.safetensors"


def files_in(folder: Path) -> list[Path]:
    """The files of all finished groups, in order."""
    return sorted(folder.glob("group-*.safetensors"))


def tensors_of(group: Group) -> dict[str, Tensor]:
    """What is kept of each input: x_adv, y, ids, beaten (uint8: success), loss, distance, forwards, backwards."""
    tensors = {"y": group.y, "ids": group.ids, "beaten": group.outcome.success.to(torch.uint8)}
    tensors |= {name: getattr(group.outcome, name) for name in _TENSORS}
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _write_group(path: Path, group: Group) -> None:
    outcome = group.outcome
    facts = {"inputs": group.inputs, "seconds": group.seconds, "precision": outcome.precision}
    text = json.dumps({**facts, "stages": [stage.facts() for stage in outcome.stages]})
    beside = path.with_name(f".{path.name}.tmp")
    with full_disk_reported(path):
        try:
            # As bytes: safetensors writes files by way of another one, which a kill leaves behind under any name.
            beside.write_bytes(save(tensors_of(group), metadata={"group": text}))
            sync(beside)
            os.replace(beside, path)
            sync(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def read_group(path: Path) -> Group:
    """A finished group.

    Raises:
        UserError: when the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["group"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (the file is no dict)
        stages = tuple(map(Stage.from_facts, facts["stages"]))
        outcome_tensors = {name: tensors[name] for name in _TENSORS}
        outcome = AttackResult(
            **outcome_tensors, success=tensors["beaten"].bool(), precision=facts["precision"], stages=stages
        )
        index = int(path.stem.removeprefix("group-"))
        return Group(index, tensors["y"], tensors["ids"], outcome, facts["seconds"], facts["inputs"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): remove it, and that group is attacked again") from None
