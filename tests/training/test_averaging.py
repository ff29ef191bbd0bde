"""Averages of weights against closed forms, and what is judged and kept."""

import pytest
import torch
from torch import nn

from buttress.defences import Defence, Loss
from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.training import EMA, FAWA, SWA, Optimiser
from buttress.training import loop as loop_file
from buttress.training.averaging import Averaging, Mean, average_of, estimate_statistics
from buttress.training.batches import Batches
from buttress.training.validation import Validation, validate


class Pull(Defence):
    """Half the squared distance of all weights from ``goal``: plain descent is w <- w - lr (w - goal)."""

    goal = 2.0

    def loss(self, model, batch, context):
        return Loss(sum(0.5 * (p - self.goal).square().sum() for p in model.parameters()))


PLAIN = {"optimiser": Optimiser(name="sgd", lr=0.25, momentum=0.0), "validate_with": "none", "keep": "last"}


def after(start, steps):
    """The weights of `Pull` after so many steps."""
    return {name: 2.0 + 0.75**steps * (value.double() - 2.0) for name, value in start.items()}


def mean(parts):
    return {name: torch.stack([part[name] for part in parts]).mean(0).float() for name in parts[0]}


@pytest.mark.parametrize(
    ("start", "epochs"), [(0.5, range(3, 7)), (0.0, range(1, 7)), (0.51, range(4, 7)), (1.0, range(6, 7))]
)
def test_swa_is_the_equal_mean_of_the_ends_of_epochs_of_a_linear_recurrence(start, epochs, mlp, points, train):
    """Five steps an epoch; at 0.5 of six epochs the first that goes in is the end of the third."""
    found = train(mlp(), points, Pull(), epochs=6, average=SWA(start=start), **PLAIN).model.state_dict()
    expected = mean([after(mlp().state_dict(), 5 * epoch) for epoch in epochs])
    torch.testing.assert_close(dict(found), expected)


def scripted(monkeypatch, *worst):
    """Validations whose worst class is scripted, judged and averaged weights alike."""
    answers = iter(worst)
    monkeypatch.setattr(loop_file, "validate", lambda *_: Validation(0.5, 0.5, next(answers)))


def test_fawa_takes_in_the_epochs_whose_worst_class_is_good_enough(monkeypatch, mlp, points, train):
    """From half of six epochs on: the third is refused, the fourth begins, the fifth is refused, the sixth goes in."""
    unjudged = 0.0  # of what is kept, which decides nothing
    scripted(monkeypatch, *[unjudged] * 2, 0.19, unjudged, 0.2, unjudged, 0.0, unjudged, 0.9, unjudged)
    policy = FAWA(decay=0.75, start=0.5, threshold=0.2)
    found = train(mlp(), points, Pull(), epochs=6, average=policy, **PLAIN)
    fourth, sixth = (after(mlp().state_dict(), 5 * epoch) for epoch in (4, 6))
    expected = {name: (0.75 * fourth[name] + 0.25 * sixth[name]).float() for name in fourth}
    torch.testing.assert_close(dict(found.model.state_dict()), expected)
    assert [row.get("accepted") for row in found.history] == [None, None, 0.0, 1.0, 0.0, 1.0]
    assert [row.get("worst_class") for row in found.history] == [None, None, 0.19, 0.2, 0.0, 0.9]


def test_as_long_as_nothing_went_in_the_own_weights_are_kept(monkeypatch, mlp, points, train, same):
    scripted(monkeypatch, *[0.1] * 9)
    refused = train(mlp(), points, Pull(), average=FAWA(start=0.0), **PLAIN)
    plain = train(mlp(), points, Pull(), **PLAIN)
    same(refused.model.state_dict(), plain.model.state_dict())


def test_the_worst_class_is_that_of_the_lowest_robust_accuracy(nets, images, attack):
    model = nets.conv()
    found = validate(model, images.val, attack, 3, torch.device("cpu"))
    x, y, ids = images.val.take(torch.arange(len(images.val)))
    for rank, stood in (
        (found, ~attack(model, x, y, seed=3, ids=ids).success),
        (validate(model, images.val, None, 3, torch.device("cpu")), model(x).argmax(1) == y),
    ):
        assert rank.worst == min(float(stood[y == label].double().mean()) for label in range(4))
    assert 0 < found.clean < 1, "the case tells nothing"


