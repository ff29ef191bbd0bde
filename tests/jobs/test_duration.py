"""Times in units that suit them."""

import pytest

from buttress.errors import UserError
from buttress.jobs.duration import duration, seconds_of


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "1 s"), (59.6, "60 s"), (89, "89 s"), (150, "2 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_durations_in_units_that_suit_them(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("10 min", 600), ("1.5h", 5400), ("1h30m", 5400), ("2M", 120)]
)
def test_a_time_as_it_is_typed(text, seconds):
    assert seconds_of("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "5", "ten minutes", "0m", "-5m", "10m!", "3d", "1e3s", "nan"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UserError, match=r"^--budget takes a time such as 90s, 10m or 1\.5h; got "):
        seconds_of("--budget", text)
