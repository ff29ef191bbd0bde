"""Free adversarial training against its own loop, and its perturbation from batch to batch and run to run."""

import copy
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.defences.awp import AWP
from buttress.defences.base.defence import Batch
from buttress.defences.eps_warmup import EpsWarmup
from buttress.defences.free import Free
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.training import Interrupted, Optimiser
from buttress.training.batches import Batches

SGD = Optimiser(name="sgd", lr=0.05, momentum=0.0)
FREE = {"threat": Threat(eps=0.1), "replays": 3}


@pytest.fixture
def small(nets):
    return nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))).train()


@pytest.mark.parametrize(("size", "alpha"), [(12, 1.0), (10, 0.5)])
def test_free_training_equals_its_loop(size, alpha, small, images, train):
    """The weights move along the gradient at the perturbation as it was; a smaller last batch uses its first rows."""
    by_hand = copy.deepcopy(small)
    weights, delta = list(by_hand.parameters()), torch.zeros(size, 1, 6, 6)
    for epoch in range(2):
        for batch in Batches(images, size, 3, torch.device("cpu")).epoch(epoch):
            for _ in range(3):
                d = delta[: len(batch.x)].clone().requires_grad_()
                loss = F.cross_entropy(by_hand((batch.x + d).clamp(0, 1)), batch.y)
                *slopes, slope = torch.autograd.grad(loss, [*weights, d])
                with torch.no_grad():
                    for w, g in zip(weights, slopes, strict=True):
                        w -= 0.05 * g
                delta[: len(d)] = (d.detach() + alpha * 0.1 * slope.sign()).clamp(-0.1, 0.1)
    defence = Free(**FREE, alpha=alpha)
    trained = train(small, defence, optimiser=SGD, batch_size=size)
    torch.testing.assert_close(trained.model.state_dict(), by_hand.state_dict())
    torch.testing.assert_close(defence.delta, delta)
    assert delta.abs().max() == pytest.approx(0.1)


def test_it_resumes_with_its_perturbation(small, images, train, tmp_path, same):
    def run(model, **options):
        defence = Free(**FREE)
        return train(model, defence, epochs=3, **options), defence

    whole, theirs = run(copy.deepcopy(small))
    count = []

    def stop(done, figures):
        count.append(done)
        if len(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(copy.deepcopy(small), out=tmp_path / "run", progress=stop)
    resumed, ours = run(copy.deepcopy(small), out=tmp_path / "run", resume=True)
    same(resumed.model.state_dict(), whole.model.state_dict())
    same(ours.delta, theirs.delta)


def test_one_loss_is_cross_entropy_at_the_perturbation_and_gives_both_gradients(network, batch, context):
    model, defence = network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh), Free(threat=Threat(eps=0.3))
    x = batch.x.clone()
    x[:, :, 0] = 0.95
    delta = 0.3 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype) - 1)
    defence.delta = delta.clone()
    edge = Batch(x, batch.y, batch.ids)
    loss = defence.loss(model, edge, context(model, edge)).value
    leaf = delta.clone().requires_grad_()
    expected = -model((x + leaf).clamp(0, 1)).log_softmax(1)[torch.arange(8), batch.y].mean()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    loss.backward()
    torch.testing.assert_close(defence._leaf.grad, torch.autograd.grad(expected, leaf)[0], rtol=0, atol=1e-12)
    beyond = (x + delta > 1) | (x + delta < 0)
    assert beyond.any()
    assert (defence._leaf.grad[beyond] == 0).all()


def test_it_trains_in_bf16_with_a_float32_perturbation(network, train):
    defence = Free(**FREE)
    train(network(), defence, epochs=1, precision="bf16-mixed")
    assert defence.delta.dtype == torch.float32
    assert defence.delta.abs().max() == torch.tensor(0.1)


def test_its_budget_can_grow(network, train):
    defence = Free(**FREE)
    train(network(), EpsWarmup(defence, epochs=2), epochs=2)
    assert 0 < defence.delta.abs().max() < 0.1


def test_weights_may_be_perturbed_around_it(network, train, same):
    runs = [train(network(), d) for d in (Free(**FREE), AWP(Free(**FREE), gamma=0.0), AWP(Free(**FREE), gamma=0.1))]
    same(runs[0].model.state_dict(), runs[1].model.state_dict())
    assert not torch.equal(runs[0].model[4].weight, runs[2].model[4].weight)


def test_what_it_costs():
    assert Free(replays=5).cost.relative == 5


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"threat": Threat(norm="l2")}, "free is defined in linf; got l2"),
        ({"replays": 0}, "replays must be a whole number of 1 or more; got 0"),
        ({"alpha": 0.0}, "alpha must be a finite number above 0; got 0.0"),
        ({"threat": Threat(eps=float("inf"))}, "free needs a finite eps; got inf"),
    ],
)
def test_what_it_refuses(settings, line):
    with pytest.raises(UserError) as error:
        Free(**settings)
    assert str(error.value).startswith(line)
