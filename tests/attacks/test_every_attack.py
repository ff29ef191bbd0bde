"""What holds for every registered attack and noise, by discovery."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress import registry
from buttress.attacks import Attack
from buttress.errors import UserError
from buttress.threat import Threat

NAMES = registry.attack.names()


def make(name, threat, **wanted):
    """The member, small and cheap, under this threat."""
    member = registry.attack.get(name)
    known = {field.name for field in dataclasses.fields(member)}
    wanted = {"threat": threat, "box": threat.box, "steps": 3, **wanted}
    return member(**{key: value for key, value in wanted.items() if key in known})


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
@settings(max_examples=40, deadline=None, derandomize=True)
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
    try:
        attack = make(name, threat, restarts=restarts)
    except UserError:  # some are not defined for every threat
        assert eps == float("inf") or norm != "linf"
        return
    x, y = inputs(n, shape, dtype, box, seed)
    target = (y + 1) % 4 if target == "given" else target
    model = nets.awkward(x[0:1].numel() or torch.Size(shape).numel(), dtype=dtype)
    before, x_before, y_before = nets.state(model), x.clone(), y.clone()

    result = attack(model, x, y, target=target, seed=seed, search=search)

    nets.assert_state(model, before)
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)
    assert result.x_adv.shape == x.shape
    assert result.x_adv.dtype == dtype
    assert not result.x_adv.requires_grad
    within = threat if isinstance(attack, Attack) else Threat(norm=norm, eps=float("inf"), box=box)
    assert within.contains(result.x_adv, x).all()
    for field in ("beaten", "loss", "distance", "forwards", "backwards"):
        assert getattr(result, field).shape == (n,)
    again = attack(model, x, y, target=target, seed=seed, search=search)
    for field in dataclasses.fields(result):
        mine, other = getattr(result, field.name), getattr(again, field.name)
        assert torch.equal(mine, other) if isinstance(mine, torch.Tensor) else mine == other


@pytest.mark.parametrize("name", NAMES)
def test_without_eps_and_box_it_says_what_is_missing(nets, name):
    if "threat" in registry.attack.get(name).__dataclass_fields__:
        with pytest.raises(UserError, match=r"infinite eps without a box|finite eps or a box|eps finite"):
            make(name, Threat(eps=float("inf"), box=None))(
                nets.awkward(5), torch.zeros(2, 5), torch.zeros(2, dtype=torch.long)
            )


@pytest.mark.parametrize("search", ["full", "first"])
@pytest.mark.parametrize("kth", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_after_an_exception_in_a_forward_the_model_is_as_before(nets, name, kth, search):
    model = nets.awkward(5)
    passes = []

    def fail(module, args):
        passes.append(1)
        if len(passes) == kth:
            raise KeyError("the cable was cut")

    hook = model.register_forward_pre_hook(fail)
    before = nets.state(model)
    x, _ = inputs(6, (5,), torch.float32, (0.0, 1.0), 0)
    y = nets.awkward(5).eval()(x).argmax(1)  # right, so that a search for the first success goes on
    try:
        make(name, Threat(eps=1e-4), std=1e-4, eps=1e-4, amount=0.0)(model, x, y, search=search)
    except KeyError:
        assert len(passes) == kth
    else:
        assert len(passes) < kth  # a noise asks once or twice
    hook.remove()
    nets.assert_state(model, before)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("name", NAMES)
def test_an_input_fares_alike_in_any_batch(nets, name, norm):
    """Integer weights, float64 and the margin loss: every gradient is exact whatever the batch looks like."""
    order = torch.rand(4, 12, generator=torch.Generator().manual_seed(5)).argsort(0)
    model = nets.linear(torch.tensor([-3.0, -1.0, 2.0, 5.0], dtype=torch.float64)[order])  # no two in a column equal
    x, y = inputs(7, (12,), torch.float64, (0.0, 1.0), 3)
    ids = torch.tensor([100, 3, 57, 2**40, 8, 0, 11])
    try:
        threat = Threat(norm=norm, eps=0.3)
        attack = make(name, threat, loss="margin", restarts=2, step_size=0.02, std=0.4, amount=0.4)
    except UserError:  # some are defined in one norm only
        assert norm != "linf"
        return
    whole = attack(model, x, y, ids=ids, seed=9)
    if name not in ("fgsm", "bim", "mi-fgsm"):  # these draw nothing
        assert not torch.equal(attack(model, x, y, ids=ids + 1, seed=9).x_adv, whole.x_adv)
        assert not torch.equal(attack(model, x, y, ids=ids, seed=10).x_adv, whole.x_adv)
    order = torch.tensor([6, 2, 0, 5, 1, 4, 3])
    for part in (order, order[:3], order[3:], order[:1]):
        other = attack(model, x[part], y[part], ids=ids[part], seed=9)
        close = {"rtol": 0, "atol": 0 if norm == "linf" or "threat" not in vars(attack) else 1e-12}
        torch.testing.assert_close(other.x_adv, whole.x_adv[part], **close)
        assert torch.equal(other.beaten, whole.beaten[part])
    batched = attack(model, x, y, ids=ids, seed=9, batch_size=2)
    torch.testing.assert_close(batched.x_adv, whole.x_adv, rtol=0, atol=1e-12)
    targets = attack(model, x, y, ids=ids, seed=9, target="random").beaten
    assert torch.equal(
        attack(model, x[order], y[order], ids=ids[order], seed=9, target="random").beaten, targets[order]
    )


@pytest.mark.parametrize("name", NAMES)
def test_train_mode_keeps_buffers_and_uses_the_batch(nets, name):
    model = nets.awkward(5)
    seen = []
    model[2].register_forward_hook(lambda module, args, output: seen.append((module.training, output.detach())))
    before = nets.state(model)
    x, y = inputs(6, (5,), torch.float32, (0.0, 1.0), 1)
    make(name, Threat())(model, x, y, mode="train")
    nets.assert_state(model, before)
    assert all(training for training, _ in seen)
    for _, output in seen:  # normalised by its own batch: mean 0
        torch.testing.assert_close(output.mean(0), torch.zeros(8), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_crafting_gives_the_points_of_a_full_search(nets, name):
    x, y = inputs(6, (5,), torch.float32, (0.0, 1.0), 1)
    attack, model = make(name, Threat()), nets.awkward(5)
    assert torch.equal(attack.craft(model, x, y, seed=3), attack(model, x, y, seed=3).x_adv)
    assert attack.craft(model, x[:0], y[:0]).shape == (0, 5)


@pytest.mark.parametrize("name", NAMES)
def test_fingerprints_tell_every_field(name):
    attack = make(name, Threat())
    assert attack.fingerprint() == make(name, Threat()).fingerprint()
    by_name = {"step_size": 0.01, "start": "zero", "loss": "margin", "box": (0.0, 2.0)}
    by_type = {Threat: lambda threat: Threat(eps=0.2), int: lambda number: number + 1, float: lambda number: number / 2}
    prints = {attack.fingerprint()}
    for field in dataclasses.fields(attack):
        value = getattr(attack, field.name)
        other = by_name[field.name] if field.name in by_name else by_type[type(value)](value)
        prints.add(dataclasses.replace(attack, **{field.name: other}).fingerprint())
    assert len(prints) == 1 + len(dataclasses.fields(attack))
