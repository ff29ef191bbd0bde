"""J-SIGR: both terms by hand, the estimator's mean, and maps that move with their images."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.data.arrays import from_arrays
from buttress.data.augment import Augment, draws
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.base.defence import Batch
from buttress.defences.j_sigr import JSIGR, jacobian_norm
from buttress.errors import UserError
from buttress.layers.saliency import occlusion
from buttress.random import Random
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training.batches import Batches

CLOSE = {"rtol": 1e-5, "atol": 1e-9}


@pytest.fixture
def smooth(network):
    """In float64, with statistics of BatchNorm that differ from the batch's."""
    model = network(dropout=0.5, dtype=torch.float64, activation=nn.Tanh)
    with torch.no_grad():
        model[1].running_mean.fill_(0.3)
        model[1].running_var.fill_(2.0)
    return model


def prepared(defence, images):
    defence.prepare(nn.Identity(), images, 0)
    return defence


def terms(model, batch, penalty, threshold=0.1):
    """Both terms input by input, by torch's own Jacobian of the network in eval mode."""
    model = copy.deepcopy(model).eval()
    maps = occlusion(model, batch.x, batch.y)
    norms, selected = [], []
    for image, label, saliency in zip(batch.x, batch.y, maps, strict=True):
        rows = torch.autograd.functional.jacobian(lambda z: model(z[None])[0], image)
        p = model(image[None])[0].softmax(0)
        slope = rows[label] - (p[:, None, None, None] * rows).sum(0)
        norms.append(rows.square().sum())
        outside = slope[0][saliency < threshold]
        selected.append(outside.abs().sum() if penalty == "l1" else outside.square().sum())
    return torch.stack(norms).mean(), torch.stack(selected).mean()


@pytest.mark.parametrize("penalty", ["l1", "squared"])
def test_the_loss_is_the_sum_of_its_terms(penalty, smooth, batch, context, images):
    defence = prepared(JSIGR(None, 0.3, 0.7, None, penalty=penalty, label_smoothing=0.2), images)
    twin = copy.deepcopy(smooth)
    torch.manual_seed(0)
    entropy = F.cross_entropy(twin(batch.x), batch.y, label_smoothing=0.2)
    norm, selected = terms(twin, batch, penalty)
    torch.manual_seed(0)
    loss = defence.loss(smooth, batch, context(smooth, batch))
    torch.testing.assert_close(loss.value, entropy + 0.3 * norm + 0.7 * selected, **CLOSE)
    assert set(loss.logs) == {"cross_entropy", "jacobian", "selective"}
    torch.testing.assert_close(loss.logs["jacobian"], norm.detach(), **CLOSE)
    torch.testing.assert_close(loss.logs["selective"], selected.detach(), **CLOSE)
    torch.testing.assert_close(dict(smooth.named_buffers()), dict(twin.named_buffers()), rtol=0, atol=0)
    assert all(module.training for module in smooth.modules())


def test_its_gradient_is_that_of_the_written_out_terms(network, batch, context, images):
    """Also where the pass that trains has moved BatchNorm's statistics: those of the regulariser stay what they were
    in its own forward pass."""
    model = network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)
    twin = copy.deepcopy(model)
    prepared(JSIGR(None, 0.3, 0.7, None), images).loss(model, batch, context(model, batch)).value.backward()
    entropy = F.cross_entropy(twin(batch.x), batch.y)
    still = copy.deepcopy(twin).eval()
    outside = occlusion(still, batch.x, batch.y) < 0.1
    x = batch.x.clone().requires_grad_()
    logits = still(x)
    rows = [torch.autograd.grad(logits[:, c].sum(), x, create_graph=True)[0] for c in range(4)]
    norm = sum(row.square().sum() for row in rows) / 8
    chosen = sum(row * (batch.y == c).double().view(-1, 1, 1, 1) for c, row in enumerate(rows))
    slope = chosen - sum(row * logits.softmax(1)[:, c].view(-1, 1, 1, 1) for c, row in enumerate(rows))
    entropy.backward()
    (0.3 * norm + 0.7 * (slope.abs()[:, 0] * outside).sum() / 8).backward()
    for own, one, other in zip(model.parameters(), twin.parameters(), still.parameters(), strict=True):
        regular = torch.zeros_like(own) if other.grad is None else other.grad
        torch.testing.assert_close(own.grad, one.grad + regular, rtol=1e-5, atol=1e-9)


