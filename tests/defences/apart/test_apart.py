"""APART against its own loop in float64, its starts under augmentation, and where its sizes settle."""

import copy
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.data.arrays import from_arrays
from buttress.data.augment import Augment, draws
from buttress.defences.apart.defence import APART, _layer_names
from buttress.defences.apart.start_memory import Memory, Sizes
from buttress.defences.awp import AWP
from buttress.errors import UserError
from buttress.models.architectures.preact_resnet import preactresnet18
from buttress.threat import Threat
from buttress.training import Interrupted, Optimiser, fit
from buttress.training.batches import Batches

THREAT = Threat(eps=0.1)
SGD = Optimiser(name="sgd", lr=0.05, momentum=0.0)


def forward(model, x, change=None):
    """Logits and the value of layer 2, to which ``change`` is added first."""
    h = model[2](model[1](model[0](x)))
    h = h if change is None else h + change(h)
    return model[3:](h), h


@pytest.mark.parametrize("layers", [(), ("2",)])
@pytest.mark.parametrize(
    ("parametrisation", "settings"),
    [("scaled", {"lr": 0.5, "decay": 0.2, "first": 0.3}), ("paper", {"lr": 0.01, "decay": 1.0, "first": 0.04})],
)
def test_training_equals_its_loop(layers, parametrisation, settings, network, images, train):
    """Two epochs of three steps, BatchNorm in train mode, momentum, a cap that binds."""
    build = {"dropout": 0.0, "dtype": torch.float64, "activation": nn.Tanh}
    model, by_hand = network(**build), network(**build)
    eps, unit = 0.1, 0.1 if parametrisation == "scaled" else 1.0
    weights = list(by_hand.parameters())
    start = Memory(images, 3, "float32").values.double()
    omega = dict(zip(images.train.ids.tolist(), start, strict=True))
    sizes = torch.tensor([settings["first"]] * 2 + [0.0] * len(layers)).double()
    velocity, index, capped = torch.zeros_like(sizes), 0, []
    for epoch in range(2):
        for batch in Batches(images, 12, 3, torch.device("cpu"), dtype=torch.float64).epoch(epoch):
            x, ids = batch.x, batch.ids.tolist()
            own = torch.stack([omega[i] for i in ids])
            live = sizes.clone().requires_grad_()
            delta = (unit * live[1] * own).clamp(-eps, eps)
            x0 = (x + delta).clamp(0, 1).detach().requires_grad_()
            aside = copy.deepcopy(by_hand)
            logits, h = forward(aside, x0)
            g0, g_layer = torch.autograd.grad(F.cross_entropy(logits, batch.y), [x0, h])
            x1 = (x + (delta + unit * live[0] * g0.sign()).clamp(-eps, eps)).clamp(0, 1)

            def change(h, live=live, g_layer=g_layer):
                spread = h.detach().std()
                size = live[2] * spread if parametrisation == "scaled" else live[2]
                capped.append(bool(size.abs() > 0.02 * spread))
                return torch.clamp(size, -0.02 * spread, 0.02 * spread) * g_layer.sign()

            loss = F.cross_entropy(forward(by_hand, x1, change if layers else None)[0], batch.y)
            g1, g_sizes, *slopes = torch.autograd.grad(loss, [x1, live, *weights])
            with torch.no_grad():
                for w, g in zip(weights, slopes, strict=True):
                    w -= 0.05 * g
            ratio = unit * sizes[0] / (unit * sizes[1] + 1e-7)
            for i, moved in zip(ids, (own + ratio * g1.sign()).clamp(-1, 1), strict=True):
                omega[i] = moved
            velocity = 0.9 * velocity + g_sizes - settings["decay"] * sizes
            sizes = sizes + settings["lr"] * (1 - abs(2 * index / 6 - 1)) * velocity
            index += 1
    defence = APART(THREAT, parametrisation, layers=layers, storage="float32", **settings)
    trained = train(model, defence, optimiser=SGD, precision="64-true")
    torch.testing.assert_close(trained.model.state_dict(), by_hand.state_dict(), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(defence.sizes.values, sizes, rtol=1e-5, atol=1e-8)
    found = torch.stack([omega[i] for i in images.train.ids.tolist()])
    torch.testing.assert_close(defence.memory.values, found, rtol=1e-5, atol=1e-8)
    assert defence.memory.values.abs().max() == 1
    assert (sizes[:2] - settings["first"]).abs().min() > 1e-3
    if layers:
        assert len(set(capped)) == 2


@pytest.mark.parametrize(("decay", "most"), [(0.05, 1.0), (100.0, 0.2)])
def test_the_sizes_fill_the_budget_and_no_more(decay, most, nets):
    """On a linear network the gradient's sign does not change: what is learned adds up to eps, where clipping cuts the
    gradient, unless the decay is stronger than the loss."""
    random = np.random.default_rng(0)
    x, y = random.random((40, 5), dtype=np.float32), np.arange(40) % 2
    data = from_arrays("lines", (x[:32], y[:32]), (x[32:], y[32:]), classes=["0", "1"], box=None, provenance="", val=8)
    model = nn.Sequential(nn.Linear(5, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[-1.0, 2.0, 0.5, -1.5, 1.0], [1.0, -2.0, -0.5, 1.5, -1.0]]))
        model[0].bias.zero_()
    defence = APART(Threat(eps=0.1, box=None), lr=0.005, decay=decay)
    still = Optimiser(name="sgd", lr=1e-12, momentum=0.0)
    trained = fit(model, data, defence, epochs=100, batch_size=8, optimiser=still, validate_with="none", seed=1)
    total = defence.sizes.values.sum().item()
    if most == 1:
        assert total == pytest.approx(1, abs=0.02)
        assert defence.memory.values.abs().eq(1).all()
        row = trained.history[-1]
        assert row["alpha"] + row["alpha_omega"] == pytest.approx(1, abs=0.02)
    assert total < most + 0.02


