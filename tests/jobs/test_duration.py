"""Times in units that suit them."""

import pytest

from buttress.jobs.duration import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "1 s"), (59.6, "60 s"), (89, "89 s"), (150, "2 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_durations_in_units_that_suit_them(seconds, text):
    assert duration(seconds) == text
