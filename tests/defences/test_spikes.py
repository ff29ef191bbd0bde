"""Published methods that do more than one objective and one update a batch, written on the public types alone."""

import copy
import os
import signal

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.defences import Defence, Loss
from buttress.defences.standard import Standard
from buttress.training import Interrupted, Optimiser, fit
from buttress.training.batches import Batches

SGD = Optimiser(name="sgd", lr=0.05, momentum=0.0)


class Free(Defence):
    """Free adversarial training (Shafahi et al., NeurIPS 2019): each batch ``replays`` times, one gradient for both."""

    def __init__(self, eps=0.1, replays=3, size=12):
        super().__init__()
        self.eps, self.replays, self.size = eps, replays, size
        self.register_buffer("delta", torch.zeros(size, 1, 6, 6))  # carried from batch to batch, saved with the run

    def loss(self, model, batch, at):
        self.leaf = self.delta[: len(batch.x)].clone().requires_grad_()
        return Loss(F.cross_entropy(at.adversarial((batch.x + self.leaf).clamp(0, 1)), batch.y))

    def step(self, do):
        for _ in range(self.replays):
            do.update(do.loss())
            with torch.no_grad():
                self.delta[: len(self.leaf)].add_(self.eps * self.leaf.grad.sign()).clamp_(-self.eps, self.eps)


@pytest.fixture
def small(nets):
    return nets.seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 4))).train()


def test_free_training_equals_its_loop(small, images):
    by_hand = copy.deepcopy(small)
    weights, delta = list(by_hand.parameters()), torch.zeros(12, 1, 6, 6)
    for epoch in range(2):
        for batch in Batches(images, 12, 3, torch.device("cpu")).epoch(epoch):
            for _ in range(3):
                d = delta[: len(batch.x)].clone().requires_grad_()
                loss = F.cross_entropy(by_hand((batch.x + d).clamp(0, 1)), batch.y)
                *slopes, slope = torch.autograd.grad(loss, [*weights, d])
                with torch.no_grad():
                    for w, g in zip(weights, slopes, strict=True):
                        w -= 0.05 * g
                delta[: len(d)] = (d.detach() + 0.1 * slope.sign()).clamp(-0.1, 0.1)
    trained = fit(
        small, images, Free(), epochs=2, batch_size=12, seed=3, optimiser=SGD, validate_with="none", keep="last"
    )
    torch.testing.assert_close(trained.model.state_dict(), by_hand.state_dict())


def test_free_training_resumes_with_its_perturbation(small, images, tmp_path):
    def run(model, **options):
        return fit(model, images, Free(), epochs=3, batch_size=12, seed=3, validate_with="none", keep="last", **options)

    whole = run(copy.deepcopy(small))
    count = []

    def stop(done, figures):
        count.append(done)
        if len(count) == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run(copy.deepcopy(small), out=tmp_path / "run", progress=stop)
    resumed = run(copy.deepcopy(small), out=tmp_path / "run", resume=True)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_gradients_of_several_losses_add_up_to_one_update(small, images):
    class Halves(Standard):
        def step(self, do):
            for _ in range(2):
                loss = do.loss()
                do.backward(Loss(0.5 * loss.value, loss.logs))
            do.apply()

    runs = [
        fit(
            copy.deepcopy(small),
            images,
            d,
            epochs=2,
            batch_size=12,
            seed=3,
            optimiser=SGD,
            validate_with="none",
            keep="last",
        )
        for d in (Standard(), Halves())
    ]
    torch.testing.assert_close(runs[0].model.state_dict(), runs[1].model.state_dict())