def test_a_start_moves_with_its_image(images):
    """What is written in one epoch's crop is read in another's where both overlap, and the rest stays, exactly."""
    data = replace(images, augment=Augment(pad=2))
    memory, ids = Memory(data, 5, "float32"), images.train.ids[[3, 30, 7, 11]]
    before = memory.values.clone()
    assert before.shape == (36, 1, 10, 10)
    assert before.std().item() == pytest.approx(0.001, rel=0.05)
    places = [data.augment.geometry(draws(5, epoch, ids)) for epoch in (0, 1)]
    rows = [3, 30, 7, 11]
    for n in range(4):
        top, left = int(places[0].top[n]), int(places[0].left[n])
        window = before[rows[n], :, top : top + 6, left : left + 6]
        expected = window.flip(-1) if places[0].mirror[n] else window
        assert torch.equal(memory.read(ids, 0)[n], expected)
    values = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    memory.write(ids, 0, values)
    assert torch.equal(memory.read(ids, 0), values)
    canvas = before.clone()
    for n in range(4):
        top, left = int(places[0].top[n]), int(places[0].left[n])
        own = values[n].flip(-1) if places[0].mirror[n] else values[n]
        canvas[rows[n], :, top : top + 6, left : left + 6] = own
    assert torch.equal(memory.values, canvas)
    for n, own in enumerate(memory.read(ids, 1)):
        top, left = int(places[1].top[n]), int(places[1].left[n])
        window = canvas[rows[n], :, top : top + 6, left : left + 6]
        assert torch.equal(own, window.flip(-1) if places[1].mirror[n] else window)


