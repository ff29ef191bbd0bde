"""Programs with known optima."""

import math

import numpy as np
import pytest

from buttress.certificates.mixed_integer.program import Program, Term


def test_knapsack():
    """The best of weights 2, 3, 4, 5 (values 3, 4, 5, 6) within 5 is 7; without integers it is 3 + 4 = 7, too."""
    program = Program()
    items = program.variables(0.0, 1.0, 4, integer=True)
    weights = Term(np.zeros(4, dtype=np.int64), items, np.array([2.0, 3.0, 4.0, 5.0]))
    program.constrain([weights], -math.inf, 5.0, 1)
    solution = program.least(np.array([-3.0, -4.0, -5.0, -6.0]), 10)
    assert solution.least == pytest.approx(-7, abs=1e-5)
    assert solution.least <= -7
    np.testing.assert_allclose(solution.point, [1, 1, 0, 0], atol=1e-6)


def test_integers_are_not_rounded_from_the_linear_optimum():
    """Within 4, items of weight 3 and value 5 each: one of them, where fractions would take 4 / 3."""
    program = Program()
    items = program.variables(0.0, 1.0, 2, integer=True)
    program.constrain([Term(np.zeros(2, dtype=np.int64), items, np.array([3.0, 3.0]))], -math.inf, 4.0, 1)
    assert program.least(np.array([-5.0, -5.0]), 10).least == pytest.approx(-5, abs=1e-5)


def test_a_bound_is_lowered_by_what_the_solver_tolerates():
    """1e-6, and 1e-7 for each unit of the variables' ranges."""
    program = Program()
    program.variables(-100.0, 100.0, 2)
    assert program.least(np.array([1.0, 0.0]), 10).least == pytest.approx(-100 - 1e-6 - 400e-7, abs=1e-9)


def test_matrix_terms_and_equalities():
    """y = M x for x in boxes: the least y1 + y2 by hand."""
    program = Program()
    x, y = program.variables(-1.0, 2.0, 2), program.variables(-math.inf, math.inf, 2)
    matrix = np.array([[1.0, -2.0], [0.0, 3.0]])
    program.constrain([Term.each(y), Term.matrix(-matrix, x)], 0.5, 0.5, 2)
    program.constrain([Term.each(y)], -1000.0, 1000.0, 2)
    answer = program.least(np.array([0.0, 0.0, 1.0, 1.0]), 10)
    assert answer.point[y].sum() == pytest.approx(-1 - 1 + 1.0)


def test_nothing_feasible_and_no_time():
    program = Program()
    x = program.variables(0.0, 1.0, 1)
    program.constrain([Term.each(x)], 2.0, 3.0, 1)
    assert program.least(np.ones(1), 10).least == math.inf
    rng = np.random.default_rng(0)
    hard = Program()
    many = hard.variables(0.0, 1.0, 60, integer=True)
    weights = rng.uniform(1, 2, (20, 60))
    hard.constrain([Term.matrix(weights, many)], 40.0, 40.5, 20)
    assert hard.least(rng.uniform(-1, 1, 60), 1e-6).least == -math.inf
