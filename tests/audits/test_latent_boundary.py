import copy
import json

import pytest
import torch

from buttress import audits
from buttress.audits.base.finding import to_json
from buttress.audits.latent_boundary import LatentBoundary, _plane
from buttress.data.dataset import Split
from buttress.defences.base.pretraining import pretrain
from buttress.defences.ladder.latent_space import fit_space
from buttress.defences.ladder.support_vector_machines import AttentionSVM, SVMSettings
from buttress.errors import UserError

CLASSES = ("near", "far", "high", "low")
LIGHT = {"decoder_epochs": 60, "grid": 7, "images": 5}


@pytest.fixture(scope="module")
def blobs(nets):
    """(model, split): a linear network that tells two wide apart clouds of four features, and a third class."""
    random = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    centres = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.9, 0.9, 0.5, 0.5], [0.1, 0.9, 0.5, 0.5]])
    x = (centres[y] + 0.05 * torch.randn(60, 4, generator=random)).clamp(0, 1)
    weight = 8 * (centres - 0.5)
    return nets.linear(weight, -0.5 * weight.sum(1)), Split(x, y, torch.arange(60))


def ask(model, split, **fields):
    return audits.run(model, split, [LatentBoundary(**{**LIGHT, **fields})], classes=CLASSES[: int(split.y.max()) + 1])[
        0
    ]


def test_the_walk_goes_over_the_boundary_and_the_score_rises(blobs):
    finding = ask(*blobs)
    data = finding.data
    assert data["pair"] == ["near", "far"]
    assert data["layer"] == "1:input"
    steps, scores = ([item[key] for item in data["items"]] for key in ("step", "score"))
    assert steps == pytest.approx([-steps[-1], -steps[-1] / 2, 0, steps[-1] / 2, steps[-1]])
    assert scores == sorted(scores)
    assert data["items"][2]["label"] == "near"
    assert data["items"][-1]["label"] == "far"
    first = next(item["step"] for item in data["items"] if item["label"] == "far")
    assert finding.verdict == f"A decoded near becomes far for the network {first:.3g} along the direction."
    assert all(item["image"] is None for item in data["items"])  # rows are no images


def test_the_plane_holds_both_classes_on_their_sides(blobs):
    data = ask(*blobs).data
    points = data["points"]
    near = [x for x, label in zip(points["x"], points["label"], strict=True) if label == "near"]
    far = [x for x, label in zip(points["x"], points["label"], strict=True) if label == "far"]
    assert (len(near), len(far)) == (20, 20)
    assert max(near) < 0 < min(far)
    assert len(data["probability"]) == len(data["probability"][0]) == len(data["x"]) == len(data["y"]) == 7
    middle = data["probability"][3]
    assert middle[0] < 0.2
    assert middle[-1] > 0.8
    assert data["x"][0] < min(near) < max(far) < data["x"][-1]
    assert 0 <= data["other_classes"] <= 1
    json.loads(to_json({"network": [ask(*blobs)]}, {}))


def test_a_point_of_the_plane_is_decoded_and_judged(blobs):
    """Against the space that the same seed fits, at a corner of the plane."""
    model, split = blobs
    data = ask(model, split).data
    rows = split.subset((split.y < 2).nonzero().squeeze(1))
    space = fit_space(model, rows, 2, decoder_epochs=60, svm=SVMSettings(c=1.0, epochs=50)).space
    z, machine = space.encode(rows.x), space.directions.machine(0, 1)
    plane = _plane(z, rows.y, machine)
    point = plane.middle + data["x"][0] * plane.along + data["y"][-1] * plane.across
    output = model(space.decode(point[None], rows.x)).softmax(1)[0]
    assert data["probability"][-1][0] == pytest.approx((output[1] / output[:2].sum()).item(), rel=1e-4)


def test_the_axes_are_a_w_and_the_widest_direction_across():
    w = torch.tensor([[2.0, 0.0, 0.0]])
    side = torch.tensor([0, 0, 1, 1])
    z = torch.tensor([[-1.0, 3.0, 0.1], [-1.0, -3.0, -0.1], [1.0, 3.0, 0.1], [1.0, -3.0, -0.1]])
    plane = _plane(z, side, AttentionSVM(w, torch.zeros(1)))
    torch.testing.assert_close(plane.middle, torch.zeros(3))
    torch.testing.assert_close(plane.along, torch.tensor([1.0, 0.0, 0.0]))
    across = torch.tensor([0.0, 3.0, 0.1])
    torch.testing.assert_close(plane.across, across / across.norm())
    assert plane.length == 2
    assert plane.farthest(z[0]) == 2
    size = float(across.norm())
    torch.testing.assert_close(plane.places, torch.tensor([[-1, size], [-1, -size], [1, size], [1, -size]]))


def test_images_are_drawn_and_a_model_comes_back(pictures, nets):
    model, split = pictures
    before = nets.state(model)
    finding = ask(model, split, reach=2.0, decoder_epochs=2)
    nets.assert_state(model, before)
    assert [item["step"] for item in finding.data["items"]] == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert all(item["image"].startswith("data:image/png;base64,") for item in finding.data["items"])
    again = ask(model, split, reach=2.0, decoder_epochs=2)
    assert finding == again


def test_a_class_with_one_input_is_told(blobs):
    model, split = blobs
    few = split.subset(torch.tensor([0, 3, 6, 1]))
    finding = ask(model, few)
    assert (finding.verdict, finding.data) == ("There are fewer than 2 inputs of near or of far.", {})


def test_a_class_that_the_network_does_not_know_is_a_mistake(blobs):
    for pair in ((0, 3), (7, 0)):
        told = f"two of the network's classes 0 to 2, as in 0,1; got {pair[0]},{pair[1]}"
        with pytest.raises(UserError, match=told):
            ask(*blobs, pair=pair)
    assert ask(*blobs, pair=(0, 2)).data["pair"] == ["near", "high"]


def test_a_walk_too_short_is_told(blobs):
    verdict = ask(*blobs, reach=0.01).verdict
    assert verdict == "A decoded near does not become far for the network within 0.01 along the direction."


@pytest.mark.parametrize(
    "fields",
    [
        *({"pair": (1, 1)}, {"pair": (-1, 0)}, {"pair": (1,)}, {"images": 1}, {"grid": 1}, {"points": -1}),
        *({"reach": 0.0}, {"reach": float("inf")}, {"decoder_epochs": -1}, {"svm_c": -1.0}, {"svm_epochs": -1}),
    ],
)
def test_what_draws_nothing_is_refused(fields):
    with pytest.raises(UserError):
        LatentBoundary(**fields)


def test_after_training_the_answer_changes_where_the_classes_do(pictures):
    """A network that has learnt its images: the far end of the walk is the target."""
    model, split = copy.deepcopy(pictures[0]), pictures[1]
    pretrain(model, split, epochs=150, seed=0, lr=1e-2)
    finding = ask(model, split, decoder_epochs=300)
    assert finding.data["items"][2]["label"] == "near"
    assert finding.data["items"][-1]["label"] == "far"
