"""A question about a trained network, and the run that puts several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar, Self, cast

from torch import nn

from buttress.ambient_state import in_usual_state
from buttress.audits.base.evaluation.groups import Data
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.rating import beside_chance
from buttress.audits.base.subject import Subject, Watch, subject
from buttress.audits.base.without_gradients import ask_what_can_run
from buttress.audits.base.work import Work
from buttress.engine.threat_resolution import resolve_threats, resolved_settings
from buttress.registry import audit as registered_audits
from buttress.tasks import check_task
from buttress.threat import Threat

# Marks a parameter for perturbations that takes the job's own attacks where it is left at its default; one for attacks
# alone, as in ``Sequence[Attack]``, needs no mark.
TAKES_ATTACKS = "takes the job's attacks"


class Audit(ABC):
    """A question about a trained network: a frozen dataclass of plain fields that returns a `Finding`.

    Attributes:
        needs_classes: whether it is for classes only, as an audit is unless it says otherwise by a plain attribute or a
            property; see `buttress.tasks.check_task`.
        topic: what it is about, under which a report of many findings lists it.
        without_classes: what to use for a task that has none.
        needs_training: whether it asks for the inputs that the network was trained on, `Subject.training`.
    """

    needs_training: ClassVar[bool] = False
    topic: ClassVar[Topic] = "Further questions"
    without_classes: ClassVar[str] = "robustness, layers or examples"

    @property
    def needs_classes(self) -> bool:
        """See `Audit`."""
        return True

    def label(self) -> str:
        """The audit's registered name; a user's own: the class's."""
        return registered_audits.name_of(self).rpartition(":")[2]

    def check(self, subject: Subject) -> None:  # noqa: B027  # most audits are for any network
        """Refuse a network that this audit does not apply to; all audits of a run do so before the first begins.

        Raises:
            UserError: saying what network it needs.
        """

    def not_for(self, subject: Subject) -> str:
        """Why there is nothing to ask about these inputs, as a sentence, which is the verdict then; or empty."""
        return ""

    def work(self, subject: Subject) -> Work | None:
        """The most that `ask` does to this network, from which follows how long it takes; see `Work`.

        None, as here, for an audit that does not say: its time is not known before.
        """
        return None

    def within(self, threat: Threat | None = None, usual: Threat = Threat()) -> Self:
        """A copy with every threat filled in that was not given; see `resolve_threats`."""
        members: Any = fields(self) if is_dataclass(self) else ()
        values = {f.name: getattr(self, f.name) for f in members}
        changes = resolved_settings(values, {f.name: f.default for f in members}, threat, usual)
        return cast(Self, replace(cast(Any, self), **changes)) if changes else self

    @abstractmethod
    def ask(self, subject: Subject) -> Finding:
        """Audit this network; crafted examples come from ``subject.attacked``."""

    def __call__(self, model: nn.Module, data: Data, **settings: Any) -> Finding:
        """Audit one network; settings as for `subject`."""
        return run(model, data, [self], **settings)[0]


@in_usual_state
def run(
    model: nn.Module,
    data: Data,
    audits: Sequence[Audit],
    *,
    answered: Callable[[Finding], None] = lambda finding: None,
    **settings: Any,
) -> list[Finding]:
    """Run each audit on ``model``; examples crafted for one serve the others.

    Args:
        model: the network; it comes back as it was.
        data: a split of a data set, or any iterable of batches (x, y), see `read_batches`.
        audits: what to run.
        answered: called with each finding as soon as it is there.
        **settings: as in `subject`: limit, classes, task, seed, precision, batch_size, watch, folder, together,
            training.

    Returns:
        A finding for each audit; of a network that gives no gradients those that can be had without (see
        `ask_what_can_run`).
    """
    shared_subject, audits = subject(model, data, **settings), resolve_threats(list(audits))
    check_task(audits, shared_subject.task)
    for audit in audits:
        audit.check(shared_subject)
    return put(shared_subject, audits, answered)


@in_usual_state
def put(
    shared_subject: Subject,
    audits: Sequence[Audit],
    answered: Callable[[Finding], None] = lambda finding: None,
    before: int = 0,
    after: int = 0,
) -> list[Finding]:
    """Put audits to a network that is at hand, with what was crafted for others already; see `run`.

    Args:
        shared_subject: the network, its inputs and the store of examples.
        audits: with their threats filled in, and fit for the network.
        answered: called with each finding as soon as it is there.
        before: how many other audits were put before these; for what the subject's watch is told.
        after: how many there are from the first of these on; these alone unless more.
    """
    watch, total = shared_subject.watch, before + max(after, len(audits))

    def begin(index: int) -> None:
        if watch is not None:
            shared_subject.watch = _told_of(audits[index].label(), before + index, total, watch)

    findings = list[Finding]()
    try:
        for finding in ask_what_can_run(audits, shared_subject, begin):
            findings.append(beside_chance(finding, shared_subject.chance_sentence))
            answered(findings[-1])
    finally:
        shared_subject.watch = watch
    return findings


def _told_of(name: str, index: int, count: int, watch: Watch) -> Watch:
    """Tells ``watch`` which of the audits is at work, also between its attacks, where no share is known: 0."""
    place = f"{name} ({index + 1} of {count})" if count > 1 else name

    def told(what: str, done: float) -> None:
        watch(place if what == name else f"{place}: {what}", done)
        if done >= 1:
            watch(place, 0.0)

    watch(place, 0.0)
    return told