@pytest.mark.parametrize("policy", [SWA(start=0.3), FAWA(start=0.0, threshold=0.0)])
def test_batchnorm_statistics_of_the_average_are_those_of_the_training_inputs(policy, network, images, train):
    model = train(network(), images, Standard(), average=policy, keep="last", validate_with="none").model
    inputs = [batch.x for batch in Batches(images, 12, 3, torch.device("cpu")).epoch(2)]
    features = [model[0](x) for x in inputs]
    expected = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
    torch.testing.assert_close(model[1].running_mean, expected)
    expected = torch.stack([f.var((0, 2, 3)) for f in features]).mean(0)
    torch.testing.assert_close(model[1].running_var, expected)
    assert int(model[1].num_batches_tracked) == 3


def test_estimating_statistics_leaves_all_else_alone(nets, same):
    model = nets.awkward(4)
    flags, momentum, random = [m.training for m in model.modules()], model[2].momentum, torch.get_rng_state()
    weights = [p.clone() for p in model.parameters()]
    estimate_statistics(model, [torch.ones(3, 4), torch.zeros(3, 4)])
    assert [m.training for m in model.modules()] == flags
    assert model[2].momentum == momentum
    same(torch.get_rng_state(), random)
    same(list(model.parameters()), weights)
    halves = (model[1](torch.ones(1, 4)) + model[1](torch.zeros(1, 4)))[0] / 2
    torch.testing.assert_close(model[2].running_mean, halves)
    untouched = nn.Linear(2, 2)
    estimate_statistics(untouched, iter(lambda: pytest.fail("inputs were read"), None))


@pytest.mark.parametrize("policy", [SWA(start=0.0), FAWA(start=0.0, threshold=0.0), 0.5])
def test_the_training_itself_is_that_without_an_average(policy, network, images, train, state_of, same, tmp_path):
    train(network(), images, out=tmp_path / "plain")
    train(network(), images, average=policy, out=tmp_path / "averaged")
    plain, averaged = (state_of(tmp_path / name) for name in ("plain", "averaged"))
    same(averaged[0], plain[0])
    same(averaged[1]["optimizer"], plain[1]["optimizer"])


def test_a_number_is_the_decay_of_a_moving_average(network, images, train, same):
    one, other = (train(network(), images, average=average) for average in (0.9, EMA(decay=0.9)))
    same(one.model.state_dict(), other.model.state_dict())
    assert one.history == other.history


def test_a_snapshot_is_gone_back_to_whatever_came_after(nets, same):
    model = nets.conv()
    averaging = Averaging(EMA(decay=0.5), model)
    snapshot = averaging.snapshot()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for _ in range(2):
        with torch.no_grad():
            model[0].weight.add_(1.0)
        averaging.after_step()
    averaging.restore(snapshot, torch.device("cpu"))
    same(dict(model.state_dict()), before)
    same(averaging.weights(), before)
    averaging.after_step()
    assert snapshot["mean"]["count"] == 1


def test_lending_the_average_gives_the_own_weights_back_also_after_an_exception(nets, same):
    model = nets.conv()
    averaging = Averaging(SWA(), model)
    averaging.mean = Mean({k: torch.zeros_like(v) for k, v in model.state_dict().items()}, 1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with averaging.averaged_model():
        assert not model[0].weight.any()
    same(dict(model.state_dict()), before)
    with pytest.raises(ZeroDivisionError), averaging.averaged_model():
        _ = 1 / 0
    same(dict(model.state_dict()), before)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: EMA(decay=0.0), "the moving average's decay must be a number in (0, 1); got 0.0"),
        (lambda: SWA(start=1.5), "the average's start must be a number in [0, 1]; got 1.5"),
        (lambda: FAWA(decay=1.0), "the moving average's decay must be a number in (0, 1); got 1.0"),
        (lambda: FAWA(start=-0.1), "start must be a number in [0, 1]; got -0.1"),
        (lambda: FAWA(threshold=20.0), "the threshold of the worst class must be a number in [0, 1]; got 20.0"),
        (lambda: average_of("swa"), "average must be a decay in (0, 1), EMA, SWA, FAWA or none; got 'swa'"),
        (lambda: average_of(True), "average must be a decay"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, line):
    with pytest.raises(UserError) as caught:
        make()
    assert line in str(caught.value)
