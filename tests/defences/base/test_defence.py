"""What the trainer's side of a step gives to a defence, and models with a term of their own."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.defences import Batch, Defence, Loss
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.models.wrapping.normalized import Normalized
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training.step import StepLoss

THREAT = Threat(eps=0.1)
AT = AdversarialTraining(PGD(threat=THREAT, steps=2))


class ChannelGate(nn.Module):
    """Channels are weighed by a head of their own, which learns from the labels (as CIFS does) by an auxiliary loss."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 6, 3, padding=1), nn.ReLU()
        self.gate, self.last = nn.Linear(6, 4), nn.Linear(6, 4)
        self.labelled = 0

    def forward(self, x):
        return self._run(x)[0]

    def forward_with_auxiliary(self, x, y):
        self.labelled += 1
        features, raw = self._features(x, y)
        return self.last(features), 0.5 * F.cross_entropy(raw, y)

    def _run(self, x):
        features, raw = self._features(x, None)
        return self.last(features), raw

    def _features(self, x, y):
        pooled = self.relu(self.conv(x)).mean((2, 3))
        raw = self.gate(pooled)
        classes = raw.argmax(1) if y is None else y
        return pooled * torch.sigmoid(self.gate.weight[classes]), raw


@pytest.fixture
def gated(nets):
    return nets.seeded(ChannelGate).train()


def objective(model, defence, batch, context):
    """The loss as the trainer has it: the defence's and the model's own terms."""
    step = StepLoss(model, defence)
    step.context = context(model, batch)
    return step(batch.x, batch.y, batch.ids), step.context


def labelled_loss(model, x, y):
    logits, auxiliary = model.forward_with_auxiliary(x, y)
    return F.cross_entropy(logits, y), auxiliary


def test_a_labelled_pass_adds_the_models_own_term_once(gated, single, context):
    own, auxiliary = labelled_loss(gated, single.x, single.y)
    gated.labelled = 0
    loss, place = objective(gated, Standard(), single, context)
    torch.testing.assert_close(loss, own + auxiliary)
    assert (gated.labelled, len(place.auxiliary)) == (1, 1)
    loss.backward()
    assert gated.gate.bias.grad.abs().sum() > 0, "only the auxiliary term reaches this bias"


def test_each_labelled_pass_has_its_term_and_the_attack_sees_the_plain_model(gated, single, context):
    x_adv = context(gated, single).craft(TRADES(THREAT, steps=2).attack)
    (natural, first), second = labelled_loss(gated, single.x, single.y), labelled_loss(gated, x_adv, single.y)[1]
    logits = [gated.forward_with_auxiliary(x, single.y)[0].log_softmax(1) for x in (single.x, x_adv)]
    boundary = (logits[0].exp() * (logits[0] - logits[1])).sum(1).mean()
    gated.labelled = 0
    loss, _ = objective(gated, TRADES(THREAT, steps=2, beta=3.0), single, context)
    torch.testing.assert_close(loss, natural + 3.0 * boundary + first + second)
    assert gated.labelled == 2


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: Normalized(m, 0.5, 0.25)])
def test_regularisation_reads_labelled_passes_and_adds_no_term_of_its_own(wrap, gated, single, context):
    model = wrap(gated)
    place = context(model, single)
    x_adv = place.craft(AT.attack)
    scale = (lambda x: x) if model is gated else (lambda x: (x - 0.5) / 0.25)
    own, auxiliary = labelled_loss(gated, scale(x_adv), single.y)
    clean, perturbed = (gated.relu(gated.conv(scale(x))).flatten(1) for x in (single.x, x_adv))
    shift = ((clean - perturbed).norm(dim=1) / clean.norm(dim=1)).mean()
    defence = LayerRegularised(AT, layers=["relu"], gamma=2.0, measure="relative_error")
    loss, _ = objective(model, defence, single, context)
    torch.testing.assert_close(loss, own + auxiliary + 2.0 * shift)
    assert "forward" not in vars(gated), "the module's own forward is back"


def test_the_modules_own_forward_is_back_after_an_exception(gated, single, context):
    def forward(x):
        return gated._run(x)[0]

    gated.forward = forward
    wrong = Batch(single.x[:, :, :, 0], single.y, single.ids)
    with pytest.raises(RuntimeError):
        context(gated, wrong).clean(wrong.x)
    assert vars(gated)["forward"] is forward


def test_training_a_model_with_a_term_of_its_own(gated, images):
    before = gated.gate.bias.detach().clone()
    fit(gated, images, TRADES(THREAT, steps=2), epochs=1, batch_size=12, validate_with="none")
    assert not torch.equal(gated.gate.bias, before)


def test_passes_are_named_and_hold_what_is_watched(network, single, context):
    model = network(dropout=0.0)
    place = context(model, single)
    place.watch(["2"])
    place.watch(["5", "2"])
    logits = place.clean(single.x)
    assert list(place.passes) == ["clean"]
    assert list(place.passes["clean"].activations) == ["2", "5"]
    torch.testing.assert_close(place.passes["clean"].logits, logits, rtol=0, atol=0)
    torch.testing.assert_close(model[6:](place.passes["clean"].activations["5"]), logits)


def test_the_draws_of_a_step_depend_on_seed_index_and_input_only(network, single, context):
    model = network()

    def draws(batch=single, **place):
        return context(model, batch, **place).random.uniform((3,))

    assert torch.equal(draws(), draws())
    assert torch.equal(draws(Batch(single.x[5:], single.y[5:], single.ids[5:])), draws()[5:])
    assert not torch.equal(draws(), draws(index=4))
    assert not torch.equal(draws(), draws(seed=8))


def test_a_defence_without_a_constructor_has_no_settings():
    class Bare(Defence):
        def loss(self, model, batch, context):
            return Loss(context.clean(batch.x).sum())

    assert Bare().settings() == {}


def test_one_logit_is_read_as_two(single, context):
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 1))
    binary = Batch(single.x, single.y % 2, single.ids)
    loss = Standard().loss(model, binary, context(model, binary)).value
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(model(binary.x)[:, 0], binary.y.float()))


def test_modules_of_a_defence_are_trained_and_left_out_of_the_model(network, images):
    class Scaled(Defence):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def loss(self, model, batch, context):
            return Loss(F.cross_entropy(self.scale * context.clean(batch.x), batch.y))

    model, defence = network(), Scaled()
    names = set(model.state_dict())
    trained = fit(model, images, defence, epochs=1, optimiser=Optimiser(lr=0.01), validate_with="none")
    assert float(defence.scale.detach()) != 1.0
    assert set(trained.model.state_dict()) == names
