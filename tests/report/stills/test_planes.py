"""Decision planes: shades, the boundary and inputs."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from buttress.report.figures import COLOURS
from buttress.report.stills.planes import SHADES, Plane, draw_planes, mark_inputs, shade

X, Y = [0.0, 1.0, 3.0], [0.0, 2.0, 3.0]
POINTS = [(0.5, 0.5, "3"), (1.5, 0.5, "8"), (9.0, 0.5, "8"), (1.0, 1.0, "5")]


def plane(probability, **more):
    settings = {"x": X, "y": Y, "axes": ("across", "up"), "classes": ("3", "8"), **more}
    return Plane(probability=probability, **settings)


def boundary(axes):
    """The vertices of the line where both classes have one half."""
    lines = [c for c in axes.collections if [*c.levels] == [0.5]]
    return np.concatenate([path.vertices for c in lines for path in c.get_paths()]) if lines else None


def test_the_boundary_of_a_linear_function_is_straight_and_reaches_from_side_to_side(figure):
    values = [[0.1 * (a + 2 * b) for a in X] for b in Y]
    axes = figure.subplots()
    shade(figure, axes, plane(values))
    line = boundary(axes)
    np.testing.assert_allclose(line @ [1, 2], 5)
    assert {tuple(end) for end in line[[0, -1]].round(9)} == {(0.0, 2.5), (3.0, 1.0)}


@pytest.mark.parametrize(
    ("high", "low", "sides"),
    [(0.9, 0.3, [(0, 2 / 3), (1 / 3, 1)]), (0.7, 0.1, [(0, 1 / 3), (1 / 3, 0)])],
)
def test_a_saddle_is_joined_on_the_side_of_its_middle(figure, high, low, sides):
    axes = figure.subplots()
    shade(figure, axes, plane([[high, low], [low, high]], x=[0.0, 1.0], y=[0.0, 1.0]))
    (lines,) = (c for c in axes.collections if [*c.levels] == [0.5])
    pieces = [
        np.sort(piece.round(9), axis=0) for path in lines.get_paths() for piece in path.to_polygons(closed_only=False)
    ]
    assert len(pieces) == 2
    assert any(np.allclose(piece, np.sort(np.array(sides), axis=0)) for piece in pieces)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_constant_answer_has_no_boundary(figure, value):
    axes = figure.subplots()
    shade(figure, axes, plane([[value] * 3] * 3))
    assert boundary(axes) is None


def test_shades_go_from_one_colour_by_another_to_a_third(figure):
    axes = figure.subplots()
    shade(figure, axes, plane([[0.0, 0.5, 1.0]] * 3))
    bands = axes.collections[0]
    assert [*bands.levels] == pytest.approx([*np.linspace(0, 1, 21)])
    np.testing.assert_allclose(bands.cmap([0.0, 0.5, 1.0])[:, :3], [to_rgb(c) for c in SHADES], atol=0.01)
    bar = figure.axes[-1]
    assert bar.get_ylabel() == "P(8)"
    assert [text.get_text() for text in bar.get_yticklabels()] == ["0%", "25%", "50%", "75%", "100%"]


def test_inputs_inside_the_plane_are_marked_by_class(figure):
    axes = figure.subplots()
    mark_inputs(axes, plane([[0.5] * 3] * 3, inputs=POINTS))
    marks = {line.get_label(): line for line in axes.lines}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["3", "8", "5"]
    assert {name: line.get_xydata().tolist() for name, line in marks.items()} == {
        "3": [[0.5, 0.5]],
        "8": [[1.5, 0.5]],
        "5": [[1.0, 1.0]],
    }
    assert [marks[name].get_marker() for name in "385"] == ["o", "s", "s"]
    assert [marks[name].get_color() for name in "385"] == [*COLOURS[:3]]


def test_each_network_has_its_plane(figure):
    draw_planes(figure, dict.fromkeys("ABC", plane([[0.1, 0.5, 0.9]] * 3, note="A note.")))
    panels = [part for part in figure.subfigs if part.axes]
    assert [part.get_suptitle() for part in panels] == [*"ABC"]
    assert [part.axes[0].get_xlabel() for part in panels] == ["across\nA note."] * 3
