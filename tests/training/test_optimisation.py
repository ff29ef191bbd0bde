"""Schedules against closed forms, and `fit` against a plain loop of torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.training import Optimiser, Schedule
from buttress.training.averaging import EMA, Mean
from buttress.training.batches import Batches

shares = st.floats(0, 1)


@given(shares)
def test_constant(p):
    assert Schedule().at(p) == 1.0


@given(shares)
def test_piecewise_falls_by_its_factor_from_each_milestone_on(p):
    schedule = Schedule(name="piecewise", milestones=(0.25, 0.5, 0.9), factor=0.2)
    assert math.isclose(schedule.at(p), 0.2 ** ((p >= 0.25) + (p >= 0.5) + (p >= 0.9)))


@given(shares)
def test_cyclic_is_a_triangle(p):
    assert math.isclose(Schedule(name="cyclic", peak=0.4).at(p), min(p / 0.4, (1 - p) / 0.6), abs_tol=1e-12)


@given(shares)
def test_cosine_is_a_squared_cosine_of_half_the_angle(p):
    assert math.isclose(Schedule(name="cosine").at(p), math.cos(math.pi * p / 2) ** 2, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Schedule(name="cosin"), "there is no schedule 'cosin'; did you mean 'cosine'?"),
        (lambda: Schedule(milestones=(0.5, 0.2)), "milestones must be shares of the training in (0, 1), rising"),
        (lambda: Schedule(milestones=(30.0,)), "milestones must be shares"),
        (lambda: Schedule(peak=1.0), "peak must be in (0, 1)"),
        (lambda: Schedule(factor=0.0), "factor positive"),
        (lambda: Optimiser(name="sdg"), "there is no optimiser 'sdg'; did you mean 'sgd'?"),
        (lambda: Optimiser(lr=0.0), "lr must be a finite number above 0"),
        (lambda: Optimiser(lr=float("nan")), "lr must be a finite number above 0"),
        (lambda: Optimiser(momentum=1.0), "momentum must be a number in [0, 1)"),
        (lambda: Optimiser(weight_decay=-1.0), "weight_decay must be a finite number of 0 or more"),
        (lambda: EMA(decay=1.0), "decay must be a number in (0, 1); got 1.0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, line):
    with pytest.raises(UserError) as caught:
        make()
    assert line in str(caught.value)


SETUPS = {
    "sgd": (Optimiser(name="sgd", lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3), Schedule(name="cyclic")),
    "adam": (Optimiser(lr=0.01), Schedule(name="cosine")),
    "adamw": (Optimiser(name="adamw", lr=0.01, weight_decay=0.1), Schedule(name="piecewise")),
}


def in_torch(name, parameters):
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    if name == "adam":
        return torch.optim.Adam(parameters, lr=0.01)
    return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("name", SETUPS)
def test_fit_is_the_plain_loop_to_the_last_bit(name, clip, mlp, points, train, same):
    model, mean = mlp(), {k: v.detach().clone() for k, v in mlp().state_dict().items()}
    optimizer, norms = in_torch(name, model.parameters()), []
    highest, index = optimizer.param_groups[0]["lr"], 0
    for epoch in range(3):
        for batch in Batches(points, 12, 3, torch.device("cpu")).epoch(epoch):
            optimizer.param_groups[0]["lr"] = highest * SETUPS[name][1].at(index / 15)
            optimizer.zero_grad()
            F.cross_entropy(model(batch.x), batch.y).backward()
            if clip is not None:
                norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip)))
            optimizer.step()
            index += 1
            for key, value in model.state_dict().items():
                mean[key] = 0.8 * mean[key] + 0.2 * value
    optimiser, schedule = SETUPS[name]
    options = {"optimiser": optimiser, "schedule": schedule, "clip": clip, "validate_with": "none", "keep": "last"}
    ours = train(mlp(), points, Standard(), **options).model
    same(ours.state_dict(), model.state_dict())
    averaged = train(mlp(), points, Standard(), average=0.8, **options).model
    torch.testing.assert_close(averaged.state_dict(), mean)
    if clip is not None:
        assert max(norms) > clip, "the case does not try clipping"


def test_the_moving_average_follows_buffers_and_copies_counters():
    norm = torch.nn.BatchNorm1d(2)
    average, mean = EMA(decay=0.75), Mean()
    average.begin(mean, norm)
    norm(torch.tensor([[4.0, 0.0], [0.0, 8.0]]))
    average.after_step(mean, norm)
    torch.testing.assert_close(mean.weights["running_mean"], 0.25 * norm.running_mean)
    assert int(mean.weights["num_batches_tracked"]) == 1
