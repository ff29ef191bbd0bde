"""Schedules of certified training by their values."""

import pytest

from buttress.defences.certified.schedule import between, ends, share_of_eps
from buttress.errors import UserError


def test_eps_rises_by_a_fourth_power_and_then_along_a_line():
    """Of auto_LiRPA's smoothed schedule: a t^4 to t = 1/4, the tangent there from then on, 1 at t = 1."""
    factor = 1 / (0.25**4 + 4 * 0.25**3 * 0.75)
    assert share_of_eps(0.1, (0.1, 0.9)) == 0
    assert share_of_eps(0.2, (0.1, 0.9)) == pytest.approx(factor * 0.125**4)
    assert share_of_eps(0.3, (0.1, 0.9)) == pytest.approx(0.25 / 3.25)
    assert share_of_eps(0.6, (0.1, 0.9)) == pytest.approx(0.25 / 3.25 + (1 - 0.25 / 3.25) * (0.625 - 0.25) / 0.75)
    assert share_of_eps(0.9, (0.1, 0.9)) == share_of_eps(1.0, (0.1, 0.9)) == 1


def test_it_bends_nowhere():
    step = 1e-6
    before = share_of_eps(0.25, (0.0, 1.0)) - share_of_eps(0.25 - step, (0.0, 1.0))
    after = share_of_eps(0.25 + step, (0.0, 1.0)) - share_of_eps(0.25, (0.0, 1.0))
    assert before == pytest.approx(after, rel=1e-3)


def test_without_a_rise_eps_is_whole_at_once():
    assert share_of_eps(0.0, (0.0, 0.0)) == 1


def test_a_weight_goes_from_the_first_of_two_to_the_second():
    assert between((1.0, 0.5), 0.0) == 1
    assert between((1.0, 0.5), 0.5) == 0.75
    assert between((1.0, 0.5), 1.0) == 0.5


@pytest.mark.parametrize("values", [(1.0,), (1.0, 0.5, 0.0), (1.0, 2.0), "high"])
def test_other_weights_are_refused(values):
    with pytest.raises(UserError, match="kappa must be"):
        ends("kappa", values)
    assert ends("kappa", 0.5) == (0.5, 0.5)
