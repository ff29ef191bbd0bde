import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from buttress import audits
from buttress.attacks.gradient.fgsm import FGSM
from buttress.audits.examples import Examples
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

ATTACK = FGSM(threat=Threat(eps=0.2))


def pixels(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))).astype(int)


@pytest.fixture(scope="module")
def gallery(pictures):
    model, split = pictures
    finding = audits.run(model, split, [Examples(attack=ATTACK, count=24)], classes=["a", "b", "c", "d"])[0]
    return finding, model, split


def test_labels_and_confidences_are_the_networks(gallery):
    finding, model, split = gallery
    x_adv = ATTACK(model, split.x, split.y, ids=split.ids).x_adv
    with torch.no_grad():
        answers = {"clean": model(split.x).softmax(1), "adversarial": model(x_adv).softmax(1)}
    for item in finding.data["items"]:
        shown = pixels(item["images"]["clean"])
        (row,) = [i for i in range(24) if np.abs(255 * split.x[i, 0].numpy() - shown).max() < 0.51]
        assert item["truth"] == "abcd"[int(split.y[row])]
        for which, probabilities in answers.items():
            confidence, label = probabilities[row].max(0)
            assert item[which]["label"] == "abcd"[int(label)]
            assert item[which]["confidence"] == pytest.approx(float(confidence), abs=1e-6)


def test_inputs_that_were_right_and_are_not_any_more_come_first(gallery):
    finding, model, split = gallery
    with torch.no_grad():
        right = model(split.x).argmax(1) == split.y
    result = ATTACK(model, split.x, split.y, ids=split.ids)
    success = int((right & result.success).sum())
    total = int(right.sum())
    assert 0 < success <= total < 24
    assert finding.verdict == f"FGSM is successful on {success} of the {total} inputs that are classified correctly."
    kinds = [
        (i["clean"]["label"] == i["truth"], i["adversarial"]["label"] == i["truth"]) for i in finding.data["items"]
    ]
    assert kinds[:success] == [(True, False)] * success
    assert all(clean and kept for clean, kept in kinds[success:total])
    assert not any(clean for clean, _ in kinds[total:])


def test_the_difference_is_magnified_to_the_whole_range(gallery):
    finding = gallery[0]
    assert finding.data["magnification"] == pytest.approx(0.5 / 0.2)
    for item in finding.data["items"]:
        clean, adversarial, difference = (pixels(item["images"][k]) for k in ("clean", "adversarial", "difference"))
        expected = np.clip(127.5 + finding.data["magnification"] * (adversarial - clean), 0, 255)
        assert np.abs(difference - expected).max() <= 4  # two roundings to 8 bits, magnified


def test_few_are_shown_and_colours_stay_colours(nets):
    x = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model = nets.linear(torch.randn(3, 48, generator=torch.Generator().manual_seed(1)))
    data = Split(x, torch.arange(9) % 3, torch.arange(9))
    finding = audits.run(model, data, [Examples(attack=ATTACK, count=2, magnification=1.0)])[0]
    assert len(finding.data["items"]) == 2
    assert finding.data["magnification"] == 1.0
    assert pixels(finding.data["items"][0]["images"]["difference"]).shape == (4, 4, 3)


def test_inputs_that_are_no_images_cost_no_attack(line, counted):
    model, x, y, _ = line
    finding = audits.run(model, [(x, y)], [Examples(attack=counted)])[0]
    assert finding.data == {"items": []}
    assert finding.verdict == "These inputs are no images to show."
    assert counted.runs == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, "count must be a whole number of 1 or more; got 0"),
        ({"magnification": 0.0}, "magnification must be a finite number above 0; got 0.0"),
        ({"magnification": float("nan")}, "magnification must be a finite number above 0; got nan"),
    ],
)
def test_what_shows_nothing_is_refused(fields, message):
    with pytest.raises(UserError, match=message):
        Examples(**fields)
