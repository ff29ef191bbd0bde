"""Small parts of the figure of accuracy against cost; the rest is tested with the other kinds."""

from buttress.report.kinds.trade_off import _behind


def test_of_many_that_are_better_two_are_named():
    assert [_behind(names) for names in (["a"], ["a", "b"], ["a", "b", "c", "d"])] == [
        "behind a",
        "behind a, b",
        "behind a, b and 2 more",
    ]