def test_a_linear_networks_terms_in_closed_form(nets, images, context, batch):
    """||J||_F^2 = ||W||_F^2 for each input, and grad log p_y = w_y - sum p_c w_c."""
    weight = torch.randn(4, 36, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model, x = nets.linear(weight), batch.x
    outside = (occlusion(model, x, batch.y) < 0.1).flatten(1)
    slope = weight[batch.y] - model(x).softmax(1) @ weight
    loss = prepared(JSIGR(None, 1.0, 1.0, None), images).loss(model, batch, context(model, batch))
    torch.testing.assert_close(loss.logs["jacobian"], weight.square().sum(), **CLOSE)
    torch.testing.assert_close(loss.logs["selective"], (slope.abs() * outside).sum(1).mean().detach(), **CLOSE)
    assert 0 < outside.sum() < outside.numel()


def test_the_estimators_mean_is_the_exact_norm(smooth, batch):
    """2 % with 2000 draws, and each of one projection differs."""
    model = smooth.eval()
    x = batch.x[:1].clone().requires_grad_()
    logits = model(x)
    exact = jacobian_norm(logits, x, None, Random(0, batch.ids[:1]))
    assert exact.item() == pytest.approx(torch.autograd.functional.jacobian(model, x).square().sum().item(), rel=1e-9)
    mean = jacobian_norm(logits, x, 2000, Random(0, batch.ids[:1]))
    assert mean.item() == pytest.approx(exact.item(), rel=0.02)
    singles = [jacobian_norm(logits, x, 1, Random(seed, batch.ids[:1])).item() for seed in range(3)]
    assert len(set(singles)) == 3


def test_a_direction_belongs_to_its_input(smooth, batch):
    """Part of a batch has the estimates that it has in the whole."""
    model = smooth.eval()
    x, few = (points.clone().requires_grad_() for points in (batch.x, batch.x[3:5]))
    whole = jacobian_norm(model(x), x, 2, Random(5, batch.ids))
    part = jacobian_norm(model(few), few, 2, Random(5, batch.ids[3:5]))
    torch.testing.assert_close(part, whole[3:5], **CLOSE)


def test_without_its_terms_it_is_standard_training(network, train, same):
    runs = [train(network(), defence) for defence in (None, JSIGR(None, 0.0, 0.0))]
    same(runs[0].model.state_dict(), runs[1].model.state_dict())
    assert runs[1].history == runs[0].history


def test_an_adversarial_base(network, train, images, batch, context, same):
    attack = PGD(threat=Threat(eps=0.1), steps=2)
    runs = [train(network(), defence) for defence in (AdversarialTraining(attack), JSIGR(attack, 0.0, 0.0))]
    same(runs[0].model.state_dict(), runs[1].model.state_dict())
    defence = prepared(JSIGR(attack, 0.01, 0.0), images)
    assert defence.attack is attack
    assert (defence.cost.crafting, defence.cost.training) == (4, 4)
    model, single = network(dropout=0.0), Batch(batch.x.float(), batch.y, batch.ids)
    place = context(model, single)
    defence.loss(model, single, place)
    assert set(place.passes) == {"adversarial"}


def test_a_small_jacobian_is_what_its_weight_buys(network, images, train):
    """Mean ||J||_F^2 of the trained networks on the training data."""

    def norm(weight):
        defence = JSIGR(None, weight, 0.0, None)
        model = train(network(dropout=0.0), defence, optimiser=Optimiser(lr=0.02), epochs=4).model
        x = images.train.take(torch.arange(36))[0].requires_grad_()
        return float(jacobian_norm(model(x), x, None, Random(0, images.train.ids)).mean().detach())

    assert norm(0.1) < 0.7 * norm(0.0)


@pytest.mark.parametrize("augmented", [False, True])
def test_maps_of_an_earlier_epoch_move_with_their_images(augmented, network, images, train, context):
    """After one epoch each input's map is kept where its image was; in the next one it is where the image is."""
    data = replace(images, augment=Augment(pad=1) if augmented else None)
    model, defence = network(dropout=0.0), JSIGR(None, 0.0, 1.0, every=2)
    made = {}

    def spy(step):
        update = step.update

        def noted(loss):
            update(loss)
            made.update(zip(step.batch.ids.tolist(), defence._new_maps, strict=True))

        step.update = noted
        type(defence).step(defence, step)

    defence.step = spy
    fit(model, data, defence, epochs=1, batch_size=12, seed=3, validate_with="none")
    del defence.step
    batch = next(Batches(data, 12, 3, torch.device("cpu")).epoch(1))
    place = context(model, batch, epoch=1.0)
    found = defence._saliency(model, batch, place)
    old = torch.stack([made[i] for i in batch.ids.tolist()]).half().float()
    if not augmented:
        torch.testing.assert_close(found, old, rtol=0, atol=0)
        return
    first, second = (data.augment.geometry(draws(3, epoch, batch.ids)) for epoch in (0, 1))
    for n, own in enumerate(found):
        canvas = torch.ones(8, 8)
        top, left = int(first.top[n]), int(first.left[n])
        canvas[top : top + 6, left : left + 6] = old[n].flip(-1) if first.mirror[n] else old[n]
        top, left = int(second.top[n]), int(second.left[n])
        expected = canvas[top : top + 6, left : left + 6]
        torch.testing.assert_close(own, expected.flip(-1) if second.mirror[n] else expected, rtol=0, atol=0)


def test_kept_maps_cost_their_share(network, images, train):
    defence = JSIGR(None, every=2)
    assert defence.cost is None
    train(network(), defence, epochs=2)
    assert (defence.cost.crafting, defence.cost.training) == (37 / 2, 6)


def test_where_there_is_no_map_yet_nothing_is_penalised(network, images, context, single):
    defence = prepared(JSIGR(None, 0.0, 1.0, every=3), images)
    single = Batch(single.x, single.y, images.train.ids[:8])
    loss = defence.loss(network(), single, context(network(), single, epoch=1.0))
    assert loss.logs["selective"] == 0


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"jacobian": -1.0}, "jacobian must be a finite number of 0 or more"),
        ({"selective": float("nan")}, "selective must be a finite number of 0 or more"),
        ({"projections": 0}, "projections"),
        ({"every": 0}, "every"),
        ({"threshold": 1.5}, "threshold"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"penalty": "l3"}, "penalty must be one of l1, squared"),
        ({"window": 4}, "window must be an odd number of pixels"),
        ({"fill": "noise"}, "fill must be one of blur, zero"),
    ],
)
def test_what_means_nothing_is_refused(settings, told):
    with pytest.raises(UserError, match=told):
        JSIGR(**settings)


def test_inputs_without_places_are_refused_unless_nothing_is_selected():
    x, y = np.random.default_rng(0).random((40, 5), dtype=np.float32), np.arange(40) % 2
    data = from_arrays("rows", (x[:32], y[:32]), (x[32:], y[32:]), classes=["0", "1"], box=None, provenance="", val=8)
    with pytest.raises(UserError, match="saliency is of images"):
        JSIGR().prepare(nn.Identity(), data, 0)
    model = nn.Linear(5, 2)
    fit(model, data, JSIGR(selective=0.0), epochs=1, validate_with="none")
    assert torch.isfinite(model.weight).all()


def test_maps_are_kept_in_one_process(images, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    prepared(JSIGR(), images)
    with pytest.raises(UserError, match="keeps maps in 1 process; got 2"):
        prepared(JSIGR(every=2), images)
