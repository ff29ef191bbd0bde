"""Still pictures: what is drawn where, and that the files stand alone."""

import math
import re
from xml.etree import ElementTree

import pytest
import torch

from buttress import registry
from buttress.audits.base.finding import Finding
from buttress.audits.base.png import png
from buttress.errors import UserError
from buttress.report.stills.curves import curves, reach, summary
from buttress.report.stills.findings import STILLS, still
from buttress.report.stills.planes import edge, shade
from buttress.report.stills.svg import MARK, Canvas, Plot, ticks, told

SVG = "{http://www.w3.org/2000/svg}"
BLACK, WHITE = (png(torch.full((2, 2), level, dtype=torch.uint8)) for level in (0, 255))


def parsed(text):
    """The root of a picture that holds nothing but shapes, texts and embedded images."""
    assert text.startswith(MARK)
    root = ElementTree.fromstring(text)
    kinds = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert kinds <= {"svg", "title", "rect", "text", "polyline", "polygon", "path", "circle", "image"}
    for element in root.iter():
        assert not any(name.startswith("on") for name in element.attrib)
        assert element.attrib.get("href", "data:image/png;base64,").startswith("data:image/png;base64,")
    assert root[1].attrib["fill"] == "#ffffff"  # the ground, over all
    assert (root[1].attrib["width"], root[1].attrib["height"]) == (root.attrib["width"], root.attrib["height"])
    return root


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def found(kind, **data):
    return Finding(kind, "title", "The verdict.", "info", data)


def saliency(answer, image=BLACK):
    images = {"input": image, "occlusion": BLACK, "gradient": WHITE}
    return found("saliency", items=[{"truth": "3", "answer": answer, "images": images}] * 2)


def test_saliency_maps_of_networks_share_their_inputs():
    root = parsed(still({"A": saliency("3"), "B & <b>": saliency("8")}, "maps"))
    assert root[0].text == "maps"
    assert len(list(root.iter(f"{SVG}image"))) == 2 + 2 * 2 * 2  # inputs once, two maps of each for each network
    said = texts(root)
    assert [said.count(text) for text in ("A", "B & <b>", "input", "3", "✓ 3", "✗ 8")] == [1, 1, 1, 2, 2, 2]
    places = {
        (e.attrib["x"], e.attrib["y"]): e.attrib["href"] for e in root.iter(f"{SVG}image") if e.attrib["y"] == "52"
    }
    assert [address for _, address in sorted(places.items(), key=lambda pair: float(pair[0][0]))] == [
        *(BLACK, BLACK, WHITE),
        *(BLACK, WHITE),
    ]


def test_networks_of_other_inputs_show_them():
    root = parsed(still({"A": saliency("3"), "B": saliency("3", WHITE)}, "maps"))
    assert len(list(root.iter(f"{SVG}image"))) == 2 * 2 * 3
    assert texts(root).count("input") == 2


def plane(**more):
    grid = {"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0], "probability": [[0.1, 0.4, 0.8], [0.2, 0.45, 0.95]]}
    return {**grid, **more}


def test_a_latent_boundary_is_a_strip_over_a_plane():
    items = [{"step": s, "label": "8" if s > 0 else "3", "confidence": 0.9, "image": BLACK} for s in (-1.5, 0.0, 1.5)]
    points = {"x": [0.5, 1.5, 9.0], "y": [0.5, 0.5, 0.5], "label": ["3", "8", "8"]}
    data = plane(items=items, pair=["3", "8"], layer="fc1", points=points, other_classes=0.25)
    root = parsed(still({"A": found("latent-boundary", **data)}, "t"))
    said = texts(root)
    assert [said.count(text) for text in ("−1.5", "0", "+1.5")] == [1, 3, 1]  # both axes have a 0, too
    assert "On 25.0% of the plane the answer is neither of the two." in said
    assert "along a ∘ w of fc1" in said
    red = [e.text for e in root.iter(f"{SVG}text") if e.attrib["fill"] == "#b3261e"]
    assert red == ["8"]
    assert len(list(root.iter(f"{SVG}circle"))) == 2  # the one 3, and its mark in the legend
    frame = next(e for e in root.iter(f"{SVG}image") if e.attrib["width"] == "340")
    circle = next(root.iter(f"{SVG}circle"))
    assert float(circle.attrib["cx"]) == pytest.approx(float(frame.attrib["x"]) + 340 / 4)
    assert float(circle.attrib["cy"]) == pytest.approx(float(frame.attrib["y"]) + 280 / 2)
    (path,) = root.iter(f"{SVG}path")
    numbers = [float(value) for value in re.findall(r"[\d.]+", path.attrib["d"])]
    assert len(numbers) == 4  # one piece: the line goes through one square
    across = [(value - float(frame.attrib["x"])) / 340 * 2 for value in numbers[::2]]
    assert sorted(across) == pytest.approx([1.1, 1.25], abs=1e-3)  # a tenth of 0.45 to 0.95 at the top


def test_a_boundary_names_its_classes():
    points = {"x": [0.5, 1.5], "y": [0.5, 0.5], "label": [0, 1]}
    network = found("boundary", **plane(classes=["inside", "outside"], points=points))
    said = texts(parsed(still(dict.fromkeys("ABC", network), "t")))
    assert said.count("inside") == said.count("outside") == 3
    assert said.count("P(outside)  0%") == 3


def test_the_edge_is_where_a_linear_function_has_the_value():
    x, y = [0.0, 1.0, 3.0], [0.0, 2.0, 3.0]
    values = [[a + 2 * b - 2.9 for a in x] for b in y]
    pieces = edge(x, y, values, at=0.5)
    assert pieces
    assert all(a + 2 * b == pytest.approx(3.4) for piece in pieces for a, b in piece)
    length = sum(math.dist(*piece) for piece in pieces)
    assert length == pytest.approx(math.dist((0, 1.7), (3, 0.2)))  # from side to side without a gap


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [
        (0.9, 0.3, [((1 / 3, 1.0), (0.0, 2 / 3)), ((2 / 3, 0.0), (1.0, 1 / 3))]),  # the middle is above: one hill
        (0.7, 0.1, [((0.0, 1 / 3), (1 / 3, 0.0)), ((1.0, 2 / 3), (2 / 3, 1.0))]),  # below: two
    ],
)
def test_a_saddle_is_joined_on_the_side_of_its_middle(high, low, expected):
    pieces = edge([0.0, 1.0], [0.0, 1.0], [[high, low], [low, high]])
    found = sorted(tuple(sorted(piece)) for piece in pieces)
    wanted = sorted(tuple(sorted(piece)) for piece in expected)
    assert len(found) == 2
    for mine, theirs in zip(found, wanted, strict=True):
        for place, other in zip(mine, theirs, strict=True):
            assert place == pytest.approx(other)


