"""Audits of networks that give no gradients: what can run does, and what was left out is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from buttress.attacks import Perturbation
from buttress.audits.base.finding import Finding, checked_finding
from buttress.engine.passes import led_back
from buttress.engine.preserved_model import Model, preserved
from buttress.errors import NoGradientError
from buttress.model_call import call_model
from buttress.registry import audit as registered_audits
from buttress.tasks import Task

HINT = "attacks that need no gradients are square, hopskipjump and boundary-attack: --attacks square hopskipjump"


class Question(Protocol):
    """What an audit is, as far as it is put here: asked about a subject, it answers with a finding."""

    def ask(self, subject: Any) -> Finding:
        """The answer."""


def has_gradient(model: Model, x: Tensor, task: Task) -> bool:
    """Whether the network's output depends on its input by differentiable operations; by a pass of one input.

    Args:
        model: the network.
        x: (N, ...) inputs that it can read.
        task: reads its output.
    """
    with preserved(model, "eval", 0, x.device):
        start = x[:1].detach().clone().requires_grad_()
        output = task.read(call_model(model, start))
        try:
            led_back(output, start, torch.ones_like(output), False)
        except NoGradientError:
            return False
        return True


def ask_what_can_run(
    questions: Sequence[Question], subject: object, begin: Callable[[int], None] = lambda index: None
) -> Iterator[Finding]:
    """Put each question, without the attacks that need gradients where the network gives none.

    The verdict names what was left out. A question of which nothing is left is answered with a finding that says so.

    Args:
        questions: what to ask.
        subject: of whom.
        begin: called with the index of each question before it is put.

    Yields:
        A finding for each question, in their order; where the first are left out, theirs once another is answered.

    Raises:
        NoGradientError: when nothing is left of any.
    """
    waiting, first, answered = list[Finding](), None, False
    for index, question in enumerate(questions):
        begin(index)
        try:
            finding, answered = _answer(question, subject), True
        except NoGradientError as reason:
            finding, first = _left_out(question, reason), first or reason
        waiting.append(finding)
        if answered:
            yield from waiting
            waiting = []
    if first is not None and not answered:
        raise first


def _answer(question: Question, subject: object) -> Finding:
    left_out = list[str]()
    while True:
        try:
            answer = checked_finding(question.ask(subject), registered_audits.name_of(question))
            finding = replace(answer, topic=getattr(question, "topic", answer.topic))
            break
        except NoGradientError as reason:
            smaller = _without(question, reason.attack)
            if smaller is None:
                raise
            question = smaller
            left_out.append(cast(Perturbation, reason.attack).label())
    if not left_out:
        return finding
    verdict = f"{finding.verdict} Left out, for the network gives no gradients: {', '.join(left_out)}; {HINT}."
    return replace(finding, verdict=verdict, data={**finding.data, "left_out": left_out})


def _without(question: Any, attack: object) -> Question | None:
    """The question without the attack in its lists; None where it is in none, or nothing would be left there."""
    members: Any = fields(question) if is_dataclass(question) and isinstance(attack, Perturbation) else ()
    changes: dict[str, Any] = {}
    for f in members:
        value = getattr(question, f.name)
        if not isinstance(value, list | tuple):
            continue
        rest = [one for one in value if not _same(one, attack)]
        if not rest and value:
            return None
        if len(rest) < len(value):
            changes[f.name] = rest
    return cast(Question, replace(question, **changes)) if changes else None


def _same(one: object, attack: Any) -> bool:
    """Whether it is the attack, at another budget perhaps."""
    return isinstance(one, Perturbation) and type(one) is type(attack) and one.label() == attack.label()


def _left_out(question: object, reason: NoGradientError) -> Finding:
    name = registered_audits.name_of(question).rpartition(":")[2]
    verdict = f"Left out, for it needs gradients, which the network does not give ({reason}); {HINT}."
    return Finding("left-out", f"Left out: {name}", verdict, "info", {"audit": name, "reason": str(reason)})
