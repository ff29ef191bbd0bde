import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buttress.report import text


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (text.percent(0.91249), "91.2%"),
        (text.percent(1.0), "100.0%"),
        (text.percent(None), "–"),
        (text.points(0.369), "+36.9 points"),
        (text.points(-0.038), "−3.8 points"),
        (text.points(-0.0001), "±0.0 points"),
        (text.interval(0.887, 0.931), "88.7–93.1%"),
        (text.interval(None, 0.9), ""),
        (text.number(0.12345), "0.123"),
        (text.number(12.345), "12.3"),
        (text.number(1234.5), "1,234"),
        (text.number(0.0), "0"),
        (text.number(-0.5, 2), "−0.50"),
        (text.number(21), "21"),
        (text.number(10000), "10,000"),
        (text.number(None), "–"),
        (text.number(math.inf), "∞"),
        (text.number(math.nan), "–"),
        (text.seconds(2.5), "2.50 s"),
        (text.seconds(0.0031), "3.10 ms"),
        (text.seconds(4.2e-5), "42.0 µs"),
        (text.seconds(None), "–"),
        (text.some(["a", "b", "c", "d"], 3), "a, b, c and 1 more"),
        (text.some([]), "none"),
        (text.escape_label("<b>&"), "&lt;b&gt;&amp;"),
    ],
)
def test_known_texts(said, wanted):
    assert said == wanted


@given(st.floats(min_value=1e-4, max_value=1e9))
def test_a_number_keeps_three_digits(value):
    assert float(text.number(value).replace(",", "")) == pytest.approx(value, rel=0.00501)
