"""The formulas at numbers worked out by hand."""

import math

import pytest

from buttress.audits.privacy.composition import average_gap, composed_epsilon, likely_gap, step_epsilon


def test_a_step():
    assert step_epsilon(3.0, 100, 0.5) == pytest.approx(0.12)
    assert step_epsilon(3.0, 100, 0.0) == math.inf


def test_composed_over_steps():
    """10 steps of 0.1: 10 * 0.1 (e^0.1 - 1) / (e^0.1 + 1) = 0.0499584; sqrt(2 * 11.512925 * 10 * 0.01) = 1.5174271."""
    assert composed_epsilon(0.1, 10, 1e-5) == pytest.approx(0.0499584 + 1.5174271, abs=1e-6)
    assert composed_epsilon(0.0, 10, 1e-5) == 0
    assert composed_epsilon(math.inf, 10, 1e-5) == math.inf
    assert composed_epsilon(800.0, 2, 0.5) == pytest.approx(1600 + 800 * math.sqrt(4 * math.log(2)))  # no overflow


def test_the_average_gap():
    """1 - e^-1 + e^-1 * 0.01 = 0.6357994; without privacy all of the loss."""
    assert average_gap(1.0, 0.01) == pytest.approx(0.6357994, abs=1e-7)
    assert average_gap(1.0, 0.01, largest=2.0) == pytest.approx(1.2715988, abs=1e-7)
    assert average_gap(0.0, 0.0) == 0
    assert average_gap(math.inf, 0.1) == 1


def test_the_likely_gap():
    """e^-0.1 * 1e-5 / 0.1 * log 20 = 2.7106e-4; 200 * (log 1.6e6 + 0.1) = 2877.1."""
    found = likely_gap(0.1, 1e-5)
    assert found["gap"] == pytest.approx(0.9)
    assert found["probability"] == pytest.approx(1 - 2.7106e-4, abs=1e-7)
    assert found["inputs"] == pytest.approx(200 * (math.log(1.6e6) + 0.1))
    assert likely_gap(math.inf, 1e-5)["gap"] == math.inf
    assert likely_gap(1e-9, 0.1)["probability"] == 0