def test_shades_go_from_one_colour_by_another_to_a_third():
    assert shade(torch.tensor([0.0, 0.5, 1.0])).tolist() == [[110, 168, 230], [233, 234, 236], [237, 162, 92]]


@pytest.mark.parametrize(
    ("finding", "message"),
    [
        (found("robustness"), "no still picture of robustness is drawn; of these it is: saliency"),
        (found("saliency"), r"there is nothing to draw of A: The verdict\."),
        (found("boundary", x=[]), "there is nothing to draw of A"),
    ],
)
def test_what_cannot_be_drawn_is_said(finding, message):
    with pytest.raises(UserError, match=message):
        still({"A": finding}, "t")


def test_every_kind_drawn_is_an_audit():
    assert set(STILLS) <= set(registry.audit.names())


def test_curves_are_means_with_bands():
    runs = [[0.2, 0.4, None], [0.4, 0.8]]
    assert summary(runs) == [(pytest.approx(0.3), 0.2, 0.4), (pytest.approx(0.6), 0.4, 0.8), None]
    root = parsed(curves({"A": {"one": runs, "two": [[-0.1, math.nan, 0.5]]}, "B": {"two": [[0.0, 0.0, 0.0]]}}, "t"))
    assert [texts(root).count(text) for text in ("A", "B", "one", "two", "epoch")] == [1, 1, 1, 1, 2]
    assert len(list(root.iter(f"{SVG}polygon"))) == 1  # one run has no band
    box = next(e for e in root.iter(f"{SVG}rect") if e.attrib["fill"] == "none")
    left, top, width, height = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
    curve = next(e for e in root.iter(f"{SVG}polyline") if e.attrib["points"].count(",") == 2 and _thick(e, left))
    places = [tuple(map(float, pair.split(","))) for pair in curve.attrib["points"].split()]
    assert [x for x, _ in places] == pytest.approx([left, left + width / 2], abs=0.01)
    down = [(1.0 - mean) / 1.2 * height for mean in (0.3, 0.6)]  # the axis goes from -0.2 to 1
    assert [y - top for _, y in places] == pytest.approx(down, abs=0.01)
    dots = list(root.iter(f"{SVG}circle"))
    assert len(dots) == 2  # the curve that is cut by an epoch without a number


def _thick(element, left):
    """A curve, neither a line of the grid nor one of the legend."""
    first = float(element.attrib["points"].split(",")[0])
    heights = {pair.split(",")[1] for pair in element.attrib["points"].split()}
    return element.attrib["stroke-width"] == "2" and first == left and len(heights) > 1


def test_the_vertical_axis_of_shares_ends_at_one():
    assert reach([0.2, 0.7]) == (0.0, 1.0)
    assert reach([-0.31, 0.7]) == (-0.4, 1.0)
    assert reach([]) == (0.0, 1.0)
    assert reach([3.0, 2.0]) == pytest.approx((0.0, 3.15))


def test_ticks_are_round_and_inside():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(1, 60, 6) == [10, 20, 30, 40, 50, 60]
    assert ticks(-7.3, 12.1, 6) == [-5, 0, 5, 10]
    assert ticks(2, 2, 6) == [2]


def test_numbers_are_short_and_places_are_scaled():
    assert [told(value) for value in (1.0, 0.004, -0.001, 12.346, 1234.5, "a")] == ["1", "0", "0", "12.35", "1234", "a"]
    plot = Plot(Canvas(10, 10, "t"), (10, 20, 100, 50), (0, 4), (-1, 1))
    assert plot.at(0, 1) == (10, 20)
    assert plot.at(1, 0) == (35, 45)


def test_nothing_is_fetched_and_nothing_is_markup():
    canvas = Canvas(10, 10, "a\x00<b>")
    canvas.image("https://example.org/x.png", (0, 0, 5, 5))
    canvas.text(1, 1, "</text><script>alert(1)</script>\x07")
    root = parsed(canvas.render())
    assert not list(root.iter(f"{SVG}image"))
    assert texts(root) == ["</text><script>alert(1)</script>"]
