"""The trust audit in the audit job: asked by default, its surrogate loaded, the attack that it proposes run."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from buttress import models
from buttress.attacks.black_box.square import Square
from buttress.attacks.composed.eot import EoT
from buttress.attacks.composed.transfer import Transfer
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.attacks.minimum_norm.cw import CW
from buttress.audits import Audit, Finding
from buttress.audits.base.finding import read
from buttress.audits.boundary import Boundary
from buttress.audits.homing import Homing
from buttress.audits.masking.audit import Masking
from buttress.audits.robustness import Robustness
from buttress.data import without_classes
from buttress.data.sets.moons import moons
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.jobs import Source, audit
from buttress.jobs.questions import given_audits, proposed, usual_trust
from buttress.jobs.settings import Reporter
from buttress.jobs.surrogates import with_surrogates
from buttress.threat import Threat
from buttress.training import fit

FREE = Threat(eps=0.2, box=None)

ROUNDED = '''
import torch
from sklearn.datasets import load_digits
from torch import nn


class Rounded(nn.Module):
    """The nearest class mean, of inputs rounded to quarters; the product keeps a path for autograd, of gradient 0."""

    def __init__(self):
        super().__init__()
        x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
        means = torch.stack([x[y == c].mean(0) for c in range(10)]).float() / 16
        self.weight, self.bias = nn.Parameter(6 * means), nn.Parameter(-3 * means.square().sum(1))

    def forward(self, x):
        return (torch.round(x * 4) / 4).flatten(1) @ self.weight.T + self.bias


def make():
    return Rounded()
'''


def test_what_is_asked_when_nobody_says():
    assert usual_trust(FREE) == [Masking(attack=PGD(threat=FREE, steps=20), threat=FREE)]
    boxed = Threat(eps=0.2, box=(-1, 1))
    assert usual_trust(boxed, [CW(), FGSM(), PGD()]) == [Masking(attack=FGSM(threat=boxed), threat=boxed)]
    assert usual_trust(boxed, [CW()]) == usual_trust(Threat(eps=0)) == []


def test_it_takes_the_users_attack():
    (question,) = resolve_threats(given_audits([Masking(inputs=7)], [FGSM(), PGD()]), usual=FREE)
    assert question == Masking(inputs=7, attack=FGSM(threat=FREE), threat=FREE)
    (question,) = resolve_threats(given_audits([Masking()], None), usual=FREE)
    assert question.audited == PGD(threat=FREE, steps=20)


def finding(attack, robust=0.5, random=False):
    return Finding("masking", "", "", "bad", {"robust": robust, "random": random}, attack)


def test_the_proposed_attack_is_asked_beside_the_one_in_question():
    question, square = Masking(threat=FREE), Square(threat=FREE, queries=9)
    (asked,) = proposed([question], [finding(square)])
    assert asked == Robustness(attacks=[question.audited, square], eps=[0.2])
    assert asked.budgets == [0, 0.2]
    (alone,) = proposed([question], [finding(square, robust=None)])
    assert alone.attacks == [square]
    assert proposed([question], [finding(square, random=True)]) == [alone]
    other = Finding("boundary", "", "", "info", {"next": "something of its own"}, square)
    assert proposed([question, Boundary()], [finding(None), other]) == []


def test_a_surrogate_is_a_runs_folder(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        with_surrogates([Masking(surrogate=str(tmp_path / "nowhere"))], moons(samples=60))
    data, model = moons(samples=60), models.create("mlp", hidden=[8], seed=0)
    fit(model, data, epochs=1, out=tmp_path / "run")
    transfer = EoT(attack=Transfer(surrogate=str(tmp_path / "run")))
    questions = [Masking(surrogate=str(tmp_path / "run")), Boundary(), Robustness(attacks=[transfer])]
    loaded, other, robustness = with_surrogates(questions, data)
    assert other is questions[1]
    assert isinstance(robustness.attacks[0].attack.surrogate, nn.Module)
    x = data.test.take(torch.arange(5))[0]
    assert torch.equal(loaded.surrogate(x), model(x))


def test_a_network_without_a_class_is_a_run_on_the_data_without_it(tmp_path):
    data = Source(data="digits", limit=40).load(seed=0)[0]
    for name in ("3", "8"):
        rest = without_classes(data, [name])
        fit(models.create("mlp", features=64, classes=9, seed=0), rest, epochs=1, out=tmp_path / name)
    loaded = with_surrogates(Homing(without={"3": str(tmp_path / "3")}), data)
    assert loaded.without["3"](data.test.take(torch.arange(5))[0]).shape == (5, 9)
    assert with_surrogates(loaded, data) == loaded
    with pytest.raises(
        UserError, match=r"all classes but 3 was expected \(buttress train --without-classes 3\); got one"
    ):
        with_surrogates(Homing(without={"3": str(tmp_path / "8")}), data)


def test_the_job_runs_what_is_proposed_and_counts_the_worst_of_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ROUNDED)
    attack = PGD(threat=Threat(eps=0.15), steps=5)
    questions = [Robustness(attacks=[attack], eps=[0.15]), Masking(attack=attack, inputs=60, queries=60, draws=20)]
    settings = {"source": Source(data="digits"), "inputs": 100, "precision": "fp32", "audits": questions}
    found = audit("mine.py:make", out=tmp_path / "out", **settings)
    assert [one.kind for one in found] == ["robustness", "masking", "robustness"]
    first, trust, after = found
    assert trust.data["verdict"] == "not trustworthy"
    assert after.title == "Robustness (linf), attack proposed by masking"
    assert [row["name"] for row in after.data["attacks"]] == ["pgd", "square"]
    figures = [one.data["worst"][-1]["accuracy"] for one in (first, after)]
    assert figures[1] < figures[0] - 0.15
    page = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert page["facts"]["headline"] == after.verdict
    bound = 100 * sum(figures) / 2
    with pytest.raises(UserError, match="under the gate"):  # the proposed attack decides
        audit("mine.py:make", out=tmp_path / "gated", fail_under=bound, **settings)
    audit("mine.py:make", out=tmp_path / "kept", fail_under=bound, **{**settings, "audits": questions[:1]})


class Stop(Audit):
    """A question in the middle of which something happens, or nothing."""

    def __init__(self, error=None):
        self.error = error

    def ask(self, subject):
        if self.error is not None:
            raise self.error
        return Finding("robustness", "Further", "Done.", "info", {"main_eps": 0, "worst": []})


@pytest.mark.parametrize("error", [RuntimeError("broke"), UserError("cannot"), KeyboardInterrupt()])
def test_what_was_found_is_written_before_what_is_proposed_is_run(tmp_path, monkeypatch, error):
    """With ``resume`` the job goes on from there: nothing that was crafted is crafted again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ROUNDED)
    (tmp_path / "out" / "crafted").mkdir(parents=True)
    next_one, lines = [Stop(error)], []
    monkeypatch.setattr(sys.modules["buttress.jobs.audit"], "proposed", lambda questions, findings: next_one)
    questions = [Robustness(attacks=[PGD(threat=Threat(eps=0.15), steps=2)], eps=[0.15])]
    settings = {"source": Source(data="digits"), "inputs": 30, "precision": "fp32", "audits": questions}
    reporter = Reporter()
    reporter.line = lines.append
    with pytest.raises(type(error)):
        audit("mine.py:make", out=tmp_path / "out", resume=True, reporter=reporter, **settings)
    networks, facts = read(tmp_path / "out" / "findings.json")
    (first,) = networks["mine.py:make"]
    assert facts["headline"] == first.verdict
    assert lines[-1] == f"report, without the attack proposed by masking: {tmp_path / 'out' / 'report.html'}"
    next_one[:] = [Stop()]
    monkeypatch.setattr(PGD, "perturb", None)  # what was crafted is not crafted again
    found = audit("mine.py:make", out=tmp_path / "out", resume=True, reporter=reporter, **settings)
    assert found[0] == first
    assert [one.title for one in found] == ["Robustness (linf)", "Further, attack proposed by masking"]
    assert read(tmp_path / "out" / "findings.json")[1]["headline"] == "Done."
    assert {entry.name for entry in (tmp_path / "out").iterdir()} == {"report.html", "findings.json"}
    with pytest.raises(UserError, match="exists and is not empty"):
        audit("mine.py:make", out=tmp_path / "out", resume=True, reporter=reporter, **settings)


def test_nothing_more_is_run_where_nothing_is_proposed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ROUNDED.replace("torch.round(x * 4) / 4", "x"))
    question = Masking(threat=Threat(eps=0.15), inputs=60, queries=60, draws=20)
    questions = [replace(question, attack=PGD(threat=Threat(eps=0.15), steps=20))]
    found = audit("mine.py:make", out=tmp_path / "out", source=Source(data="digits"), inputs=80, audits=questions)
    assert [(one.kind, one.data["verdict"]) for one in found] == [("masking", "trustworthy")]
