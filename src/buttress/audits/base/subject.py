"""What all audits share: the network, the data, and the examples that have been crafted already."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from buttress import processes, tasks
from buttress.attacks import AttackResult, Perturbation
from buttress.audits.base.evaluation import search_precision, settings_of
from buttress.audits.base.evaluation.groups import (
    GROUP,
    Data,
    Group,
    GroupAttack,
    InputGroup,
    attack_groups,
    split_tensors,
    to_device,
)
from buttress.audits.base.evaluation.manifest import open_folder
from buttress.audits.base.evaluation.sharing import attack_shared
from buttress.audits.base.rating import chance_sentence
from buttress.audits.base.statistics import accuracy
from buttress.data.batches import read_batches
from buttress.data.dataset import Split
from buttress.data.memory import require_memory
from buttress.data.stratified import stratified_index
from buttress.data.tokens import TokenSplit
from buttress.engine.attack_result import concatenated
from buttress.engine.call_checks import check_numbers
from buttress.engine.fingerprint import digest as digest
from buttress.engine.fingerprint import digest_of
from buttress.engine.oracle import Search
from buttress.engine.preserved_model import preserved
from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.models import forward_checked
from buttress.random import Random
from buttress.tasks import Task, require_task
from buttress.validation import whole

_GROUP = GROUP
_NEEDED = 2  # the inputs and what one attack finds: with less than that no audit ends
_KEPT = 8  # the inputs, and of each attack at each budget what it has found: usual audits keep about so many
Watch = Callable[[str, float], None]


@dataclass(frozen=True)
class Timed:
    """An attack's outcome for all inputs, and the seconds that it took."""

    outcome: AttackResult
    seconds: float


@dataclass
class Subject:
    """One network under audit, and its inputs.

    Attributes:
        model: the network.
        x: (N, ...) float32 inputs.
        y: (N,) classes, or what else the task asks for.
        ids: (N,) what identifies each input.
        classes: names of the classes, of the labels or of the values; or their numbers.
        task: what the output is for.
        seed: of all attacks.
        precision: of the attacks' search; verdicts are float32.
        batch_size: inputs computed at once.
        folder: where crafted examples are stored group by group, so that an audit that was stopped can go on; nowhere
            unless given.
        watch: called with what is being done, and the share of it that is; 0 also where that is not known.
        together: whether other processes put the same questions, so that each attacks its share of the groups.
        tokens: (N, T) tokens that ``x`` are this network's values of, where they are.
        training: what the network was trained on, where that is known; read by audits that ask for it alone.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    task: Task = tasks.classification
    seed: int = 0
    precision: Precision = "fp32"
    batch_size: int = 256
    store: dict[tuple[str, ...], Timed] = field(default_factory=dict)
    watch: Watch | None = None
    folder: Path | None = None
    tokens: Tensor | None = None
    together: bool = False
    training: Split | None = None
    _logits: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """(N, C) outputs for the unperturbed inputs, computed once."""
        if self._logits is None:
            output = self.output(self.x)
            self.task.check(output, self.y)
            self._logits = output
        return self._logits

    @property
    def chance(self) -> float | None:
        """The accuracy of a guess on these inputs; see `Task.chance`."""
        return self.task.chance(self.y, self.logits[0].numel())

    def chance_sentence(self) -> str:
        """See `rating.chance_sentence`: empty for a network that is better than a guess."""
        clean = accuracy(~self.task.is_adversarial(self.logits, self.y))
        return chance_sentence(clean, self.chance, self.task.right)

    def subset(self, count: int) -> Subject:
        """The same network on at most ``count`` of the inputs, spread evenly; with the same store."""
        size = len(self.y)
        rows = torch.linspace(0, size - 1, min(count, size), device=self.y.device).round().long()
        tokens = None if self.tokens is None else self.tokens[rows]
        part = replace(self, x=self.x[rows], y=self.y[rows], ids=self.ids[rows], tokens=tokens, _logits=None)
        part.task.check(part.logits, part.y)
        return part

    def output(self, x: Tensor) -> Tensor:
        """(N, C) outputs for ``x``, in float32 and in eval mode."""
        with preserved(self.model, "eval", self.seed, x.device), torch.no_grad():
            parts = [self.task.read(forward_checked(self.model, part)) for part in torch.split(x, self.batch_size)]
            return torch.cat(parts)

    def attacked(self, attack: Perturbation, search: Search = "full", rows: Tensor | None = None) -> Timed:
        """Every input, or those in ``rows`` (M,), under ``attack``; from the store where that has been done before."""
        key = self._key(attack, search, rows)
        if key not in self.store:
            self.store[key] = self._attack(attack, search, rows, _folder_name(key))
        return self.store[key]

    def has_kept(self, attack: Perturbation, search: Search = "full") -> bool:
        """Whether ``folder`` holds what `attacked` would craft of every input, from an audit of the same network."""
        return self.folder is not None and (self.folder / _folder_name(self._key(attack, search, None))).is_dir()

    def _key(self, attack: Perturbation, search: Search, rows: Tensor | None) -> tuple[str, ...]:
        ids = self.ids if rows is None else self.ids[rows]
        return attack.fingerprint(), str(self.seed), search, digest(self.model), digest_of(ids)

    def _attack(self, attack: Perturbation, search: Search, rows: Tensor | None, name: str) -> Timed:
        tensors = (self.x, self.y, self.ids)
        x, y, ids = tensors if rows is None else (values[rows] for values in tensors)
        shared = ("model", "task", "seed", "precision", "batch_size")
        settings: dict[str, Any] = {name: getattr(self, name) for name in shared}
        attack_group = GroupAttack(attack=attack, search=search, device=x.device, **settings)
        folder = None if self.folder is None else self.folder / name
        opened = partial(
            open_folder, folder, partial(_identity, attack_group), True, partial(search_precision, attack_group, x, y)
        )
        precision = processes.on_first_process(opened) if self.together else opened()
        self.precision = precision if self.precision == "auto" else self.precision
        attack_group = replace(attack_group, precision=precision)
        parts, seconds = [], 0.0
        share = attack_shared if self.together else attack_groups
        for group in share(split_tensors(x, y, ids, _GROUP), self._told(attack, attack_group, len(x)), folder):
            parts.append(to_device(x.device, group.outcome))
            seconds += group.seconds
        return Timed(concatenated(parts), seconds)

    def _told(self, attack: Perturbation, attack_group: GroupAttack, count: int) -> Callable[[InputGroup], Group]:
        """Attacks a group, and tells ``watch`` so."""
        if self.watch is None:
            return attack_group
        watch = self.watch

        def tell(index: int, share: float) -> None:
            before = index * _GROUP
            watch(attack.label(), (before + share * min(_GROUP, count - before)) / count)

        def attack_and_tell(inputs: InputGroup) -> Group:
            group = replace(attack_group, tell=tell)(inputs)
            tell(inputs.index, 1.0)
            return group

        return attack_and_tell


def _folder_name(key: tuple[str, ...]) -> str:
    return digest_of(*key)[:16]


def _identity(attack_group: GroupAttack) -> dict[str, Any]:
    """What a stored outcome is recognised by. Not the precision: examples crafted in any serve all."""
    return {name: value for name, value in settings_of(attack_group, _GROUP).items() if name != "precision"}


@dataclass(frozen=True)
class Stored(Perturbation):
    """A perturbation whose points have been crafted already: looks them up by input id."""

    ids: Tensor
    x_adv: Tensor

    def perturb(self, oracle: Any, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The stored points of these inputs."""
        order = self.ids.argsort()
        return self.x_adv[order[torch.searchsorted(self.ids[order], random.ids)]]