def test_in_training_a_start_is_that_of_the_images_crop(network, images, train, context):
    """With x itself written as the start, what a step reads is the batch that the trainer made."""
    data = replace(images, augment=Augment(pad=1))
    memory = Memory(data, 3, "float32")
    memory.values.copy_(F.pad(images.train.take(torch.arange(36))[0], (1,) * 4))
    for epoch in range(2):
        for batch in Batches(data, 12, 3, torch.device("cpu")).epoch(epoch):
            assert torch.equal(memory.read(batch.ids, epoch), batch.x)


@pytest.mark.parametrize(("storage", "size", "error"), [("float32", 4, 0), ("float16", 2, 2**-11), ("int8", 1, 0.004)])
def test_a_start_is_kept_in_few_bytes(storage, size, error, images):
    memory, values = Memory(images, 0, storage), torch.linspace(-1, 1, 2 * 36).view(2, 1, 6, 6)
    memory.write(images.train.ids[:2], 0, values)
    assert memory.values.element_size() == size
    torch.testing.assert_close(memory.read(images.train.ids[:2], 0), values, rtol=0, atol=error)
    assert memory.read(images.train.ids[:2], 0).abs().max() == 1


def test_sizes_climb_as_torchs_own_sgd():
    slopes = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    sizes, twin = Sizes([0.1, 0.2, 0.0], 0.3, 0.9, 0.5), nn.Parameter(torch.tensor([0.1, 0.2, 0.0]))
    optimizer = torch.optim.SGD([twin], lr=0.3, momentum=0.9, weight_decay=0.5, maximize=False)
    for index, slope in enumerate(slopes):
        optimizer.param_groups[0]["lr"] = 0.3 * (1 - abs(2 * index / 5 - 1))
        twin.grad = -slope
        optimizer.step()
        sizes.climb(slope, index / 5)
    torch.testing.assert_close(sizes.values, twin.detach())
    assert (sizes.values - torch.tensor([0.1, 0.2, 0.0])).abs().min() > 0.01


def test_nothing_that_it_learns_is_the_optimisers(network, images, batch, context):
    model, defence = network(dropout=0.0, dtype=torch.float64), APART(THREAT, layers=("2",))
    defence.prepare(model, images, 0)
    own = replace(batch, ids=images.train.ids[:8])
    defence.loss(model, own, context(model, own)).value.backward()
    assert list(defence.parameters()) == []
    assert not any(buffer.requires_grad or buffer.grad is not None for buffer in defence.buffers())
    assert all(parameter.grad.abs().sum() > 0 for name, parameter in model.named_parameters() if name != "0.bias")
    made = defence._pending
    assert made.sizes.grad[0] > 0  # a step along the gradient raises the loss
    assert made.sizes.grad[1] != 0
    assert made.x_adv.grad.abs().sum() > 0


def test_its_figures_are_in_units_of_the_budget(network, images, batch, context):
    own = replace(batch, ids=images.train.ids[:8])
    for parametrisation, unit, inner in (("scaled", 1.0, 0.02), ("paper", 10.0, 0.5)):
        model, defence = network(dropout=0.0, dtype=torch.float64), APART(THREAT, parametrisation, layers=("2",))
        defence.prepare(model, images, 0)
        defence.sizes.values.copy_(torch.tensor([0.03, 0.04, 0.5]))
        logs = {name: float(value) for name, value in defence.loss(model, own, context(model, own)).logs.items()}
        assert logs == pytest.approx({"alpha": 0.03 * unit, "alpha_omega": 0.04 * unit, "alpha 2": inner})


def test_without_a_budget_it_is_standard_training_of_one_step(network, images, batch, context):
    """A share of 0, as at the beginning of a budget that grows."""
    model, defence = network(dropout=0.0, dtype=torch.float64), APART(THREAT)
    defence.prepare(model, images, 0)
    own = replace(batch, ids=images.train.ids[:8])
    place = context(model, own)
    place.scale = 0.0
    expected = F.cross_entropy(copy.deepcopy(model)(own.x), own.y)
    torch.testing.assert_close(defence.loss(model, own, place).value, expected)


