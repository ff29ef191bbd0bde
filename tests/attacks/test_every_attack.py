"""What holds for every registered attack and noise, by discovery; a new one is covered without a line here."""

import dataclasses
import re
import sys
import typing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attacks.members import UNDEFINED, made, make
from torch import nn

from buttress import registry
from buttress.attacks import PGD, Attack, Perturbation
from buttress.errors import UserError
from buttress.random import Random
from buttress.threat import Threat

NAMES = registry.attack.names()
# One of each family, for what the engine does around an attack.
FAMILIES = ["apgd", "autoattack", "cw", "eot", "fab", "gaussian", "hopskipjump", "one-pixel", "pgd", "square"]


def inputs(n, shape, dtype, box, seed):
    """Random inputs, some at the very edges of the box."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (-2.0, 2.0) if box is None else box
    x = low + (high - low) * torch.rand(n, *shape, dtype=dtype, generator=generator)
    edge = torch.rand(n, *shape, generator=generator)
    x = torch.where(edge < 0.1, low, torch.where(edge > 0.9, high, x)).clamp(low, high)
    return x, torch.randint(4, (n,), generator=generator)


def test_the_published_ones_are_there():
    assert {"fgsm", "bim", "pgd", "mi-fgsm", "apgd"} <= set(NAMES)
    assert {"gaussian", "uniform", "salt", "pepper", "salt-and-pepper", "speckle"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=settings.default.max_examples // 4)
@given(
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.sampled_from([0.0, 1e-30, 1e-7, 0.03, 0.5, 7.0, float("inf")]),
    box=st.sampled_from([None, (0.0, 1.0), (-0.1, 0.7)]),
    shape=st.sampled_from([(5,), (1, 6, 6)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    n=st.sampled_from([0, 1, 2, 5]),
    target=st.sampled_from([None, None, "least_likely", "random", "given"]),
    search=st.sampled_from(["full", "first"]),
    restarts=st.sampled_from([1, 2]),
    seed=st.integers(0, 1000),
)
def test_inside_the_threat_and_nothing_of_the_callers_changed(
    nets, name, norm, eps, box, shape, dtype, n, target, search, restarts, seed
):
    if eps == float("inf") and box is None:
        box = (0.0, 1.0)
    threat = Threat(norm=norm, eps=eps, box=box)
    model = nets.awkward(torch.Size(shape).numel(), dtype=dtype)
    attack = made(name, threat, nets.awkward(torch.Size(shape).numel(), seed=1, dtype=dtype), restarts=restarts)
    if attack is None:
        return
    x, y = inputs(n, shape, dtype, box, seed)
    target = (y + 1) % 4 if target == "given" else target
    before, x_before, y_before = nets.state(model), x.clone(), y.clone()

    try:
        result = attack(model, x, y, target=target, seed=seed, search=search)
    except UserError as refusal:  # some need images
        if not re.search(f"image|{UNDEFINED.pattern}", str(refusal)):
            raise
        return

    nets.assert_state(model, before)
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)
    assert result.x_adv.shape == x.shape
    assert result.x_adv.dtype == dtype
    assert not result.x_adv.requires_grad
    within = threat if isinstance(attack, Attack) else Threat(norm=norm, eps=float("inf"), box=box)
    assert within.contains(result.x_adv, x).all()
    for field in ("success", "loss", "distance", "forwards", "backwards"):
        assert getattr(result, field).shape == (n,)
    again = attack(model, x, y, target=target, seed=seed, search=search)
    for field in dataclasses.fields(result):
        mine, other = getattr(result, field.name), getattr(again, field.name)
        assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other


@pytest.mark.parametrize("name", NAMES)
def test_every_member_is_defined_for_some_threat_and_finds_something_there(nets, name):
    """Steep and linear: nearly any step that is no accident beats it."""
    weight = 50 * torch.randn(3, 36, generator=torch.Generator().manual_seed(0))
    model = nets.linear(weight, weight.sum(1) * -0.5)
    x = 0.5 + 0.05 * torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    threats = [Threat(norm=norm, eps=eps) for norm in ("linf", "l2", "l1") for eps in (0.5, 4.0, float("inf"))]
    attacks = [made(name, threat, model, queries=200, steps=20, std=0.5, amount=0.9, eps=0.5) for threat in threats]
    assert any(attack is not None and bool(attack(model, x, y).success.any()) for attack in attacks)


@pytest.mark.parametrize("name", [name for name in NAMES if issubclass(registry.attack.get(name), Attack)])
def test_a_search_for_the_first_success_ends_with_it(nets, name):
    """On a model that nearly any step beats: no gradient more is computed, and no success is missed."""
    weight = 50 * torch.randn(3, 36, generator=torch.Generator().manual_seed(0))
    model = nets.linear(weight, weight.sum(1) * -0.5)
    x = 0.5 + 0.05 * torch.randn(8, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    for norm in ("linf", "l2", "l1"):
        attack = made(name, Threat(norm=norm, eps=30.0), model, queries=60, steps=10)
        if attack is not None:
            first, full = (attack(model, x, model(x).argmax(1), search=search) for search in ("first", "full"))
            assert torch.equal(first.success, full.success)
            assert (first.backwards <= full.backwards).all()


@pytest.mark.parametrize("name", NAMES)
def test_without_eps_and_box_it_says_what_is_missing_or_does_without(nets, name):
    if issubclass(registry.attack.get(name), Attack):
        x, y = torch.zeros(2, 1, 6, 6), torch.zeros(2, dtype=torch.long)
        for norm in ("linf", "l2"):
            try:
                attack = make(name, Threat(norm=norm, eps=float("inf"), box=None), nets.awkward(36))
                result = attack(nets.awkward(36), x, y)
            except UserError as refusal:
                if not UNDEFINED.search(str(refusal)):
                    raise
            else:
                assert result.x_adv.isfinite().all()


@pytest.mark.representatives(name=FAMILIES)
@pytest.mark.parametrize("search", ["full", "first"])
@pytest.mark.parametrize("kth", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_after_an_exception_in_a_forward_the_model_is_as_before(nets, name, kth, search):
    model = nets.awkward(36)
    passes = []

    def fail(module, args):
        passes.append(1)
        if len(passes) == kth:
            raise KeyError("the cable was cut")

    hook = model.register_forward_pre_hook(fail)
    before = nets.state(model)
    x, _ = inputs(6, (1, 6, 6), torch.float32, (0.0, 1.0), 0)
    y = nets.awkward(36).eval()(x).argmax(1)  # right, so that a search for the first success goes on
    threats = [Threat(eps=1e-4), Threat(norm="l2", eps=1e-4), Threat(norm="linf", eps=float("inf"))]
    attacks = [made(name, threat, nets.awkward(36, seed=1), std=1e-4, eps=1e-4, amount=0.0) for threat in threats]
    try:
        next(attack for attack in attacks if attack is not None)(model, x, y, search=search)
    except KeyError:
        assert len(passes) == kth
    else:
        assert len(passes) < kth  # a noise asks once or twice
    hook.remove()
    nets.assert_state(model, before)


@pytest.mark.representatives(norm=["linf"])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", NAMES)
def test_an_input_fares_alike_in_any_batch(nets, name, norm, monkeypatch):
    """What is found, and what it costs.

    Integer weights, float64 and the margin loss: every gradient is exact whatever the batch looks like.
    """
    order = torch.rand(4, 16, generator=torch.Generator().manual_seed(5)).argsort(0)
    model = nets.linear(torch.tensor([-3.0, -1.0, 2.0, 5.0], dtype=torch.float64)[order])  # no two in a column equal
    x, y = inputs(7, (1, 4, 4), torch.float64, (0.0, 1.0), 3)
    y[:5] = model(x[:5]).argmax(1)  # and two that beat the model as they are
    ids = torch.tensor([100, 3, 57, 2**40, 8, 0, 11])
    threat = Threat(norm=norm, eps=0.3)
    attack = made(name, threat, model, loss="margin", restarts=2, step_size=0.02, std=0.4, amount=0.4, samples=3)
    if attack is None or not getattr(attack, "by_input", True):  # a universal perturbation is of its batch
        return
    drawn = []
    bits = Random._bits
    monkeypatch.setattr(Random, "_bits", lambda self, shape: drawn.append(1) or bits(self, shape))
    whole = attack(model, x, y, ids=ids, seed=9)
    others = [attack(model, x, y, ids=ids + 1, seed=9).x_adv, attack(model, x, y, ids=ids, seed=10).x_adv]
    if not drawn:
        assert all(torch.equal(other, whole.x_adv) for other in others)
    elif name in ("pgd", "apgd", "fgsm-rs", "square") or not isinstance(attack, Attack):
        assert not any(torch.equal(other, whole.x_adv) for other in others)
    order = torch.tensor([6, 2, 0, 5, 1, 4, 3])
    for part in (order, order[:3], order[3:], *order[:3, None]):
        other = attack(model, x[part], y[part], ids=ids[part], seed=9)
        torch.testing.assert_close(other.x_adv, whole.x_adv[part], rtol=0, atol=1e-12)
        for field in ("success", "forwards", "backwards"):
            assert torch.equal(getattr(other, field), getattr(whole, field)[part])
    batched = attack(model, x, y, ids=ids, seed=9, batch_size=2)
    torch.testing.assert_close(batched.x_adv, whole.x_adv, rtol=0, atol=1e-12)
    first = attack(model, x, y, ids=ids, seed=9, search="first")
    for part in (order[:3], *order[:3, None]):
        other = attack(model, x[part], y[part], ids=ids[part], seed=9, search="first")
        for field in ("success", "forwards", "backwards"):
            assert torch.equal(getattr(other, field), getattr(first, field)[part])
    targets = attack(model, x, y, ids=ids, seed=9, target="random").success
    assert torch.equal(
        attack(model, x[order], y[order], ids=ids[order], seed=9, target="random").success, targets[order]
    )


def somewhere(name, nets, features):
    """The member under the first threat that it knows."""
    threats = [Threat(norm=norm, eps=eps) for norm in ("linf", "l2", "l1") for eps in (8 / 255, float("inf"))]
    return next(a for t in threats if (a := made(name, t, nets.awkward(features, seed=1))) is not None)


@pytest.mark.representatives(name=FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_train_mode_keeps_buffers_and_uses_the_batch(nets, name):
    model = nets.awkward(36)
    seen = []
    model[2].register_forward_hook(lambda module, args, output: seen.append((module.training, output.detach())))
    before = nets.state(model)
    x, y = inputs(6, (1, 6, 6), torch.float32, (0.0, 1.0), 1)
    somewhere(name, nets, 36)(model, x, y, mode="train")
    nets.assert_state(model, before)
    assert all(training for training, _ in seen)
    for _, output in seen:  # normalised by its own batch: mean 0
        torch.testing.assert_close(output.mean(0), torch.zeros(8), rtol=0, atol=1e-5)


@pytest.mark.representatives(name=FAMILIES)
@pytest.mark.parametrize("name", NAMES)
def test_crafting_gives_the_points_of_a_full_search(nets, name):
    x, y = inputs(6, (1, 6, 6), torch.float32, (0.0, 1.0), 1)
    attack, model = somewhere(name, nets, 36), nets.awkward(36)
    assert torch.equal(attack.craft(model, x, y, seed=3), attack(model, x, y, seed=3).x_adv)
    assert attack.craft(model, x[:0], y[:0]).shape == (0, 1, 6, 6)


@pytest.mark.parametrize("shape", ["one logit", 2, 3, 1000])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:.*DLR needs")
def test_models_of_one_logit_and_of_few_and_many_classes(nets, name, shape):
    generator = torch.Generator().manual_seed(2)
    model = nets.linear(torch.randn(1 if shape == "one logit" else shape, 36, generator=generator))
    x, _ = inputs(6, (1, 6, 6), torch.float32, (0.0, 1.0), 1)
    y = (model(x).squeeze(1) > 0).long() if shape == "one logit" else model(x).argmax(1)
    threats = [Threat(norm=norm, eps=2.0) for norm in ("linf", "l2")]
    attack = next(a for t in threats if (a := made(name, t, model)) is not None)
    for target in (None, "random"):
        result = attack(model, x, y, target=target)
        assert result.x_adv.isfinite().all()
        assert result.success.shape == (6,)


@pytest.mark.parametrize("name", NAMES)
def test_its_annotations_can_be_read_from_its_own_file(name):
    """As the command line reads them: what a base class names need not be imported there."""
    member = registry.attack.get(name)
    kinds = typing.get_type_hints(member, vars(sys.modules[member.__module__]))
    assert set(kinds) >= {field.name for field in dataclasses.fields(member)}


def others_of(value, kind):
    """Other values that a field of this type might hold."""
    options = [option for part in (kind, *typing.get_args(kind)) for option in typing.get_args(part)]
    named = [option for option in options if isinstance(option, str)]
    found = [option for option in named if option != value]
    if isinstance(value, Threat):
        found += [dataclasses.replace(value, eps=0.2)]
    elif isinstance(value, Perturbation):
        found += [PGD(steps=17)]
    elif isinstance(value, nn.Module):
        found += [nn.Linear(36, 4)]
    elif isinstance(value, bool):
        found += [not value]
    elif isinstance(value, int | float):
        found += [value + 1, value / 2, value * 2, value - 1, 0.5]
    elif isinstance(value, tuple | list):
        found += [(0.0, 2.0), ("fc",), (nn.Linear(36, 4),)]
    return [*found, "margin", "dlr", 1, 256, 0.5, (1, 2), nn.Linear(36, 4), torch.zeros(36), abs]


@pytest.mark.parametrize("name", NAMES)
def test_fingerprints_tell_every_field(nets, name):
    attack, again = somewhere(name, nets, 36), somewhere(name, nets, 36)
    assert attack.fingerprint() == again.fingerprint()
    kinds = typing.get_type_hints(type(attack))
    prints = {attack.fingerprint()}
    for field in dataclasses.fields(attack):
        value = getattr(attack, field.name)
        for other in others_of(value, kinds[field.name]):
            try:
                digest = dataclasses.replace(attack, **{field.name: other}).fingerprint()
            except (UserError, TypeError, ValueError, AttributeError):
                continue
            if digest != attack.fingerprint():
                prints.add(digest)
                break
    assert len(prints) == 1 + len(dataclasses.fields(attack))
