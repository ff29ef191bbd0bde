"""Curves over epochs: what the panels hold."""

import math

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from buttress.report.figures import COLOURS
from buttress.report.stills.curves import curves, draw_curves, limits, summary

RUNS = [[0.2, 0.4, None], [0.4, 0.8]]
NETWORKS = {"A": {"one": RUNS, "two": [[-0.1, math.nan, 0.5]]}, "B": {"two": [[0.0, 0.0, 0.0]]}}


def test_a_summary_is_mean_minimum_and_maximum_of_the_runs_with_a_value():
    assert summary(RUNS) == [(pytest.approx(0.3), 0.2, 0.4), (pytest.approx(0.6), 0.4, 0.8), None]


def test_each_network_has_a_panel_with_means_and_a_band(figure):
    draw_curves(figure, NETWORKS)
    first, second = figure.axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["A", "B"]
    assert {axes.get_xlabel() for axes in (first, second)} == {"epoch"}
    assert {axes.get_xlim() for axes in (first, second)} == {(1, 3)}
    assert {axes.get_ylim() for axes in (first, second)} == {(-0.2, 1)}
    one, two, alone = first.lines
    np.testing.assert_allclose(one.get_ydata(), [0.3, 0.6, math.nan])
    np.testing.assert_allclose(two.get_ydata(), [-0.1, math.nan, 0.5])
    assert [*alone.get_xdata()] == [1, 3]  # epochs without neighbours are dots
    assert [line.get_color() for line in (one, two, second.lines[0])] == [COLOURS[0], COLOURS[1], COLOURS[1]]
    (band,) = (c for c in first.collections if isinstance(c, PolyCollection))
    corners = {tuple(round(value, 9) for value in corner) for corner in band.get_paths()[0].vertices}
    assert corners == {(1, 0.2), (2, 0.4), (2, 0.8), (1, 0.4)}
    assert not second.collections  # one run has no band
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]


def test_more_networks_than_columns_start_another_row(figure):
    draw_curves(figure, {name: {"one": RUNS} for name in "ABCD"})
    assert [axes.get_title(loc="left") for axes in figure.axes] == [*"ABCD"]
    rows = [axes.get_subplotspec().rowspan.start for axes in figure.axes]
    assert rows == [0, 0, 0, 1]


def test_epochs_are_whole_numbers(figure):
    draw_curves(figure, {"A": {"one": [[0.1, 0.2]]}})
    assert [*figure.axes[0].get_xticks()] == [1, 2]


def test_the_vertical_axis_of_shares_ends_at_one():
    assert limits([0.2, 0.7]) == (0.0, 1.0)
    assert limits([-0.31, 0.7]) == (-0.4, 1.0)
    assert limits([]) == (0.0, 1.0)
    assert limits([3.0, 2.0]) == pytest.approx((0.0, 3.15))


def test_the_same_curves_give_the_same_bytes(parse, texts):
    text = curves(NETWORKS, "curves of A & B")
    assert curves(NETWORKS, "curves of A & B") == text
    root = parse(text)
    assert root[0].text == "curves of A & B"
    assert [texts(root).count(word) for word in ("A", "B", "one", "two", "epoch")] == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("networks", [{"A": {"one": [[]]}}, {"A": {"one": [[math.nan]]}}, {"A": {"one": [[0.5]]}}])
def test_histories_of_one_epoch_or_none_are_drawn(parse, networks):
    parse(curves(networks, "t"))
