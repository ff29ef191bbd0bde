"""All audits of tiny networks of several tasks: each registered one is answered, or said to be left out, and why."""

import pytest
import torch
from torch import nn

from buttress import registry, tasks
from buttress.audits.base.subject import subject as make_subject
from buttress.audits.boundary import Boundary
from buttress.audits.masking.audit import Masking
from buttress.audits.robustness import Robustness
from buttress.audits.weights import Weights
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.jobs.audit_times import AuditTimes
from buttress.jobs.every_audit import ALL, applying, every_audit, named_audits
from buttress.threat import Threat

THREAT = Threat(eps=0.1)
TASKS = {name: registry.task.get(name)() for name in registry.task.names() if name != "denoising"}


def prepare(question):
    return resolve_threats(question, usual=THREAT)


def a_subject(nets, task, images=True):
    model = (
        nets.conv(seed=3) if images else nets.seeded(lambda: nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2)))
    )
    x = torch.rand(6, 1, 6, 6) if images else torch.rand(6, 2)
    y = task.decision(task.read(model(x))).detach()
    return make_subject(model, [(x, y)], task=task)


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("which", TASKS)
def test_every_registered_audit_is_asked_or_left_out_for_a_reason(nets, which, images):
    subject = a_subject(nets, TASKS[which], images)
    questions, left_out = every_audit([], [], None, prepare)
    fitting, unfit = applying(questions, [], subject, AuditTimes(subject))
    names = [question.label() for question in fitting] + [one.name for one in (*left_out, *unfit)]
    assert sorted(names) == registry.audit.names()
    assert all(one.reason for one in (*left_out, *unfit))
    assert ("boundary" in [question.label() for question in fitting]) == (not images and which == "classification")


def test_what_needs_more_than_a_network_says_how_to_give_it():
    _, left_out = every_audit([], [], None, prepare)
    reasons = {one.name: one.reason for one in left_out}
    assert reasons["imported"] == "it needs more than a network: --audits all,imported --audits.file ..."


def test_what_was_named_takes_the_place_of_the_usual_and_that_of_the_default():
    named, usual = [Masking(inputs=7)], [Robustness(eps=[0.2]), Masking()]
    questions, _ = every_audit(usual, named, None, prepare)
    assert [q for q in questions if isinstance(q, Masking)] == named
    assert [q for q in questions if isinstance(q, Robustness)] == usual[:1]


def test_what_is_left_out_by_name_is_told():
    questions, left_out = every_audit([], [], ["weights"], prepare)
    assert not any(isinstance(question, Weights) for question in questions)
    assert [(one.name, one.reason) for one in left_out if one.name == "weights"] == [
        ("weights", "left out by --without")
    ]


def test_a_named_audit_is_refused_as_it_is_without_the_others(nets):
    """One that is not for this task raises; its neighbour that nobody named is left out."""
    subject, named = a_subject(nets, tasks.Regression()), Masking(threat=THREAT)
    fitting, left_out = applying([named, Weights()], [], subject, AuditTimes(subject))
    assert [question.label() for question in fitting] == ["weights"]
    assert left_out[0].reason.startswith("masking needs classes")
    with pytest.raises(UserError, match="masking needs classes"):
        applying([named, Weights()], [named], subject, AuditTimes(subject))


@pytest.mark.parametrize(
    ("audits", "without", "message"),
    [
        ([Robustness()], ["weights"], "--without leaves audits out of all of them"),
        (None, ["weights"], "--without leaves audits out of all of them"),
        ([ALL, Weights()], ["weights"], "weights is among --audits and --without"),
        ([ALL], ["weigths"], "did you mean 'weights'"),
    ],
)
def test_names_that_mean_nothing_are_refused(audits, without, message):
    with pytest.raises(UserError, match=message):
        named_audits(audits, without)


def test_all_beside_named_ones():
    assert named_audits([ALL, Boundary()], None) == [Boundary()]
