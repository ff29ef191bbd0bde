"""Findings as still pictures: what is drawn of each kind."""

import numpy as np
import pytest
import torch

from buttress import registry
from buttress.audits.base.finding import Finding
from buttress.audits.base.png import png
from buttress.errors import UserError
from buttress.report.stills.findings import STILLS, still

BLACK, WHITE = (png(torch.full((2, 2), level, dtype=torch.uint8)) for level in (0, 255))


def finding(kind, **data):
    return Finding(kind, "title", "The verdict.", "info", data)


def saliency(answer, image=BLACK, count=2):
    images = {"input": image, "occlusion": BLACK, "gradient": WHITE}
    return finding("saliency", items=[{"truth": "3", "answer": answer, "images": images}] * count)


def levels(figure):
    """By row of axes, the grey level of each image."""
    rows = {}
    for axes in figure.axes:
        for image in axes.images:
            rows.setdefault(axes.get_subplotspec().rowspan.start, []).append(int(np.asarray(image.get_array()).mean()))
    return [rows[row] for row in sorted(rows)]


def data(findings):
    return {name: one.data for name, one in findings.items()}


def test_saliency_maps_of_networks_share_their_inputs(figure, parse, texts):
    findings = {"A": saliency("3"), "B & <b>": saliency("8")}
    STILLS["saliency"](figure, data(findings))
    assert levels(figure) == [[0, 0, 255, 0, 255]] * 2  # the input once, two maps for each network
    labels = texts(parse(still(findings, "maps")))
    assert [labels.count(text) for text in ("A", "B & <b>", "input", "3", "✓ 3", "✗ 8")] == [1, 1, 1, 2, 2, 2]


def test_networks_of_other_inputs_show_them(figure, parse, texts):
    findings = {"A": saliency("3"), "B": saliency("3", WHITE, count=1)}
    STILLS["saliency"](figure, data(findings))
    assert levels(figure) == [[0, 0, 255, 255, 0, 255], [0, 0, 255]]
    assert texts(parse(still(findings, "maps"))).count("input") == 2


def plane(**more):
    grid = {"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0], "probability": [[0.1, 0.4, 0.8], [0.2, 0.45, 0.95]]}
    return {**grid, **more}


def latent_boundary():
    items = [{"step": s, "label": "8" if s > 0 else "3", "confidence": 0.9, "image": BLACK} for s in (-1.5, 0.0, 1.5)]
    points = {"x": [0.5, 1.5, 9.0], "y": [0.5, 0.5, 0.5], "label": ["3", "8", "8"]}
    details = plane(items=items, pair=["3", "8"], layer="fc1", points=points, other_classes=0.25)
    return {"A": finding("latent-boundary", **details)}


def test_a_latent_boundary_is_a_row_of_images_over_a_plane(figure):
    STILLS["latent-boundary"](figure, data(latent_boundary()))
    *images, axes, _ = figure.axes
    assert [one.get_title() for one in images] == ["−1.5", "0", "+1.5"]
    assert [one.get_xlabel() for one in images] == ["3", "3", "8"]
    red = [one.get_xlabel() for one in images if one.xaxis.label.get_color() == "#b3261e"]
    assert red == ["8"]  # the answer that is the target
    assert axes.get_xlabel() == "along a ∘ w of fc1\nOn 25.0% of the plane the answer is neither of the two."
    marks = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert marks == {"3": [[0.5, 0.5]], "8": [[1.5, 0.5]]}  # the third lies outside
    (line,) = (c for c in axes.collections if [*c.levels] == [0.5])
    ends = line.get_paths()[0].vertices
    assert sorted(ends[:, 0]) == pytest.approx([1.1, 1.25])  # a tenth of 0.45 to 0.95 at the top


def test_a_boundary_names_its_classes(parse, texts):
    points = {"x": [0.5, 1.5], "y": [0.5, 0.5], "label": [0, 1]}
    network = finding("boundary", **plane(classes=["inside", "outside"], points=points))
    labels = texts(parse(still(dict.fromkeys("ABC", network), "t")))
    assert [labels.count(text) for text in ("inside", "outside", "P(outside)", "0%", "feature 1")] == [3] * 5


@pytest.mark.parametrize("findings", [{"A": saliency("3")}, latent_boundary(), {"A": finding("boundary", **plane())}])
def test_the_same_findings_give_the_same_bytes(parse, findings):
    text = still(findings, "a title")
    assert still(findings, "a title") == text
    assert parse(text)[0].text == "a title"


@pytest.mark.parametrize(
    ("finding", "message"),
    [
        (finding("robustness"), "no still picture of robustness is drawn; of these it is: saliency"),
        (finding("saliency"), r"there is nothing to draw of A: The verdict\."),
        (finding("boundary", x=[]), "there is nothing to draw of A"),
    ],
)
def test_what_cannot_be_drawn_is_refused(finding, message):
    with pytest.raises(UserError, match=message):
        still({"A": finding}, "t")


def test_every_kind_drawn_is_an_audit():
    assert set(STILLS) <= set(registry.audit.names())
