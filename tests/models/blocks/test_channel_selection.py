"""Channel selection against autograd and by hand: relevances, masks, gradients, the joint loss and its variants."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from buttress import models
from buttress.attacks import PGD, Variant
from buttress.attacks.composed.variant import variants_of
from buttress.defences import AdversarialTraining
from buttress.defences.base.step_context import Batch, StepContext
from buttress.errors import UserError
from buttress.models.blocks.channel_selection import (
    ChannelSelection,
    ChannelSuppression,
    LinearProbe,
    Mask,
    NonlinearProbe,
)
from buttress.threat import Threat

SMALL = {
    "cifs-resnet18": {"width": 4, "channels": 1},
    "cas-resnet18": {"width": 4, "channels": 1},
    "cifs-wrn": {"depth": 16, "width": 1, "channels": 1},
    "cifs-cnn": {"width": 4},
}


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(name="cifs-cnn", **options):
    return models.create(name, seed=0, **{**SMALL[name], **options}).eval()


@pytest.fixture(scope="module")
def batch():
    random = torch.Generator().manual_seed(1)
    return torch.rand(5, 1, 12, 12, generator=random), torch.tensor([3, 1, 4, 1, 5])


# -- probes and relevances ---------------------------------------------------------------------------------------------


def test_the_linear_probes_relevance_is_its_weights():
    probe, pooled, classes = LinearProbe(6, 4), torch.rand(3, 6), torch.tensor([[0, 1], [2, 3], [1, 1]])
    w = probe.fc.weight
    assert torch.equal(probe.relevance(pooled, classes).sum(1), torch.stack([w[0] + w[1], w[2] + w[3], 2 * w[1]]))


@pytest.mark.parametrize("make", [lambda: LinearProbe(6, 4), lambda: NonlinearProbe(6, 4, 9)])
def test_a_relevance_is_the_gradient_summed_over_space_and_so_is_its_own_gradient(make):
    probe, z, classes = make().double(), features(3, 6, 5, 4), torch.tensor([[0, 1], [2, 3], [3, 0]])
    start = z.clone().requires_grad_()
    chosen = probe(start.mean((2, 3))).gather(1, classes).sum()
    (gradient,) = torch.autograd.grad(chosen, start, create_graph=True)
    theirs, ours = gradient.sum((2, 3)), probe.relevance(z.mean((2, 3)), classes).sum(1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    weights = [p for name, p in probe.named_parameters() if name not in ("fc.bias", "fc2.bias")]
    twice = [torch.autograd.grad(g.square().sum(), weights) for g in (ours, theirs)]
    torch.testing.assert_close(*twice, rtol=1e-10, atol=1e-14)
    assert all(g.abs().sum() > 0 for g in twice[0])


def test_the_nonlinear_probe_in_closed_form():
    probe, pooled = NonlinearProbe(6, 4, 9).double(), features(2, 6)
    a = pooled @ probe.fc1.weight.T + probe.fc1.bias
    torch.testing.assert_close(probe(pooled), F.softplus(a, 5) @ probe.fc2.weight.T + probe.fc2.bias)
    slope = torch.sigmoid(5 * a)
    expected = torch.stack([((probe.fc2.weight[1] + probe.fc2.weight[3]) * s) @ probe.fc1.weight for s in slope])
    torch.testing.assert_close(probe.relevance(pooled, torch.tensor([[1, 3], [3, 1]])).sum(1), expected)


# -- masks -------------------------------------------------------------------------------------------------------------

G = torch.tensor([[[0.5, -1.0, 2.0], [0.25, -0.5, -3.0]]], dtype=torch.float64)  # sums: 0.75, -1.5, -1


def by_hand(function):
    return [function(g) for g in (0.75, -1.5, -1.0)]


def soft(values):
    e = [math.exp(v) for v in values]
    return [v / sum(e) for v in e]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, soft([0.75, -1.5, -1.0])),
        ({"scale": "k", "sharpness": 0.5}, [2 * v for v in soft([0.375, -0.75, -0.5])]),
        ({"scale": "channels"}, [3 * v for v in soft([0.75, -1.5, -1.0])]),
        ({"name": "softmax-abs", "scale": 2}, [2 * v for v in soft([0.75, 1.5, 1.0])]),
        (
            {"name": "softmax-sum"},
            [a + b for a, b in zip(soft([0.5, -1.0, 2.0]), soft([0.25, -0.5, -3.0]), strict=True)],
        ),
        ({"name": "sigmoid", "sharpness": 2.0, "shift": 3.0}, by_hand(lambda g: 1 / (1 + math.exp(-2 * (g - 3))))),
        ({"name": "softplus", "sharpness": 5.0}, by_hand(lambda g: math.log1p(math.exp(5 * g)) / 5)),
        (
            {"name": "softplus", "sharpness": 10.0, "power": 0.5},
            by_hand(lambda g: math.sqrt(math.log1p(math.exp(10 * g)) / 10)),
        ),
        ({"name": "relu"}, by_hand(lambda g: max(g, 0.0))),
    ],
)
def test_masks_by_hand(settings, expected):
    mask = Mask(**settings)(G)
    torch.testing.assert_close(mask, torch.tensor([expected], dtype=torch.float64), rtol=1e-6, atol=1e-9)
    assert (mask >= 0).all()


def test_softmax_masks_sum_to_their_scale():
    relevance = features(7, 2, 11)
    for settings, total in (({}, 1), ({"scale": "k"}, 2), ({"scale": "channels"}, 11), ({"name": "softmax-sum"}, 2)):
        torch.testing.assert_close(Mask(**settings)(relevance).sum(1), torch.full((7,), float(total)).double())


def test_a_root_of_a_softplus_that_underflows_has_a_finite_gradient():
    relevance = torch.tensor([[[-50.0, 1.0]]], requires_grad=True)
    mask = Mask("softplus", sharpness=10.0, power=0.5)(relevance)
    (gradient,) = torch.autograd.grad(mask.sum(), relevance)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mask": "softmin"}, "mask must be one of softmax, .*; got 'softmin'"),
        ({"sharpness": 0}, "sharpness must be a finite number above 0; got 0"),
        ({"shift": float("nan")}, "shift must be a finite number; got nan"),
        ({"scale": "C"}, "scale, unless it is k or channels, must be a finite number above 0; got 'C'"),
        ({"k": 11}, "k, the classes that count, must be at most the 10 that there are; got 11"),
        ({"beta": -1}, "beta must be a finite number of 0 or more; got -1"),
        ({"detach": "yes"}, "detach must be True or False; got 'yes'"),
        ({"selection": "some"}, "selection must be one of none, cifs, cas; got 'some'"),
    ],
)
def test_options_that_make_no_sense_are_told_in_one_line(options, line):
    with pytest.raises(UserError, match=line):
        models.create("cifs-cnn", **options)


# -- the class set -----------------------------------------------------------------------------------------------------


def fixed(selection):
    """Logits that are the bias: classes rank 2, 0, 1, 3."""
    with torch.no_grad():
        selection.probe.fc.bias.copy_(torch.tensor([2.0, 1.0, 3.0, 0.0]) * 100)
    return selection


def test_the_classes_that_count():
    selection, z = fixed(ChannelSelection(5, 4)), torch.rand(3, 5, 2, 2)
    w, y = selection.probe.fc.weight, torch.tensor([3, 0, 2])

    def masked(relevance):
        return z * relevance.softmax(1)[:, :, None, None]

    likely = masked((w[2] + w[0]).expand(3, 5))
    labelled = masked(torch.stack([w[3] + w[0], w[0] + w[0], w[2] + w[0]]))
    torch.testing.assert_close(selection.eval()(z)[0], likely)
    torch.testing.assert_close(selection.eval()(z, y)[0], likely)  # labels count in training only
    torch.testing.assert_close(selection.train()(z)[0], likely)
    torch.testing.assert_close(selection.train()(z, y)[0], labelled)


def test_cas_takes_one_row_of_weights_with_its_signs():
    selection, z, y = fixed(ChannelSuppression(5, 4)), torch.rand(3, 5, 2, 2), torch.tensor([3, 0, 1])
    w = selection.probe.fc.weight
    torch.testing.assert_close(selection.eval()(z, y)[0], z * w[2][:, None, None])
    torch.testing.assert_close(selection.train()(z, y)[0], z * w[y][:, :, None, None])
    assert (w[2] < 0).any()


# -- gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("detach", [True, False])
def test_a_detached_mask_gives_no_gradient_to_the_features(detach):
    """Where only the mask hangs on the input, being multiplied with a constant, the gradient is zero if detached."""
    selection = ChannelSelection(5, 4, probe="nonlinear", hidden=6).double()
    pooled = features(2, 5).requires_grad_()
    mask = selection.mask(pooled, selection.probe(pooled).detach(), None, detach)
    loss = (mask * features(2, 5, seed=3)).sum()
    (weights,) = torch.autograd.grad(loss, selection.probe.fc1.weight, retain_graph=True)
    assert weights.abs().sum() > 0
    (gradient,) = torch.autograd.grad(loss, pooled, allow_unused=True)
    assert (gradient is None) == detach
    if not detach:
        assert gradient.abs().sum() > 0


def test_the_input_gradient_is_that_of_a_constant_mask():
    selection, z = ChannelSelection(5, 4, probe="nonlinear", hidden=6).double().eval(), features(2, 5, 3, 3)
    start = z.clone().requires_grad_()
    out, logits = selection(start)
    (gradient,) = torch.autograd.grad(out.sum(), start, retain_graph=True)
    mask = selection.mask(z.mean((2, 3)), logits, None, True)
    torch.testing.assert_close(gradient, mask[:, :, None, None].expand_as(z))
    (through,) = torch.autograd.grad(logits.sum(), start)  # the probe's own path stays
    assert through.abs().sum() > 0


@pytest.mark.parametrize("name", SMALL)
def test_the_final_loss_reaches_the_probes_through_their_masks(name, batch):
    model = small(name).train()
    model(batch[0]).logsumexp(1).sum().backward()
    probes = [p for path, p in model.named_parameters() if ".probe." in path and path.endswith("weight")]
    assert len(probes) >= 2
    assert all(p.grad.abs().sum() > 0 for p in probes)


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "twin"), [("cifs-resnet18", "resnet18"), ("cas-resnet18", "resnet18"), ("cifs-wrn", "wrn")]
)
def test_the_other_weights_have_the_names_and_places_of_the_plain_twin(name, twin, batch):
    model, plain = small(name), models.create(twin, seed=4, **SMALL[name]).eval()
    own = [key for key in model.state_dict() if key.startswith("selections.")]
    assert set(model.state_dict()) - set(own) == set(plain.state_dict())
    missing = model.load_state_dict(plain.state_dict(), strict=False)
    assert missing.missing_keys == own
    for select in model.selections:  # masks of 1
        select.mask = lambda pooled, *others: torch.ones_like(pooled)
    torch.testing.assert_close(model(batch[0]), plain(batch[0]))


def test_the_plain_cnn_is_the_one_with_masks_of_1(batch):
    model, plain = small(), small(selection="none")
    model.load_state_dict(plain.state_dict(), strict=False)
    for select in model.selections:
        select.mask = lambda pooled, *others: torch.ones_like(pooled)
    torch.testing.assert_close(model(batch[0]), plain(batch[0]))
    logits, auxiliary = plain.forward_with_auxiliary(*batch)
    assert torch.equal(logits, plain(batch[0]))
    assert auxiliary == 0
    assert plain.attack_variants() == {}


def test_probes_are_nonlinear_but_for_the_last():
    for name, widths, hidden in (("cifs-resnet18", (512, 512), 128), ("cifs-wrn", (640, 640), 240)):
        with torch.device("meta"):
            first, last = models.create(name).selections
        assert first.probe.fc1.weight.shape == (hidden, widths[0])
        assert last.probe.fc.weight.shape == (10, widths[1])
    with torch.device("meta"):
        assert models.create("cifs-wrn", depth=10).selections[0].probe.fc1.in_features == 320


def test_a_wide_network_with_one_block_a_stage_runs(batch):
    model = small("cifs-wrn", depth=10).train()
    logits, auxiliary = model.forward_with_auxiliary(*batch)
    assert logits.shape == (5, 10)
    (logits.sum() + auxiliary).backward()
    with pytest.raises(UserError, match=r"depth must be 6 n \+ 4"):
        models.create("cifs-wrn", depth=12)


@pytest.mark.parametrize("name", SMALL)
def test_the_joint_loss(name, batch):
    """At beta 2 the published one; at another its ratio."""
    x, y = batch
    for beta in (2.0, 0.5):
        model = small(name, beta=beta).train()
        state = copy.deepcopy(model)
        logits, auxiliary = model.forward_with_auxiliary(x, y)
        final, probes = state.answers(x, y)
        ce = [F.cross_entropy(p, y) for p in (final, *probes)]
        published = 3 / (beta + 1) * (ce[0] + beta / 2 * (ce[1] + ce[2]))
        torch.testing.assert_close((F.cross_entropy(logits, y) + auxiliary) * 3 / (beta + 1), published)


def test_adversarial_training_minimises_the_joint_loss(batch):
    x, y = batch
    model = small().train()
    state = copy.deepcopy(model)
    context = StepContext(model, Batch(x, y, torch.arange(5)))
    loss = AdversarialTraining(PGD(threat=Threat(eps=0.0), steps=1)).loss(model, context.batch, context)
    final, (first, last) = state.answers(x, y)
    joint = sum(F.cross_entropy(p, y) for p in (final, first, last))
    torch.testing.assert_close(loss.value + sum(context.auxiliary), joint)


@pytest.mark.parametrize("name", SMALL)
def test_networks_do_without_labels_can_be_copied_and_run_as_they_are_asked(name, batch):
    model, x = small(name), batch[0]
    expected = model(x)
    with torch.no_grad():
        assert torch.equal(model(x), expected)
    torch.testing.assert_close(model(x[:1]), expected[:1], rtol=1e-4, atol=1e-5)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(x), expected)
    assert model.double()(x.double()).dtype == torch.float64
    model.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).isfinite().all()
        logits, auxiliary = model.train().forward_with_auxiliary(*batch)
        assert (logits.sum() + auxiliary).isfinite()


# -- variants ----------------------------------------------------------------------------------------------------------


def test_the_variants_there_are():
    sweep = {f"joint beta {beta:g}" for beta in (0.1, 1, 10, 100)}
    assert set(small().attack_variants()) == {"joint", "probes only", "not detached", *sweep}
    assert set(small(detach=False).attack_variants()) == {"joint", "probes only", *sweep}
    assert set(small(selection="cas", beta=0.5).attack_variants()) == {"joint", "probes only", "joint beta 2", *sweep}


def test_minus_the_output_of_joint_is_the_joint_loss(batch):
    x, y = batch
    model = small(beta=1.5)
    final, first, last = (F.cross_entropy(p, y, reduction="none") for p in flat(model.answers(x)))
    variants = variants_of(model)
    for name, beta in (("joint", 1.5), ("joint beta 10", 10.0)):
        torch.testing.assert_close(-variants[name](x)[range(5), y], final + beta / 2 * (first + last))
    torch.testing.assert_close(-variants["probes only"](x)[range(5), y], (first + last) / 2)


def flat(answers):
    return [answers[0], *answers[1]]


def test_a_saturated_joint_output_still_has_a_gradient(batch):
    model = small()
    with torch.no_grad():
        model.linear.weight *= 1e4
        model.linear.bias[0] = 30.0
    x = batch[0].clone().requires_grad_()
    logits = model(x).detach()
    y = logits.argmax(1)
    q = variants_of(model)["joint beta 0.1"](x)
    (gradient,) = torch.autograd.grad(q[range(5), y].sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.abs().sum((1, 2, 3)) > 0).all()


def test_not_detached_answers_alike_with_another_gradient(batch):
    model, (x, y) = small(), batch
    gradients = []
    for network in (model, variants_of(model)["not detached"]):
        start = x.clone().requires_grad_()
        logits = network(start)
        assert torch.equal(logits, model(x))
        gradients.append(torch.autograd.grad(F.cross_entropy(logits, y), start)[0])
    assert not torch.allclose(*gradients, rtol=1e-3, atol=0)
    there = small(detach=False)
    there.load_state_dict(model.state_dict())
    start = x.clone().requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(F.cross_entropy(there(start), y), start)[0], gradients[1])


def test_variants_are_made_of_the_live_weights_and_leave_no_trace(batch):
    model = small()
    before = list(model.state_dict())
    variants = variants_of(model)
    assert list(model.state_dict()) == before
    with torch.no_grad():
        model.linear.weight.mul_(-1.0)
    torch.testing.assert_close(variants["not detached"](batch[0]), model(batch[0]))


@pytest.mark.parametrize("precision", ["fp32", "folded", "twin"])
def test_pgd_on_the_network_and_on_every_variant(precision, batch):
    model, x = small(), batch[0]
    y, threat = model(x).argmax(1), Threat(eps=0.3)
    inside = PGD(threat=threat, steps=5)
    plain = inside(model, x, y, precision=precision)
    assert (plain.loss >= F.cross_entropy(model(x), y, reduction="none")).all()
    joint = PGD(threat=threat, steps=5, loss="negative_logit")
    for name in variants_of(model):
        found = Variant(attack=joint, variant=name)(model, x, y, precision=precision)
        assert threat.contains(found.x_adv, x).all()
        assert torch.equal(found.success, model(found.x_adv).argmax(1) != y)


def test_crafting_on_joint_raises_the_joint_loss_more(batch):
    model, (x, y) = small(), batch
    threat = Threat(eps=0.1)
    there = PGD(threat=threat, steps=10, loss="negative_logit", start="zero")
    plain = PGD(threat=threat, steps=10, start="zero")
    joint = variants_of(model)["joint"]
    points = [Variant(attack=there, variant="joint").craft(model, x, y), plain.craft(model, x, y), x]
    risen = [-joint(p)[range(5), y].sum().item() for p in points]
    assert risen[0] > max(risen[1:])
