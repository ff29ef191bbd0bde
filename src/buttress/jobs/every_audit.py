"""All audits at once: every registered one, and why some are not for this network, these inputs or this threat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from buttress import registry
from buttress.audits import Audit, Subject
from buttress.config.annotations import REQUIRED, parameters
from buttress.errors import UserError
from buttress.jobs.audit_times import AuditTimes
from buttress.tasks import check_task

ALL = "all"
Asked = Audit | Literal["all"]


@dataclass(frozen=True)
class LeftOut:
    """An audit that is not asked, and the reason in words."""

    name: str
    reason: str


def named_audits(audits: Sequence[Asked] | None, without: Sequence[str] | None) -> list[Audit]:
    """The audits that the user names beside "all", which are asked with the user's options.

    Raises:
        UserError: for a name in ``without`` that is no audit's, or that is asked for as well; and for ``without`` where
            not all are asked.
    """
    named = [audit for audit in audits or () if isinstance(audit, Audit)]
    if without and (audits is None or ALL not in audits):
        raise UserError("--without leaves audits out of all of them: give it with --audits all")
    for name in without or ():
        kind = registry.audit.get(name)
        if any(type(audit) is kind for audit in named):
            raise UserError(f"{name} is among --audits and --without: leave one of them out")
    return named


def every_audit(
    usual: Sequence[Audit],
    named: Sequence[Audit],
    without: Sequence[str] | None,
    prepare: Callable[[Audit], Audit],
) -> tuple[list[Audit], list[LeftOut]]:
    """Every registered audit: as the user named it, else as usual, else with its defaults; and those left out.

    Args:
        usual: the usual audits of these data.
        named: the user's own.
        without: names of those that the user left out.
        prepare: gives an audit what a job gives it: threats, attacks, layers.
    """
    questions, left_out = list(named), [LeftOut(name, "left out by --without") for name in without or ()]
    for name in registry.audit.names():
        kind = registry.audit.get(name)
        if name in (without or ()) or any(type(audit) is kind for audit in named):
            continue
        already = [audit for audit in usual if type(audit) is kind]
        needed = [option for option, parameter in parameters(kind).items() if parameter.default is REQUIRED]
        if already:
            questions += already
        elif needed:
            options = " ".join(f"--audits.{option.replace('_', '-')} ..." for option in needed)
            left_out.append(LeftOut(name, f"it needs more than a network: --audits all,{name} {options}"))
        else:
            try:
                questions.append(prepare(kind()))
            except UserError as reason:  # as a threat in a norm that it does not know
                left_out.append(LeftOut(name, str(reason)))
    return questions, left_out


def applying(
    questions: Sequence[Audit], named: Sequence[Audit], subject: Subject, times: AuditTimes
) -> tuple[list[Audit], list[LeftOut]]:
    """The audits that can be put to this network, on these inputs; and why not the others.

    Raises:
        UserError: for one that the user named, which is refused as it is without the others.
    """
    fitting, left_out = list[Audit](), list[LeftOut]()
    for question in questions:
        try:
            check_task([question], subject.task)
            question.check(subject)
            reason = question.not_for(subject)
            if not reason:
                times.seconds(question)  # which refuses what asking would refuse
        except UserError as error:
            if any(question is one for one in named):
                raise
            reason = str(error)
        if reason:
            left_out.append(LeftOut(question.label(), reason))
        else:
            fitting.append(question)
    return fitting, left_out