@pytest.mark.parametrize("settings", [{"storage": "int8"}, {"storage": "float16", "layers": ("2", "5")}])
def test_what_is_learned_comes_back(settings, network, images, same, tmp_path):
    """Stopped in the second epoch, with augmentation: starts, sizes and their momentum to the last bit."""
    data, count = replace(images, augment=Augment(pad=1)), []

    def stop(done, figures):
        count.append(done)
        if len(count) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    def run(**options):
        defence = APART(THREAT, lr=0.1, first=0.2, **settings)
        options = {"epochs": 2, "batch_size": 12, "seed": 3, "validate_with": "none", "keep": "last", **options}
        return fit(network(), data, defence, **options), defence

    whole, learned = run()
    with pytest.raises(Interrupted):
        run(out=tmp_path / "run", progress=stop)
    again, back = run(out=tmp_path / "run", resume=True)
    same(again.model.state_dict(), whole.model.state_dict())
    same(back.state_dict(), learned.state_dict())
    assert {"memory.values", "sizes.values", "sizes.velocity"} == set(learned.state_dict())
    fresh = APART(THREAT, first=0.2, **settings)
    fresh.prepare(network(), data, 3)
    assert (fresh.memory.values != learned.memory.values).any()


def test_around_it_weights_may_be_moved(network, train):
    defence = APART(THREAT, lr=0.1)
    train(network(), AWP(defence, gamma=0.01))
    assert defence.sizes.velocity.abs().min() > 0
    assert defence.memory.values.abs().max() > 0.9


def test_residual_blocks_are_found(nets):
    model = nets.seeded(lambda: preactresnet18(classes=4, width=2))
    found = _layer_names(model, torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), "blocks")
    assert found == [f"layer{stage}.{block}.relu1" for stage in range(1, 5) for block in range(2)]


def test_a_network_without_blocks_is_told_so(network, images):
    for asked in ("blocks", ["blocks"]):  # a command line makes lists
        with pytest.raises(UserError, match="no class called Block"):
            APART(THREAT, layers=asked).prepare(network(), images, 0)
    with pytest.raises(UserError, match="no layer is called or matches '9'"):
        APART(THREAT, layers=("9",)).prepare(network(), images, 0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"threat": Threat(norm="l2", eps=1.0)}, "linf threat"),
        ({"threat": Threat(eps=0.0)}, "positive, finite eps"),
        ({"parametrisation": "none"}, "parametrisation must be one of scaled, paper"),
        ({"lr": -1.0}, "lr must be a finite number of 0 or more"),
        ({"layer_cap": float("inf")}, "layer_cap must be a finite number of 0 or more"),
        ({"momentum": 1.0}, "momentum must be a number in"),
        ({"storage": "int4"}, "storage must be one of float16, int8, float32"),
    ],
)
def test_what_means_nothing_is_refused(settings, told):
    with pytest.raises(UserError, match=told):
        APART(**settings)


def test_without_data_there_is_nothing_to_learn(network, single, context):
    model = network()
    with pytest.raises(UserError, match="call prepare with the data first"):
        APART().loss(model, single, context(model, single))


def test_it_learns_in_one_process(images, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(UserError, match="in 1 process; got 2: set devices to 1"):
        APART(THREAT).prepare(nn.Identity(), images, 0)


def test_it_trains_on_rows_of_features():
    x, y = np.random.default_rng(0).random((40, 5), dtype=np.float32), np.arange(40) % 2
    data = from_arrays("rows", (x[:32], y[:32]), (x[32:], y[32:]), classes=["0", "1"], box=None, provenance="", val=8)
    defence = APART(Threat(eps=0.1, box=None))
    fit(nn.Linear(5, 2), data, defence, epochs=1, batch_size=8, validate_with="none")
    assert defence.memory.values.shape == (24, 5)
    assert defence.memory.values.abs().max() > 0.9
