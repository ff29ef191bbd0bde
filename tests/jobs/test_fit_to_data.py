import pytest
import torch
from torch import nn

from buttress.data.sets.digits import digits
from buttress.data.sets.moons import moons
from buttress.errors import UserError
from buttress.jobs.fit_to_data import check_fit, check_options, create_for
from buttress.models.preprocessing import Statistics


def factory(count: int, share: float = 0.5, name: str | None = None, anything=None):
    """Annotated in every way that counts."""


class Thing:
    def __init__(self, size: int = 3):
        self.size = size


@pytest.mark.parametrize(
    "options", [{}, {"count": 3}, {"share": 1}, {"share": 0.5}, {"name": 3}, {"anything": []}, {"unknown": 3}]
)
def test_what_fits_or_is_not_annotated_simply_passes(options):
    check_options("it", factory, options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"count": 2.5}, "it: count must be a whole number; got 2.5"),
        ({"count": True}, "it: count must be a whole number; got True"),
        ({"share": "half"}, "it: share must be a number; got 'half'"),
    ],
)
def test_what_does_not_fit_is_named(options, told):
    with pytest.raises(UserError, match=told):
        check_options("it", factory, options)


def test_a_classes_own_annotations_count():
    with pytest.raises(UserError, match="size must be a whole number; got 'x'"):
        check_options("it", Thing, {"size": "x"})


def test_images_are_standardised_inside_the_model():
    dataset = digits()
    x = dataset.test.take(torch.arange(4))[0]
    own = Statistics(dataset.mean, dataset.std)
    with_statistics, without = (create_for(dataset, "cnn", {"width": 2}, values, 0) for values in (own, None))
    standardised = (x - dataset.mean[0]) / dataset.std[0]
    torch.testing.assert_close(with_statistics.eval()(x), without.eval()(standardised))


def test_the_divergence_of_lt_node_is_divided_by_the_number_of_training_inputs():
    dataset = digits()
    asked = {"width": 4, "extractor": "deep", "kl_weight": 3.0}
    filled, chosen = (create_for(dataset, "lt-node", asked | more, None, 0) for more in ({}, {"examples": 10}))
    assert [model.end_times.kl_weight for model in (filled, chosen)] == [3.0 / len(dataset.train), 3.0 / 10]


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (nn.Linear(2, 1), None),
        (nn.Linear(2, 5), None),
        (nn.Linear(3, 2), "Linear cannot take inputs of shape 2x2"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "returns probabilities"),
        (nn.Sequential(nn.Linear(2, 2), nn.Unflatten(1, (1, 2))), "logits"),
        (nn.Linear(2, 2, dtype=torch.float64), None),
    ],
)
def test_a_network_is_tried_on_two_inputs_before_any_work(model, told):
    dataset = moons(samples=40)
    if told is None:
        check_fit(model, dataset)
        return
    with pytest.raises(UserError, match=told):
        check_fit(model, dataset)


def test_fewer_classes_than_the_data_have_are_told_and_the_model_is_left_alone(nets):
    model = nets.awkward(64, classes=3)
    before = nets.state(model)
    with pytest.raises(UserError, match="the network tells 3 classes apart, digits has 10"):
        check_fit(model, digits())
    nets.assert_state(model, before)