def same_inputs(subject: Subject) -> str:
    """What is equal for audits of the same inputs in the same order: a short digest of ids, labels and values.

    Tokens in the place of values that each network makes of them.
    """
    return digest_of(subject.ids, subject.y, subject.x if subject.tokens is None else subject.tokens)[:16]


def subject(
    model: nn.Module,
    data: Data,
    *,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    task: Task = tasks.classification,
    seed: int = 0,
    precision: Precision = "fp32",
    batch_size: int = 256,
    watch: Watch | None = None,
    folder: Path | None = None,
    together: bool = False,
    training: Split | None = None,
) -> Subject:
    """A network and its inputs, on the network's device; settings as in `Subject`.

    Raises:
        UserError: when there are no inputs, for what is no task, for more inputs than fit into memory with what
            audits keep of them, here reckoned as eight times the inputs, and for more than fit into the memory of the
            network's device with what one attack finds.
    """
    require_task(task)
    whole("batch_size", batch_size)
    tokens = None
    if isinstance(data, Split):
        split = data.stratified(limit, seed) if limit is not None else data
        each = math.prod(split.shape)
        require_memory(_KEPT * 4 * each * len(split), f"an audit of {len(split)} inputs, with what attacks find,")
        tokens = split.tokens(split.x) if isinstance(split, TokenSplit) else None
        x, y, ids = split.take(torch.arange(len(split)))
    else:
        batches = list(read_batches(data, batch_size))
        if not batches:
            raise UserError("an audit needs at least one input; the data is empty")
        x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
        ids = torch.arange(len(y))
        if limit is not None and limit < len(y):
            rows = stratified_index(y.cpu(), whole("limit", limit), seed).to(y.device)
            x, y, ids = x[rows], y[rows], ids[rows.to(ids.device)]
    if not len(y):
        raise UserError("an audit needs at least one input; the data is empty")
    check_numbers(x)
    device = next((p.device for p in model.parameters()), x.device)
    one_class = y.dim() == 1 and not y.is_floating_point()
    count = int(y.max()) + 1 if one_class else 1 if y.dim() == 1 else y.shape[1]
    names = tuple(classes) if classes is not None else tuple(map(str, range(count)))
    settings: dict[str, Any] = {"seed": seed, "precision": precision, "batch_size": batch_size}
    settings |= {"watch": watch, "folder": folder, "task": task, "together": together, "training": training}
    if x.device != device:
        require_memory(_NEEDED * x.nbytes, f"an audit of {len(x)} inputs, with what an attack finds,", device)
    settings |= {} if tokens is None else {"tokens": tokens.to(device)}
    return Subject(model, x.to(device), y.to(device), ids.to(device), names, **settings)
