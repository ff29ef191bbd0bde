import dataclasses

import pytest
import torch
from torch import nn

from buttress.data.sets.digits import digits
from buttress.data.sets.moons import moons
from buttress.errors import UserError
from buttress.jobs.fit_to_data import check_fit, check_options, create_for, with_training_output
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


class Turned(nn.Linear):
    def __init__(self):
        super().__init__(2, 3)

    def forward(self, x):
        return super().forward(x).T


def test_labels_that_count_from_one_are_told():
    dataset = moons(samples=40)
    parts = {name: dataclasses.replace(part, y=part.y + 1) for name, part in dataset.splits.items()}
    counted = dataclasses.replace(dataset, **parts, classes=("0", "1", "2"))
    with pytest.raises(UserError, match="tells 2 classes apart, moons has 3: its labels count from 1, give y - 1"):
        check_fit(nn.Linear(2, 2), counted)


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (nn.Linear(2, 1), None),
        (nn.Linear(2, 5), None),
        (nn.Linear(3, 2), "Linear cannot take inputs of shape 2x2"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "returns probabilities"),
        (nn.Sequential(nn.Linear(2, 2), nn.Unflatten(1, (1, 2))), "logits"),
        (nn.Linear(2, 2, dtype=torch.float64), None),
        (Turned(), "the network returns shape 3x2 for 2 inputs: the first axis must be that of the inputs"),
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


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.LazyLinear(2)

    def forward(self, x):
        return self.last(self.norm(self.first(x)))


def test_lazy_networks_are_there_before_they_are_trained_the_same_for_a_seed():
    dataset = moons(samples=40)
    one, other = (create_for(dataset, f"{__file__}:Lazy", {}, None, 3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert one.first.in_features == 2
    assert one.norm.num_batches_tracked == 0


class Auxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        main = self.body(x)
        return {"features": x[:, :1], "out": main, "aux": self.head(x)} if self.training else main


def test_what_is_returned_in_training_mode_only_is_left_out(caplog):
    dataset = moons(samples=40)
    model = with_training_output(Auxiliary(), dataset)
    x = dataset.test.x[:3]
    for mode in (True, False):
        assert torch.equal(model.train(mode)(x), model.model.body(x))
    told = "in training mode the network returns 3 outputs: 'out' is trained, the others are not"
    assert caplog.records[-1].getMessage() == told
    plain = nn.Linear(2, 2)
    assert with_training_output(plain, dataset) is plain


def takes(num_classes, in_features, hidden=3):
    return nn.Sequential(nn.Linear(in_features, hidden), nn.Linear(hidden, num_classes))


def takes_images(n_classes, in_chans, img_size=(1, 1), input_size=1):
    model = nn.Sequential(nn.Flatten(), nn.Linear(in_chans * img_size[0] * img_size[1], n_classes))
    model.sizes = img_size, input_size
    return model


def test_parameters_of_users_factories_are_filled_in_by_the_data_unless_given():
    made = create_for(moons(samples=40), f"{__file__}:takes", {"hidden": 5}, None, 0)
    assert (made[0].in_features, made[0].out_features, made[1].out_features) == (2, 5, 2)
    assert create_for(moons(samples=40), f"{__file__}:takes", {"num_classes": 7}, None, 0)[1].out_features == 7
    made = create_for(digits().limited(20), f"{__file__}:takes_images", {}, None, 0)
    assert (made[1].in_features, made[1].out_features, made.sizes) == (64, 10, ((8, 8), 8))
