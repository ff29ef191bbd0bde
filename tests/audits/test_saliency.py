"""The audit's maps and measures are those of the layers' functions, on the inputs that it names."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from buttress import audits
from buttress.audits.base.finding import read, to_json
from buttress.audits.saliency import Saliency
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.layers import saliency
from buttress.layers.correlation import pearson_by_row


def pixels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))).astype(int)


@pytest.fixture(scope="module")
def asked(pictures):
    model, split = pictures
    question = Saliency(count=3, window=3, threshold=0.3, steps=4)
    return audits.run(model, split, [question], classes=["a", "b", "c", "d"])[0], model, split


def test_the_measures_are_means_over_all_inputs(asked):
    finding, model, split = asked
    maps = saliency.occlusion(model, split.x, split.y, 3)
    sizes = saliency.input_gradients(model, split.x, split.y).abs()[:, 0]
    expected = {
        "correlation": pearson_by_row(sizes, maps),
        "energy_inside": saliency.energy_inside(sizes, maps, 0.3),
        "salient_area": (maps >= 0.3).double().mean((1, 2)),
        "deletion_gradient": saliency.deletion(model, split.x, split.y, sizes, window=3, steps=4),
        "deletion_occlusion": saliency.deletion(model, split.x, split.y, maps, window=3, steps=4),
    }
    found = finding.data["measures"]
    assert set(found) == {*expected, "deletion_chance"}
    for name, values in expected.items():
        assert found[name]["mean"] == pytest.approx(float(values.nanmean()), rel=1e-5)
        assert found[name]["low"] < found[name]["mean"] < found[name]["high"]
        assert found[name]["inputs"] == int((~values.isnan()).sum())
    assert finding.data["inputs"] == 24
    assert f"correlation of {found['correlation']['mean']:.2f}" in finding.verdict


def test_the_shown_maps_are_those_of_their_inputs(asked):
    finding, model, split = asked
    rows = [0, 11, 23]
    maps = saliency.occlusion(model, split.x[rows], split.y[rows], 3)
    sizes = saliency.input_gradients(model, split.x[rows], split.y[rows]).abs()[:, 0]
    with torch.no_grad():
        answers = model(split.x[rows]).argmax(1)
    for n, item in enumerate(finding.data["items"]):
        assert np.abs(pixels(item["images"]["input"]) - 255 * split.x[rows[n], 0].numpy()).max() < 0.51
        assert np.abs(pixels(item["images"]["occlusion"]) - 255 * maps[n].numpy()).max() < 0.51
        assert np.abs(pixels(item["images"]["gradient"]) - 255 * (sizes[n] / sizes[n].max()).numpy()).max() < 0.51
        assert (item["truth"], item["answer"]) == ("abcd"[int(split.y[rows[n]])], "abcd"[int(answers[n])])


def test_it_survives_its_file_and_hangs_on_no_batch_size(asked, tmp_path):
    finding, model, split = asked
    (tmp_path / "findings.json").write_text(to_json({"net": [finding]}, {}))
    assert read(tmp_path / "findings.json")[0]["net"][0] == finding
    question = Saliency(count=0, window=3, threshold=0.3, steps=4)
    other = audits.run(model, split, [question], batch_size=5)[0]
    for name, measure in other.data["measures"].items():
        assert measure["mean"] == pytest.approx(finding.data["measures"][name]["mean"], rel=1e-5)


def test_fewer_inputs_and_colours(nets):
    x = torch.rand(9, 3, 40, 6, generator=torch.Generator().manual_seed(0))
    model = nets.linear(torch.randn(3, 720, generator=torch.Generator().manual_seed(1)) / 20)
    told = []
    finding = audits.run(
        model,
        Split(x, torch.arange(9) % 3, torch.arange(9)),
        [Saliency(inputs=4, steps=2)],
        watch=lambda *what: told.append(what),
    )[0]
    assert finding.data["inputs"] == len(finding.data["items"]) == 4
    assert (finding.data["window"], finding.data["stride"]) == (3, 1)
    assert pixels(finding.data["items"][0]["images"]["input"]).shape == (40, 6, 3)
    assert told == [("saliency", 0.0), ("saliency", 1.0), ("saliency", 0.0)]


def test_a_network_that_looks_at_nothing(nets):
    model = nets.linear(torch.zeros(2, 16))
    data = Split(torch.ones(3, 1, 4, 4), torch.tensor([0, 1, 1]), torch.arange(3))
    finding = audits.run(model, data, [Saliency()])[0]
    assert finding.data["measures"]["correlation"] == {"mean": None, "low": None, "high": None, "inputs": 0}
    assert finding.data["measures"]["salient_area"]["mean"] == 0
    assert "there is no map to read" in finding.verdict


def test_inputs_that_are_no_images(line):
    model, x, y, _ = line
    finding = audits.run(model, [(x, y)], [Saliency()])[0]
    assert (finding.data, finding.severity) == ({}, "info")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"count": -1}, "count must be a whole number of 0 or more"),
        ({"inputs": 0}, "inputs must be a whole number of 1 or more"),
        ({"threshold": 0.0}, r"threshold must be a number in \(0, 1\]"),
        ({"window": 2}, "window must be an odd number of pixels"),
        ({"stride": 0}, "stride must be a whole number of 1 or more"),
    ],
)
def test_what_measures_nothing_is_refused(settings, told):
    with pytest.raises(UserError, match=told):
        Saliency(**settings)
