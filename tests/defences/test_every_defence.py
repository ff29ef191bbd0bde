"""What holds for every registered defence; a new one is tested here as soon as it is registered."""

import copy
import inspect
import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_pre_hook

from buttress import registry
from buttress.attacks.gradient.pgd import PGD
from buttress.defences import Batch, Defence
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.awp import AWP
from buttress.defences.base.wrapper import WrapperDefence
from buttress.defences.certified import margins, training
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.jobs.estimate import estimate_training
from buttress.jobs.settings import Training
from buttress.threat import Threat
from buttress.training import Interrupted
from buttress.training.monitors import EarlyStopping
from buttress.training.run_settings import describe

ALL = registry.defence.names()
NAMES = [name for name in ALL if name != "snode-ncg"]  # trains one kind of network only: see test_snode_ncg.py

# Preparations and corrections that are short, and bounds from the second epoch on.
QUICK = {
    "adv-kip": {"steps": 5},
    "class-corrected": {"rounds": 3},
    "crown-ibp": {"rise": (0.0, 0.5), "beta": (1.0, 1.0)},
    "ibp": {"rise": (0.0, 0.5)},
    "sabr": {"rise": (0.0, 0.5)},
    "csa": {"pretrain_epochs": 3},
    "gat": {"epochs": 3, "judge_epochs": 2},
    "ladder": {"pretrain_epochs": 3, "decoder_epochs": 10},
}


def make(name):
    """The member with settings that are quick: short attacks, and what `QUICK` has."""
    member, attack = registry.defence.get(name), PGD(threat=Threat(), steps=3)
    wanted = {"steps": 3, "attack": attack, "base": AdversarialTraining(attack), **QUICK.get(name, {})}
    return member(**{key: value for key, value in wanted.items() if key in inspect.signature(member).parameters})


