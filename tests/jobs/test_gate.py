import math

import pytest

from buttress.audits.base.finding import Finding
from buttress.audits.boundary import Boundary
from buttress.audits.robustness import Robustness
from buttress.errors import UserError
from buttress.jobs.gate import check_gate, gate


def finding(accuracy):
    points = [{"eps": 0.0, "accuracy": 1.0}, {"eps": 0.1, "accuracy": accuracy}]
    return Finding("robustness", "R", "", "info", {"main_eps": 0.1, "worst": points})


def test_the_gate_holds_robust_accuracy_in_percent():
    gate([finding(0.4)], 40)
    gate([finding(0.0)], None)
    with pytest.raises(UserError, match=r"robust accuracy 39\.9% is under the gate of 40%"):
        gate([finding(0.399)], 40)


def test_the_lowest_of_several_norms_counts():
    gate([Finding("x", "", "", "info", {}), finding(0.9), finding(0.6)], 50)
    with pytest.raises(UserError, match=r"robust accuracy 10\.0% is under the gate of 50%"):
        gate([finding(0.9), finding(0.1)], 50)


@pytest.mark.parametrize("bound", [-1, 100.5, math.nan])
def test_what_is_no_percentage_is_refused(bound):
    with pytest.raises(UserError, match="from 0 to 100"):
        check_gate(bound, [Robustness()])


def test_a_gate_without_its_question_is_refused():
    check_gate(None, [Boundary()])
    check_gate(40, [Boundary(), Robustness()])
    with pytest.raises(UserError, match="needs the robustness audit"):
        check_gate(40, [Boundary()])
