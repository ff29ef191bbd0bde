"""AT-LR by measures that ask for classes and for the margin's gradient: against the same by hand, on networks."""

import pytest
import torch
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.iat import IAT
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.layers.measures import MEASURES
from buttress.layers.regularisers import REGULARISERS, LayerStep
from buttress.losses import margin
from buttress.tasks import MultiLabel
from buttress.threat import Threat
from buttress.training import fit

EPS = 0.1
ATTACK = PGD(threat=Threat(eps=EPS), steps=2)
AT = AdversarialTraining(ATTACK)
AGAINST = sorted(set(REGULARISERS) - set(MEASURES))


@pytest.fixture
def smooth(network):
    model = network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)
    model[1].momentum = 0.0
    return model


class InPlace(nn.Module):
    """The network with what its first layer gives overwritten in place."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        h = self.model[:2](x)
        h += 0.1
        return self.model[2:](h)


class TimeFirst(nn.Module):
    """Rows of an image as time steps, the time first, as recurrent layers have it."""

    def __init__(self):
        super().__init__()
        self.steps, self.act, self.out = nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)

    def forward(self, x):
        return self.out(self.act(self.steps(x[:, 0].transpose(0, 1))).sum(0))


def expected(measure, rest, clean, perturbed, batch):
    """What the measure is by the regulariser itself, of a margin and a gradient taken here."""
    low = clean.detach().requires_grad_()
    lead = -margin(rest(low), batch.y)
    (gradient,) = torch.autograd.grad(lead.sum(), low)
    return REGULARISERS[measure](LayerStep(clean, perturbed, batch.y, lead.detach(), gradient)).mean()


@pytest.mark.parametrize("base", [AT, TRADES(Threat(eps=EPS), steps=2)], ids=["at", "trades"])
@pytest.mark.parametrize("measure", AGAINST)
def test_the_loss_is_the_base_plus_the_weighted_share(measure, base, smooth, batch, context):
    place = context(smooth, batch)
    alone = base.loss(smooth, batch, place).value
    x_adv = place.craft(base.attack, mode=getattr(base, "mode", "eval"))
    total = alone
    for index, gamma in ((3, 1.5), (6, 0.4)):
        clean, perturbed = smooth[:index](batch.x), smooth[:index](x_adv)
        total = total + gamma * expected(measure, smooth[index:], clean, perturbed, batch)
    defence = LayerRegularised(base, layers=["5", "2"], gamma=[0.4, 1.5], measure=measure)
    loss = defence.loss(smooth, batch, context(smooth, batch))
    torch.testing.assert_close(loss.value, total, rtol=0, atol=1e-10)
    parameters = list(smooth.parameters())
    ours, theirs = (torch.autograd.grad(v, parameters, allow_unused=True) for v in (loss.value, total))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("measure", AGAINST)
def test_a_layer_overwritten_in_place_has_its_gradient(measure, smooth, batch, context):
    model = InPlace(smooth)
    place = context(model, batch)
    x_adv = place.craft(ATTACK)

    def rest(h):
        return smooth[2:](h + 0.1)

    share = expected(measure, rest, smooth[:2](batch.x), smooth[:2](x_adv), batch)
    loss = LayerRegularised(AT, layers=["model.1"], gamma=1.0, measure=measure).loss(model, batch, place)
    torch.testing.assert_close(loss.logs["displacement model.1"], share.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("measure", AGAINST)
def test_the_gradient_is_brought_into_the_order_of_the_inputs(measure, nets, batch, context):
    model = nets.seeded(TimeFirst, 0).double().train()
    place = context(model, batch)
    x_adv = place.craft(ATTACK)

    def rest(h):
        return model.out(h.sum(1))

    clean, perturbed = (model.act(model.steps(x[:, 0])) for x in (batch.x, x_adv))
    share = expected(measure, rest, clean, perturbed, batch)
    loss = LayerRegularised(AT, layers=["act"], gamma=1.0, measure=measure).loss(model, batch, place)
    torch.testing.assert_close(loss.logs["displacement act"], share.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("measure", AGAINST)
@pytest.mark.parametrize("base", [AT, TRADES(Threat(eps=EPS), steps=2)], ids=["at", "trades"])
def test_the_margins_gradient_is_one_pass_more(base, measure):
    plain, ours = (LayerRegularised(base, layers=["2", "5"], measure=m).cost for m in ("centred", measure))
    assert ours.training - plain.training == REGULARISERS[measure].needs_margin * base.cost.objectives
    assert ours.crafting == plain.crafting


@pytest.mark.parametrize("measure", AGAINST)
def test_it_trains_in_half_precision(measure, network, train):
    trained = train(network(), LayerRegularised(AT, layers=["2"], measure=measure), precision="bf16-mixed")
    assert all(torch.isfinite(value).all() for value in trained.model.state_dict().values())
    assert 0 < trained.history[-1]["displacement 2"] < 1


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [name for name in AGAINST if REGULARISERS[name].needs_classes])
def test_a_task_without_classes_is_refused_with_what_to_use(measure, network, images):
    defence = LayerRegularised(AT, layers=["2"], measure=measure)
    line = r"layer-regularised.* needs classes, which multi-label has not: use the measure centred or tolerance"
    with pytest.raises(UserError, match=line):
        fit(network(), images, defence, task=MultiLabel())


@pytest.mark.parametrize("measure", AGAINST)
def test_mixed_inputs_have_no_class_to_compare(measure, network, single, context):
    defence = LayerRegularised(IAT(ATTACK, independent=False), layers=["2"], measure=measure)
    with pytest.raises(UserError, match=f"IAT mixes inputs.*and {measure} asks for classes: use the measure centred"):
        defence.loss(model := network(), single, context(model, single))


def test_a_layer_that_the_output_does_not_depend_on(smooth, batch, context):
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.side = smooth, nn.Linear(36, 2).double()

        def forward(self, x):
            self.side(x.flatten(1))
            return self.inner(x)

    model, defence = Beside(), LayerRegularised(AT, layers=["side"], measure="tolerance")
    with pytest.raises(UserError, match=r"layer 'side' cannot be regularised by tolerance.*does not depend on it"):
        defence.loss(model, batch, context(model, batch))