def prepared(name, model, images):
    """A defence that is ready for its first step."""
    defence = make(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        defence.prepare(model, images, 0)
    return defence


def test_the_published_ones_are_registered():
    assert {"standard", "at", "fast", "trades", "layer-regularised"} <= set(NAMES)


@pytest.mark.parametrize("name", ALL)
def test_settings_make_an_equal_defence(name):
    defence = make(name)
    settings = defence.settings()
    assert list(settings) == [p for p in inspect.signature(type(defence)).parameters]
    again = type(defence)(**settings)
    assert describe(again) == describe(defence)
    assert json.loads(json.dumps(describe(defence)))["class"].endswith(type(defence).__name__)
    assert isinstance(defence, Defence)


@pytest.mark.parametrize("name", ALL)
def test_it_names_its_source(name):
    assert registry.defence.get(name).paper


@pytest.mark.representatives(name=["at", "gat"])
@pytest.mark.parametrize("name", NAMES)
def test_its_time_is_estimated_or_said_not_to_be(name, nets, network, images):
    """The estimate prepares a copy of what needs preparing, and leaves the network and the method alone."""
    model, defence = network(), make(name)
    weights, state = nets.state(model), list(defence.state_dict())
    text = estimate_training(model, images, defence, Training(epochs=2, batch_size=24))
    nets.assert_state(model, weights)
    assert list(defence.state_dict()) == state
    if defence.preparation:
        assert text == f"not estimated, since the method first {defence.preparation}"
    else:
        assert text.startswith("about ")
        assert ": 4 steps of " in text


@pytest.mark.parametrize("name", NAMES)
def test_it_says_whether_its_preparation_trains_something(name, network, images):
    steps, defence = [], make(name)
    counting = register_optimizer_step_pre_hook(lambda *_: steps.append(1))
    try:
        defence.prepare(network(), images, 0)
    finally:
        counting.remove()
    assert bool(defence.preparation) == bool(steps)


@pytest.fixture
def bounds_counted(monkeypatch):
    """Count the passes that bounds take: one for each end of intervals, one for each linear function of the output."""

    def counted(name, inputs, output, module=margins):
        function = getattr(module, name)

        def called(*args):
            result = function(*args)
            passes = inputs(*args)
            calls.append(passes)
            if (end := output(result)) is not None:
                end.register_hook(lambda grad: calls.append(passes))
            return result

        monkeypatch.setattr(module, name, called)

    def low(found):
        return next(low for low, _ in found.values() if low.requires_grad)

    def shift(graph):
        return next((n.arguments[0] for n in graph.nodes if n.name == "addcmul"), None)

    calls = []
    counted("propagated", lambda network, region: 2 * len(region.x), low)
    counted("linear_bound", lambda network, rows, intervals: rows.offset.numel(), lambda line: line.slope)
    counted("with_batch_statistics", lambda graph, x: len(x), shift, training)
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_its_cost_is_the_number_of_passes_of_one_step(name, network, images, train, bounds_counted):
    """Counted by hooks on the network over the second epoch, backward passes where they leave the logits."""
    model, defence = network(dropout=0.0), make(name)
    counts = {"passes": 0}

    def count(tensor):
        counts["passes"] += len(tensor)

    def note(module, args, output):
        count(output)
        if output.requires_grad:
            output.register_hook(count)

    place = {}
    original = type(defence).step

    def step(self, step):  # counted inside of steps alone, so not what `prepare` and validation do
        if step.context.epoch < 1:  # in which a network's operations are read, once
            return original(self, step)
        with_hook = step.model.register_forward_hook(note)
        bounds_counted.clear()
        try:
            original(self, step)
        finally:
            with_hook.remove()
            place["inputs"] = place.get("inputs", 0) + len(step.batch.x)
            counts["passes"] += sum(bounds_counted)

    defence.step = step.__get__(defence)
    train(model, defence, epochs=2)
    cost = defence.cost
    assert counts["passes"] / place["inputs"] == pytest.approx(cost.crafting + cost.training)
    assert cost.relative == (cost.crafting + cost.training) / 2


@pytest.mark.parametrize("name", NAMES)
def test_whether_each_objective_makes_a_perturbed_pass(name, network, train):
    defence, made = make(name), []

    class Watching(WrapperDefence):
        def loss(self, model, batch, context):
            found = super().loss(model, batch, context)
            made.append("adversarial" in context.passes)
            return found

    train(network(), Watching(defence), epochs=1)
    assert made
    assert defence.perturbed_pass == all(made)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_leaves_no_gradient_and_its_backward_reaches_every_weight(name, network, images, context):
    model = network(dropout=0.0)
    defence, single = prepared(name, model, images), Batch(*images.train.take(torch.arange(8)))
    model[4].bias.requires_grad_(False)
    place = context(model, single)
    loss = defence.loss(model, single, place)
    assert all(p.grad is None for p in model.parameters())
    assert loss.value.shape == ()
    assert torch.isfinite(loss.value)
    assert not any(figure.requires_grad for figure in loss.logs.values())
    loss.value.backward()
    assert model[4].bias.grad is None
    for weight, parameter in model.named_parameters():
        if parameter.requires_grad and weight != "0.bias":  # BatchNorm takes the bias before it out again
            assert parameter.grad.abs().sum() > 0, weight
    assert single.x.grad is None


@pytest.mark.parametrize("name", NAMES)
def test_the_same_step_gives_the_same_loss_and_leaves_other_state_alone(name, network, images, context, same):
    model = network(dropout=0.0)
    defence, single = prepared(name, model, images), Batch(*images.train.take(torch.arange(8)))
    before = copy.deepcopy(dict(defence.named_buffers()))
    flags = [m.training for m in model.modules()]
    twin = copy.deepcopy(model)  # the buffers that a crafting in eval mode reads move with each step
    first = defence.loss(model, single, context(model, single)).value
    place = context(twin, single)
    second = defence.loss(twin, single, place).value
    assert defence.clean_pass == ("clean" in place.passes)
    same(first, second)
    same(dict(defence.named_buffers()), before)  # what a method remembers changes in steps and at ends of epochs
    same(dict(model.named_buffers()), dict(twin.named_buffers()))
    same(dict(model.named_parameters()), dict(twin.named_parameters()))
    assert flags == [m.training for m in model.modules()]


@pytest.mark.parametrize("name", NAMES)
def test_one_epoch_lowers_the_objective(name, network, images, context, train):
    model = network(dropout=0.0)
    defence = prepared(name, model, images)
    whole = Batch(*images.train.take(torch.arange(len(images.train))))

    def objective():
        return defence.loss(model.train(), whole, context(model, whole)).value.item()

    before = objective()
    train(model, defence, epochs=1, batch_size=6)
    assert objective() < 0.9 * before


# What a method keeps from step to step is its own; the rest is the trainer's.
@pytest.mark.representatives(
    name=["apart", "awp", "cfa", "class-corrected", "free", "frl", "gat", "instance-eps", "masked-fgsm", "trades"]
)
@pytest.mark.parametrize("name", NAMES)
def test_stopped_and_resumed_it_gives_the_same_bits(name, network, images, train, same, tmp_path):
    """Stopped in the middle of the second epoch; its own modules and memory come back with the model."""
    count = []

    def stop(done, figures):
        count.append(done)
        if len(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = train(network(), make(name))
    with pytest.raises(Interrupted):
        train(network(), make(name), out=tmp_path / "run", progress=stop)
    again = train(network(), make(name), out=tmp_path / "run", resume=True)
    same(again.model.state_dict(), whole.model.state_dict())
    same(again.history, whole.history)
    assert set(load_file(tmp_path / "run" / "model.safetensors")) == set(network().state_dict())


@pytest.mark.representatives(name=["adv-kip", "apart", "at", "free", "gat", "standard"])
@pytest.mark.parametrize("name", NAMES)
def test_with_moved_weights_an_average_and_a_monitor_it_resumes_too(name, network, train, same, tmp_path):
    count = []

    def stop(done, figures):
        count.append(done)
        if len(count) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    def run(**options):
        monitors = [EarlyStopping(patience=5)]
        return train(network(), AWP(make(name), gamma=0.01), average=0.9, monitors=monitors, **options)

    whole = run()
    with pytest.raises(Interrupted):
        run(out=tmp_path / "run", progress=stop)
    again = run(out=tmp_path / "run", resume=True)
    same(again.model.state_dict(), whole.model.state_dict())
    same(again.history, whole.history)


@pytest.mark.representatives(name=["at", "free", "gat", "j-sigr", "ladder", "standard"])
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_in_bf16(name, network, train):
    trained = train(network(), make(name), epochs=1, precision="bf16-mixed")
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())
    assert trained.history[-1]["loss"] == trained.history[-1]["loss"]


@pytest.mark.representatives(name=["at", "gat", "standard", "trades"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rise", [{"gamma": 0.0}, {"gamma": 0.5, "warmup": 1.0, "epochs": 1, "batch_size": 1000}])
def test_regularising_by_nothing_gives_the_bits_of_the_base(name, rise, network, train, same):
    """Gamma 0 through a whole training; a rising gamma at the first step, which is all that one batch an epoch has."""
    options = {key: rise[key] for key in ("epochs", "batch_size") if key in rise}
    wrapped = LayerRegularised(
        make(name), layers=["2", "5"], gamma=rise["gamma"], warmup=rise.get("warmup", 0.0), measure="centred"
    )
    if rise["gamma"] and not (wrapped.perturbed_pass and wrapped.paired):
        with pytest.raises(UserError, match=r"makes no perturbed pass|show different mixtures"):
            train(network(), wrapped, **options)
        return
    plain_run, wrapped_run = (train(network(), d, **options) for d in (make(name), wrapped))
    same(wrapped_run.model.state_dict(), plain_run.model.state_dict())
    same(wrapped_run.history, plain_run.history)


@pytest.mark.representatives(name=["at", "free", "iat", "trades"])
@pytest.mark.parametrize("name", NAMES)
def test_regularising_by_the_margins_gradient_trains_or_says_why_not(name, network, train):
    """The passes of every base show the margin and its gradient at a layer, or the base is refused."""
    wrapped = LayerRegularised(make(name), layers=["2"], gamma=0.5, measure="margin_direction")
    if not (wrapped.perturbed_pass and wrapped.paired and wrapped.own_classes):
        with pytest.raises(UserError, match=r"makes no perturbed pass|show different mixtures|mixes inputs"):
            train(network(), wrapped, epochs=1)
        return
    trained = train(network(), wrapped, epochs=1)
    assert 0 <= trained.history[-1]["displacement 2"] <= 1
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())
