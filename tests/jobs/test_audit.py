from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from buttress.attacks import Attack, Perturbation
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import Audit, Finding
from buttress.audits.boundary import Boundary
from buttress.audits.examples import Examples
from buttress.audits.layers import Layers
from buttress.audits.robustness import Robustness
from buttress.data.sets.digits import digits
from buttress.data.sets.moons import moons
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.jobs.audit import new_folder
from buttress.jobs.questions import attacks_of, given_audits, usual_audits
from buttress.threat import Threat

FREE = Threat(eps=0.2, box=None)


def test_the_usual_questions_depend_on_the_data():
    points = usual_audits(moons(samples=40), FREE)
    assert [type(question) for question in points] == [Robustness, Layers, Boundary]
    assert points[0].attacks == [PGD(threat=FREE, steps=20), FGSM(threat=FREE)]
    assert points[0].noises == [Gaussian(std=0.1, box=None)]
    assert points[1].perturbations == [*points[0].attacks, *points[0].noises]
    assert isinstance(usual_audits(digits(), Threat())[2], Examples)


def test_each_norm_has_a_robustness_audit_of_its_own():
    round_ = FGSM(threat=Threat(norm="l2", eps=1.0, box=None))
    questions = usual_audits(moons(samples=40), FREE, [FGSM(), round_, PGD()])
    assert [question.attacks for question in questions[:2]] == [[FGSM(threat=FREE), PGD(threat=FREE)], [round_]]


def test_audits_that_name_no_attack_take_the_users():
    questions = [Robustness(), Robustness(attacks=[PGD(steps=3)]), Layers(), Examples(), Boundary()]
    one, own, layers, examples, boundary = resolve_threats(given_audits(questions, [FGSM()]), usual=FREE)
    assert one.attacks == [FGSM(threat=FREE)]
    assert own.attacks == [PGD(threat=FREE, steps=3)]
    assert layers.perturbations == [FGSM(threat=FREE), Gaussian(std=0.1, box=None)]
    assert examples.attack == FGSM(threat=FREE)
    assert boundary == Boundary()
    (kept,) = resolve_threats(given_audits([Robustness()], None), usual=FREE)
    assert list(kept.attacks) == [PGD(threat=FREE, steps=20)]


def test_an_audit_that_is_no_dataclass_is_asked_as_it_is():
    class Plain(Audit):
        def ask(self, subject):
            return Finding("x", "", "", "info", {})

    question = Plain()
    assert resolve_threats(given_audits([question], [FGSM()]), usual=FREE) == [question]


def test_a_users_audit_with_a_field_for_attacks_takes_them_too():
    @dataclass(frozen=True)
    class Own(Audit):
        rivals: Sequence[Attack] = (PGD(steps=3),)
        opponent: Attack | None = None
        noises: Sequence[Perturbation] = (Gaussian(std=0.2),)

        def ask(self, subject):
            return Finding("x", "", "", "info", {})

    (own,) = resolve_threats(given_audits([Own()], [FGSM(), PGD()]), usual=FREE)
    assert own.rivals == [FGSM(threat=FREE), PGD(threat=FREE)]
    assert own.opponent == FGSM(threat=FREE)
    assert list(own.noises) == [Gaussian(std=0.2, box=None)]
    (chosen,) = given_audits([Own(rivals=[PGD(steps=9)])], [FGSM()])
    assert chosen.rivals == [PGD(steps=9)]


def test_attacks_are_counted_once_for_each_budget():
    audit = Robustness(attacks=[FGSM(), PGD()], eps=[0.1, 0.2])
    assert len(attacks_of([audit, Boundary(), Layers()])) == 2 * 3  # and the main budget


def test_only_new_and_empty_folders_will_do(tmp_path):
    new_folder(tmp_path / "new")
    new_folder(tmp_path)
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="exists and is not empty: choose another"):
            new_folder(place)
