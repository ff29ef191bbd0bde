"""Every optimiser and every scheduler of torch, against plain loops of torch; what cannot be named is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler

from buttress.defences.standard import Standard
from buttress.errors import UserError
from buttress.training import Interrupted, Optimiser, Schedule
from buttress.training import optimiser as optimisers
from buttress.training import schedule as schedules
from buttress.training.batches import Batches
from buttress.training.validation import validate

EPOCHS, STEPS = 3, 5  # of the fixtures' training
OPTIMISERS = sorted(set(optimisers.classes()) - set(optimisers._REFUSED))
ARGS = {  # beside what the training itself tells
    "StepLR": {"step_size": 2, "gamma": 0.3},
    "MultiStepLR": {"milestones": [1, 2]},
    "ConstantLR": {"total_iters": 1},
    "ExponentialLR": {"gamma": 0.8},
    "CosineAnnealingWarmRestarts": {"T_0": 2},
    "CyclicLR": {"base_lr": 0.001, "step_size_up": 3},
    "ReduceLROnPlateau": {"patience": 0, "threshold": 1.0},
}
IN_FULL = {  # of a training of EPOCHS x STEPS with lr 0.02
    "CosineAnnealingLR": {"T_max": EPOCHS},
    "CyclicLR": {**ARGS["CyclicLR"], "max_lr": 0.02},
    "OneCycleLR": {"max_lr": 0.02, "total_steps": EPOCHS * STEPS},
    "ReduceLROnPlateau": {**ARGS["ReduceLROnPlateau"], "mode": "max"},
}
SCHEDULERS = sorted(kind.__name__ for name, kind in schedules.classes().items() if name not in schedules._REFUSED)


@pytest.fixture
def matrices(nets):
    """Two layers without bias: Muon takes matrices only."""
    return lambda: nets.seeded(lambda: nn.Sequential(nn.Linear(2, 8, bias=False), nn.Linear(8, 2, bias=False)), 0)


@pytest.fixture
def plain(points):
    """A plain loop of torch over the batches of `fit`; the learning rate of each step."""

    def run(model, optimizer, scheduler=None, per="epoch"):
        rates = []
        for epoch in range(EPOCHS):
            for batch in Batches(points, 12, 3, torch.device("cpu")).epoch(epoch):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.zero_grad()
                F.cross_entropy(model(batch.x), batch.y).backward()
                optimizer.step()
                if scheduler is not None and per == "step":
                    scheduler.step()
            if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
                scheduler.step(validate(model, points.val, None, 3, torch.device("cpu")).clean)
            elif scheduler is not None and per == "epoch":
                scheduler.step()
        return rates

    return run


OPTIONS = {"validate_with": "none", "keep": "last"}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_is_that_of_torch_to_the_last_bit(name, matrices, points, plain, train, same):
    kind, model = optimisers.classes()[name], matrices()
    decay = {} if name == "rprop" else {"weight_decay": 0.01}
    momentum = {"momentum": 0.9} if name == "sgd" else {}
    plain(model, kind(model.parameters(), lr=0.02, **decay, **momentum))
    optimiser = Optimiser(name=name, lr=0.02, **decay)
    same(train(matrices(), points, Standard(), optimiser=optimiser, **OPTIONS).model.state_dict(), model.state_dict())


def test_an_optimisers_own_arguments(matrices, points, plain, train, same):
    model = matrices()
    plain(model, torch.optim.RMSprop(model.parameters(), lr=0.02, alpha=0.5, momentum=0.3))
    optimiser = Optimiser(name="RMSprop", lr=0.02, args={"alpha": 0.5, "momentum": 0.3})
    same(train(matrices(), points, Standard(), optimiser=optimiser, **OPTIONS).model.state_dict(), model.state_dict())
    adam = Optimiser(lr=0.1, args={"betas": [0.5, 0.6]}).build(model.parameters())
    assert adam.param_groups[0]["betas"] == (0.5, 0.6)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_is_that_of_torch_to_the_last_bit(name, matrices, points, plain, train, same):
    model = matrices()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    scheduler = getattr(lr_scheduler, name)(optimizer, **IN_FULL.get(name, ARGS.get(name, {})))
    rates = plain(model, optimizer, scheduler, "step" if name in ("CyclicLR", "OneCycleLR") else "epoch")
    assert len(set(rates)) > 1, "the case does not try the scheduler"
    settings = {"optimiser": Optimiser(name="sgd", lr=0.02), "schedule": Schedule(name=name, args=ARGS.get(name, {}))}
    same(train(matrices(), points, Standard(), **settings, **OPTIONS).model.state_dict(), model.state_dict())


def test_a_scheduler_moves_on_after_each_step_where_wanted(matrices, points, plain, train, same):
    model = matrices()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    plain(model, optimizer, lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS * STEPS), "step")
    settings = {"optimiser": Optimiser(lr=0.02), "schedule": Schedule(name="cosineannealinglr", per="step")}
    same(train(matrices(), points, Standard(), **settings, **OPTIONS).model.state_dict(), model.state_dict())


RUNS = {
    **{name: {"optimiser": Optimiser(name=name, lr=0.02)} for name in OPTIMISERS},
    **{name: {"schedule": Schedule(name=name, args=ARGS.get(name, {}))} for name in SCHEDULERS},
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(name, matrices, points, train, stop_at, same, tmp_path):
    settings = {**RUNS[name], **OPTIONS}
    whole = train(matrices(), points, Standard(), **settings)
    for step in (3, 6):  # inside of an epoch, and after its end
        with pytest.raises(Interrupted):
            train(matrices(), points, Standard(), out=tmp_path / "run", resume=True, progress=stop_at(step), **settings)
    again = train(matrices(), points, Standard(), out=tmp_path / "run", resume=True, **settings)
    same(again.model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: Optimiser(name="rmspop"), "there is no optimiser 'rmspop'; did you mean 'rmsprop'?"),
        (lambda: Optimiser(name="LBFGS"), "the optimiser LBFGS cannot train here: it evaluates the loss several times"),
        (lambda: Optimiser(name="sparseadam"), "sparseadam cannot train here: it takes sparse gradients"),
        (lambda: Optimiser(args={"beta": 1}), "the optimiser adam has no argument 'beta'; did you mean 'betas'?"),
        (lambda: Optimiser(args={"lr": 1}), "the optimiser adam: lr is set by itself, not in args"),
        (lambda: Optimiser(args={"betas": [2.0, 0.9]}), "the optimiser adam: Invalid beta parameter at index 0: 2.0"),
        (lambda: Optimiser(args={"eps": torch.ones(1)}), "args must be numbers, texts, lists and mappings of those"),
        (lambda: Optimiser(name="muon", momentum=0.5), "momentum and nesterov are settings of sgd; muon takes"),
        (lambda: Optimiser(name="rprop", weight_decay=0.1), "the optimiser rprop has no weight decay; got 0.1"),
        (lambda: Schedule(name="StepLr2"), "there is no schedule 'StepLr2'; did you mean 'StepLR'?"),
        (lambda: Schedule(name="StepLR"), "the schedule StepLR needs step_size in args"),
        (lambda: Schedule(name="StepLR", args={"step": 3}), "StepLR has no argument 'step'; did you mean 'step_size'?"),
        (lambda: Schedule(name="StepLR", args={"step_size": "x"}), "the schedule StepLR: "),
        (lambda: Schedule(name="LambdaLR"), "the schedule LambdaLR is made of a function, which no settings can name"),
        (lambda: Schedule(name="SequentialLR"), "the schedule SequentialLR is made of other schedulers"),
        (lambda: Schedule(args={"gamma": 0.1}), "args and per are for schedulers of torch; constant takes neither"),
        (lambda: Schedule(name="cosine", per="step"), "args and per are for schedulers of torch; cosine takes neither"),
        (lambda: Schedule(name="StepLR", per="week"), "per must be step or epoch; got 'week'"),
        (lambda: Schedule(name="ReduceLROnPlateau", per="step"), "ReduceLROnPlateau follows the validation of each"),
    ],
)
def test_what_torch_does_not_have_or_take_is_told(make, line):
    with pytest.raises(UserError) as caught:
        make()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_an_optimiser_refuses_are_told_before_a_folder_is_claimed(mlp, points, train, tmp_path):
    with pytest.raises(UserError, match="the optimiser muon: Muon only supports 2D parameters"):
        train(mlp(), points, Standard(), optimiser=Optimiser(name="muon"), out=tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_scheduler_that_needs_a_momentum_is_told_where_there_is_none(mlp, points, train):
    settings = {"optimiser": Optimiser(name="adagrad"), "schedule": Schedule(name="OneCycleLR")}
    with pytest.raises(UserError, match="the schedule OneCycleLR: optimizer must support momentum or beta1"):
        train(mlp(), points, Standard(), **settings)
