"""One perturbation against several models: means by hand, what counts as found, and several networks as one."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks import APGD, BIM, PGD, Ensemble, EoT, Transfer
from buttress.engine.composition import staged
from buttress.errors import UserError
from buttress.models.wrapping.mean_ensemble import Ensemble as Together
from buttress.threat import Threat

THREAT = Threat(eps=0.08)


@pytest.fixture(scope="module")
def case(nets):
    x = torch.rand(12, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    models = []
    for seed in (3, 7, 9):
        model = nets.conv(seed=seed, dtype=torch.float64)
        with torch.no_grad():
            model[5].weight *= 8
            model[5].bias -= model(x).mean(0)
        models.append(model)
    return models, x, models[0](x).argmax(1)


def test_the_loss_is_the_mean_of_the_losses(case):
    models, x, y = case
    x_adv = x
    for _ in range(6):
        point = x_adv.clone().requires_grad_()
        loss = sum(F.cross_entropy(model(point), y, reduction="sum") for model in models)
        (grad,) = torch.autograd.grad(loss, point)
        x_adv = (x + (x_adv + 0.02 * grad.sign() - x).clamp(-0.08, 0.08)).clamp(0, 1)
    attack = BIM(threat=THREAT, steps=6, step_size=0.02)
    result = Ensemble(attack=attack, models=models[1:])(models[0], x, y)
    torch.testing.assert_close(result.x_adv, x_adv, rtol=0, atol=1e-12)
    assert torch.equal(result.success, models[0](x_adv).argmax(1) != y)
    assert (result.forwards == 3 * 6 + 1).all()
    assert (result.backwards == 3 * 6).all()


def test_answers_are_means(case):
    models, x, y = case
    classes = torch.stack([(y + 1) % 4, (y + 2) % 4], 1)
    seen = {}

    class Spy(PGD):
        def perturb(self, oracle, x, y, random):
            seen["logits"] = oracle.logits(x)
            seen["success"] = oracle.success.clone()
            seen["loss"] = oracle.loss(x, "margin")
            for k in range(2):
                seen["face", k] = oracle.nearest_face(x, classes[:, k : k + 1], lambda rows, value, grad: value.abs())
            part = oracle.only(torch.tensor([2, 5]), search="full")
            seen["part"] = part.loss(x[[2, 5]], "margin")
            assert (part.forwards == 3).all()
            return x

    Ensemble(attack=Spy(threat=THREAT), models=models[1:])(models[0], x, y)
    outputs = [model(x) for model in models]
    torch.testing.assert_close(seen["logits"], sum(outputs) / 3)
    assert torch.equal(seen["success"], torch.stack([z.argmax(1) != y for z in outputs]).all(0))
    own = F.one_hot(y, 4).bool()
    margins = [z.masked_fill(own, -torch.inf).amax(1) - z[own] for z in outputs]
    torch.testing.assert_close(seen["loss"], sum(margins) / 3)
    torch.testing.assert_close(seen["part"], (sum(margins) / 3)[[2, 5]])
    point = x.clone().requires_grad_()
    mean = sum(model(point) for model in models) / 3
    for k in range(2):
        lead = mean.gather(1, classes[:, k : k + 1])[:, 0] - mean[own]
        (grad,) = torch.autograd.grad(lead.sum(), point, retain_graph=True)
        torch.testing.assert_close(seen["face", k], (lead.detach(), grad))


def test_rows_at_rest_read_0(case):
    """Also by a loss that is none for logits of 0, as those of a row that is not computed would read."""
    models, x, y = case
    rows, seen = torch.arange(12) % 3 == 0, []

    class Spy(PGD):
        def perturb(self, oracle, x, y, random):
            oracle.rest(rows)
            seen.extend([oracle.loss(x, "cross_entropy"), oracle.loss_and_grad(x, "cross_entropy")[0]])
            oracle.wake()
            return x

    result = Ensemble(attack=Spy(threat=THREAT), models=models[1:])(models[0], x, y)
    losses = torch.stack([F.cross_entropy(model(x), y, reduction="none") for model in models]).mean(0)
    for value in seen:
        assert (value[rows] == 0).all()
        torch.testing.assert_close(value[~rows], losses[~rows])
    assert torch.equal(result.forwards[rows], torch.ones(4, dtype=torch.int64))  # the verdict's


def test_an_input_is_found_only_where_all_are_beaten(case):
    """Searching for the first success: what was found beats every model; what one model resists goes to the end."""
    models, x, y = case
    stands = models[0](x).argmax(1) == y
    attack = BIM(threat=Threat(eps=0.1), steps=12, step_size=0.02)
    result = Ensemble(attack=attack, models=models[1:])(models[0], x, y, search="first")
    early = result.backwards < 3 * 12
    assert (early & stands).any()
    for model in models:
        assert (model(result.x_adv[early]).argmax(1) != y[early]).all()
    alone = attack(models[0], x, y, search="first")
    assert (result.backwards > 3 * alone.backwards).any()  # the attacked model had fallen before

    class Rock(nn.Module):
        def forward(self, z):
            return F.one_hot(y[:1], 4).to(z.dtype) * 50 + 0 * z.flatten(1)[:, :4]

    same = y == y[0]
    held = Ensemble(attack=attack, models=[Rock()])(models[0], x[same], y[same], search="first")
    assert (held.backwards == 2 * 12).all()
    assert held.success.any()  # the verdict is the attacked model's alone


@pytest.mark.parametrize("search", ["full", "first"])
@pytest.mark.parametrize("attack", [PGD(threat=THREAT, restarts=2), APGD(threat=THREAT, steps=6)])
def test_without_others_it_is_the_attack_inside(case, attack, search):
    models, x, y = case
    ours, theirs = Ensemble(attack=attack)(models[0], x, y, search=search), attack(models[0], x, y, search=search)
    # A point that fell early is put into the threat once more, which may move it by the last bit of float64.
    torch.testing.assert_close(ours.x_adv, theirs.x_adv, rtol=0, atol=0 if search == "full" else 3e-16)
    assert torch.equal(ours.success, theirs.success)
    assert torch.equal(ours.backwards, theirs.backwards)


def test_thrice_the_same_model_is_that_model(case):
    models, x, y = case
    attack = PGD(threat=THREAT)
    ours = Ensemble(attack=attack, models=[models[0], models[0]])(models[0], x, y, target="random")
    torch.testing.assert_close(ours.x_adv, attack(models[0], x, y, target="random").x_adv)


def test_the_others_come_back_as_they_were(nets):
    other, model = nets.awkward(5, seed=1), nets.awkward(5)
    x, y = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=torch.int64)
    before = nets.state(other), nets.state(model)
    Ensemble(attack=EoT(attack=PGD(threat=THREAT), draws=2), models=[other])(model, x, y)
    nets.assert_state(other, before[0])
    nets.assert_state(model, before[1])


def test_what_are_no_models_is_refused(case, nets):
    models, x, y = case
    with pytest.raises(UserError, match="models must be a list of torch modules; got a single module"):
        Ensemble(models=models[1])
    with pytest.raises(UserError, match="models must be a list of torch modules; got a single name"):
        Ensemble(models="runs/other")
    with pytest.raises(UserError, match=r"models\[1\] must be a torch module"):
        Ensemble(models=[models[1], 3])
    with pytest.raises(UserError, match=r"models\[1\] must be a network here; got 'resnet': load it first"):
        Ensemble(models=[models[1], "resnet"])(models[0], x, y)
    fewer = nets.conv(classes=6, dtype=torch.float64)

    class Logits(PGD):
        def perturb(self, oracle, x, y, random):
            return oracle.logits(x)

    with pytest.raises(UserError, match=r"must have the same classes; .* shapes \(4,\) and \(6,\)"):
        Ensemble(attack=Logits(), models=[fewer])(models[0], x, y)


def test_wrappers_that_would_not_hear_of_each_other_are_refused(case):
    models, x, y = case
    turned = {"transforms": lambda x, random: x.flip(-1), "draws": 2}
    for attack in (
        Ensemble(attack=EoT(attack=PGD(), **turned), models=models[1:]),
        EoT(attack=Ensemble(models=models[1:]), **turned),
        Ensemble(attack=Transfer(surrogate=models[1]), models=models[2:]),
    ):
        with pytest.raises(UserError, match="asks the model itself, so it cannot run inside"):
            attack(models[0], x, y)


@pytest.mark.parametrize("search", ["full", "first"])
def test_parts_of_a_composed_attack_ask_all_models_and_are_told(case, search):
    models, x, y = case

    @dataclass(frozen=True, kw_only=True)
    class Two(PGD):
        def perturb(self, oracle, x, y, random):
            rows = torch.arange(len(x))[oracle.alive]
            first, won = staged(oracle, BIM(threat=THREAT, steps=4), rows, random, "bim")
            second, _ = staged(oracle, PGD(threat=THREAT, steps=4), rows[~won], random, "pgd")
            return x.index_put((rows,), first).index_put((rows[~won],), second)

    result = Ensemble(attack=Two(threat=THREAT), models=models[1:])(models[0], x, y, search=search)
    assert [stage.name for stage in result.stages] == ["bim", "pgd"]
    bim, pgd = result.stages
    assert bim.entered == int((models[0](x).argmax(1) == y).sum()) == 12
    assert bim.entered - bim.successes == pgd.entered
    assert bim.backwards <= 12 * 3 * 4
    assert bim.backwards % 3 == 0
    assert int(result.backwards.sum()) == bim.backwards + pgd.backwards


def test_several_networks_as_one_by_logits_and_by_probabilities(case):
    models, x, _ = case
    outputs = torch.stack([model(x) for model in models])
    torch.testing.assert_close(Together(models)(x), outputs.mean(0))
    mixed = Together(models, mean="probabilities")(x)
    torch.testing.assert_close(mixed.softmax(1), outputs.softmax(2).mean(0))
    torch.testing.assert_close(mixed.logsumexp(1), torch.zeros(12).double(), rtol=0, atol=1e-9)
    assert len(list(Together(models).parameters())) == sum(len(list(m.parameters())) for m in models)


@pytest.mark.parametrize("flat", [True, False])
def test_networks_of_one_logit_as_one(nets, flat):
    class Flat(nn.Sequential):
        def forward(self, x):
            return super().forward(x).squeeze(1) if flat else super().forward(x)

    models = [Flat(nets.linear(torch.tensor([[scale, -1.0]]))) for scale in (1.0, 40.0)]
    x = torch.rand(5, 2, generator=torch.Generator().manual_seed(0))
    mixed = Together(models, mean="probabilities")(x)
    assert mixed.shape == models[0](x).shape
    torch.testing.assert_close(mixed.sigmoid(), (models[0](x).sigmoid() + models[1](x).sigmoid()) / 2)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Together([]), "one at least"),
        (lambda: Together(nn.Linear(1, 1)), "needs a list of torch modules"),
        (lambda: Together([nn.Linear(1, 1), 3]), "needs a list of torch modules"),
        (lambda: Together([nn.Linear(1, 1)], mean="votes"), "mean must be one of logits, probabilities; got 'votes'"),
        (lambda: Together([nn.Linear(1, 2), nn.Linear(1, 3)])(torch.ones(4, 1)), "must have the same classes"),
    ],
)
def test_networks_that_cannot_be_one_are_refused(make, told):
    with pytest.raises(UserError, match=told):
        make()
