"""What all perturbations share: one call, one engine, one result. A new one writes `Perturbation.perturb` only.

Annotations are evaluated here: as texts they would be looked up in the files of subclasses, which need not know them.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from buttress import tasks
from buttress.ambient_state import in_usual_state
from buttress.engine.attack_result import AttackResult
from buttress.engine.call_checks import check_call, check_inputs
from buttress.engine.fingerprint import plain
from buttress.engine.oracle import Inside, Oracle, Search
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import Mode, Model, preserved
from buttress.engine.runner import Precision, Runner, Twins
from buttress.engine.targets import Target, chosen_target, given_target, warn_of_own_class
from buttress.engine.threat_resolution import resolved_settings
from buttress.engine.users_points import check_untouched, checked_points, is_users, warn_of_far_points
from buttress.errors import NoGradientError, UserError
from buttress.random import Random, derive
from buttress.registry import attack as registered_attacks
from buttress.tasks import Task, check_task
from buttress.threat import Threat, norms
from buttress.validation import whole


class Perturbation(ABC):
    """Anything that moves inputs: a frozen dataclass of plain fields, called on a model and a batch.

    Attributes:
        threat: what is allowed, or None.
        box: of a perturbation without a threat: the range (low, high) that inputs live in, or None for no limit.
        strays: whether it asks about points outside of the threat, so that beating the model there is no success yet.
        draws: passes whose mean answers one question, for models that draw at random.
        exact: whether its result depends on the last digits of the outputs, so that its search is in float32.
        needs_classes: whether it is for classes only; see `check_task`.
        without_classes: what to use for a task that has none.
    """

    threat: Threat | None = None
    box: tuple[float, float] | None = None
    strays: bool = False
    draws: int = 1
    exact: bool = False
    without_classes: ClassVar[str] = "pgd, apgd, fmn, cw or square"

    @property
    def needs_classes(self) -> bool:
        """See `Perturbation`: a method says otherwise by a plain attribute, or for its settings by a property."""
        return False

    @abstractmethod
    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The mathematics, and nothing else: the moved inputs, of the shape of ``x``.

        Args:
            oracle: answers questions about the model; see `Oracle`.
            x: (N, ...) inputs.
            y: (N,) the truth.
            random: this batch's draws.
        """

    def points(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What `perturb` returns, detached: how everything else calls it.

        Raises:
            UserError: naming an attack of a user's own that returns what is no point for each input.
        """
        if not is_users(self):
            return self.perturb(oracle, x, y, random).detach()
        inputs, truth = x.clone(), y.clone()
        found = self.perturb(oracle, x, y, random)
        for what, now, before in (("x", x, inputs), ("y", y, truth)):
            check_untouched(self, now, before, what)
        return checked_points(self, found, x, None if self.threat else self.box)

    @in_usual_state
    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        task: Task = tasks.classification,
        target: Target | None = None,
        seed: int = 0,
        ids: Tensor | None = None,
        search: Search = "full",
        mode: Mode = "eval",
        precision: Precision = "fp32",
        batch_size: int | None = None,
        read_every: int | None = None,
    ) -> AttackResult:
        """Perturb ``x`` and return the result. The model comes back exactly as it was, also after an exception.

        Args:
            model: gives logits for inputs in the box.
            x: (N, ...) float32 or float64 inputs.
            y: the truth, also in a targeted attack: (N,) int64 classes, or what else the task asks for.
            task: what the output is for.
            target: what the attacker wants: one class for all inputs, one for each, (N,), or how to choose them:
                "least_likely" or "random"; for other tasks a tensor in the form of ``y``, or of a row of it for all.
            seed: what all draws depend on, together with ``ids``.
            ids: (N,) int64, what identifies each input across batches; 0 to N - 1 unless given.
            search: "full" returns the attack's own point for every input; "first" drops an input with its
                first adversarial example, which is all that an evaluation needs.
            mode: the mode of the model meanwhile; in "train", BatchNorm uses the batch and keeps its buffers.
            precision: of the search, see `Runner`; "auto" times them on the first batch. The verdict is float32, by
                the model itself.
            batch_size: inputs computed at once; all unless given.
            read_every: questions after which ``search="first"`` reads from the device which inputs these are; 8 on a
                GPU, where reading stalls it, and 1 elsewhere unless given.

        Raises:
            UserError: for inputs outside the box or of the wrong kind, labels and targets that do not fit, and outputs
                that are no logits, each saying what came and what to do.
        """
        if not len(x):
            zeros = torch.zeros(0, dtype=torch.int64, device=x.device)
            return AttackResult(x.clone(), zeros.bool(), x.new_zeros(0), zeros.double(), zeros, zeros)
        check_call(search, mode, precision, batch_size)
        attack = self.within()
        check_task(attack, task)
        check_inputs(model, x, y, attack._box())
        if attack.threat:
            attack.threat.check(x)
        if read_every is not None:
            whole("read_every", read_every)
        ids = _ids(ids, x)
        passes = Runner(model, task, precision, batch_size or len(x), attack.draws, exact=attack.exact)
        with preserved(model, mode, seed, x.device, x.dtype):
            oracle = attack._oracle(passes, x, y, target, seed, ids, search, read_every)
            if oracle.target is not None:
                warn_of_own_class(oracle.target, oracle.y)
            x_adv = attack._moved(oracle, seed, ids)
            with torch.no_grad():
                x_adv, output = oracle.settle(x_adv)
                success = task.is_adversarial(output, oracle.y, oracle.target)
                loss = task.resolve(task.loss).function(output, oracle.y)
                threat = attack.threat
                distance = threat.distance(x_adv, x) if threat else norms(x_adv.double() - x.double(), "l2")
        used: Precision = "fp32" if passes.precision == "auto" else passes.precision  # never chosen: there was no pass
        stages = tuple(oracle.stages.values())
        return AttackResult(x_adv, success, loss, distance, oracle.forwards, oracle.backwards, used, stages)

    @in_usual_state
    def craft(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        task: Task = tasks.classification,
        target: Target | None = None,
        seed: int = 0,
        ids: Tensor | None = None,
        mode: Mode = "eval",
        precision: Precision = "fp32",
        twins: Twins | None = None,
        move_statistics: bool = False,
    ) -> Tensor:
        """Only the perturbed inputs of a full search: no verdict, so no pass beyond the search's own. For training.

        ``twins`` keeps the copies of the model that "folded" and "twin" search on from call to call. With
        ``move_statistics`` the passes of a model in train mode move BatchNorm's running statistics for good.
        """
        if not len(x):
            return x.clone()
        check_call("full", mode, precision, None)
        attack = self.within()
        check_task(attack, task)
        check_inputs(model, x, y, attack._box())
        if attack.threat:
            attack.threat.check(x)
        ids = _ids(ids, x)
        passes = Runner(model, task, precision, len(x), attack.draws, twins, attack.exact)
        with preserved(model, mode, seed, x.device, x.dtype, move_statistics=move_statistics):
            return attack._moved(attack._oracle(passes, x, y, target, seed, ids, "full", None), seed, ids)

    def search_passes(self, classes: int) -> PassCount | None:
        """The most passes that `perturb` makes for an input, of a network with so many classes; None where not known.

        Not counted are the output for the unperturbed input, which is computed once, and the verdict; nor how often
        each is repeated, see `draws`.
        """
        return None

    def most_passes(self, classes: int) -> PassCount | None:
        """The most passes that a call makes for an input; None where they are not known. For estimates of time.

        Args:
            classes: of the network.
        """
        attack = self.within()
        search = attack.search_passes(classes)
        return None if search is None else (search + PassCount(2)) * attack.draws

    def settings(self) -> dict[str, Any]:
        """Its fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)} if is_dataclass(self) else {}

    def defaults(self) -> dict[str, Any]:
        """The defaults of its fields by name; `dataclasses.MISSING` for a field without one."""
        return {f.name: f.default for f in fields(self)} if is_dataclass(self) else {}

    def within(self, threat: Threat | None = None, usual: Threat = Threat()) -> Self:
        """A copy with every threat filled in that was not given, those of attacks inside too; itself if there is none.

        A box that was not given, of a threat or of a noise, becomes that of ``threat``, or of ``usual``.

        Args:
            threat: what the user gave for several attacks at once; None where nothing was given.
            usual: what takes its place then, for methods without a default of their own.

        Raises:
            UserError: for a threat in which the method is not defined.
        """
        values = self.settings()
        changes = resolved_settings(values, self.defaults(), threat, usual)
        return cast(Self, replace(cast(Any, self), **changes)) if changes else self

    def label(self) -> str:
        """The perturbation in a few words: "gaussian"."""
        return registered_attacks.name_of(self).rpartition(":")[2]

    def fingerprint(self) -> str:
        """A digest of every field, weights included: equal fingerprints mean the same perturbation."""
        return hashlib.sha256(json.dumps(plain(self.within()), sort_keys=True).encode()).hexdigest()

    def inside(self) -> Inside | None:
        """Which points count as adversarial during the search: None for all that fool the model."""
        if not self.strays or self.threat is None:
            return None
        if math.isinf(self.threat.eps):  # a smaller one may always come
            return lambda x_adv, x: torch.zeros(len(x), dtype=torch.bool, device=x.device)
        return self.threat.contains

    def _box(self) -> tuple[float, float] | None:
        return self.threat.box if self.threat else self.box

    def _oracle(
        self,
        passes: Runner,
        x: Tensor,
        y: Tensor,
        target: Target | None,
        seed: int,
        ids: Tensor,
        search: Search,
        read_every: int | None,
    ) -> Oracle:
        """An oracle on copies of the caller's tensors: one made under ``inference_mode`` could not carry a gradient."""
        read_every = read_every or (8 if x.device.type == "cuda" else 1)
        y = _copy(y)
        oracle = Oracle(passes, x.detach().clone(), y, search=search, inside=self.inside(), read_every=read_every)
        if target is not None:
            given = given_target(target, x, y, passes.task)
            given = chosen_target(given, oracle.clean, y, seed, ids) if isinstance(given, str) else given
            oracle.target = given
        if search == "first":
            oracle.drop_wrong()
        return oracle

    def _moved(self, oracle: Oracle, seed: int, ids: Tensor) -> Tensor:
        """`perturb` on inputs of our own, its result detached and put inside the threat."""
        x = oracle.x
        random = attack_random(seed, ids)
        try:
            x_adv = x if oracle.done else self.points(oracle, x, oracle.y, random)
        except NoGradientError as error:
            error.attack = self
            raise
        if self.threat and not self.strays and is_users(self):
            warn_of_far_points(self, x_adv, x, self.threat)
        return self.threat.project(x_adv, x) if self.threat else x_adv


def attack_random(seed: int, ids: Tensor) -> Random:
    """The draws that `Perturbation.perturb` is handed in a call with this seed, of inputs with these ids (N,)."""
    return Random(derive(seed, "attack"), ids)


def _ids(ids: Tensor | None, x: Tensor) -> Tensor:
    if ids is None:
        return torch.arange(len(x), device=x.device)
    if ids.shape != x.shape[:1]:
        raise UserError(f"{len(x)} inputs need as many ids, (N,) integers; got shape {tuple(ids.shape)}")
    return ids.to(x.device)


def _copy(y: Tensor) -> Tensor:
    return y.clone() if y.is_floating_point() or y.dim() != 1 else y.to(torch.int64, copy=True)
