"""AT-LR against its formula, what it adds to a base and what it leaves alone."""

import pytest
import torch
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.defences import Batch, Defence, Loss
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.cost_sensitive.csa import CSA
from buttress.defences.fgsm_training import Fast
from buttress.defences.layer_regularised import LayerRegularised
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.layers.measures import MEASURES
from buttress.threat import Threat

EPS = 0.1
AT = AdversarialTraining(PGD(threat=Threat(eps=EPS), steps=2))
EXACT = {"rtol": 0, "atol": 1e-10}


def rows(a):
    return a.flatten(1)


def frobenius(a):
    return a.square().sum().sqrt()


def cka(a, b):
    a, b = (rows(v) - rows(v).mean(0) for v in (a, b))
    return 1 - frobenius(a.T @ b) ** 2 / (frobenius(a.T @ a) * frobenius(b.T @ b))


BY_HAND = {
    "relative_error": lambda a, b: (rows(a - b).norm(dim=1) / rows(a).norm(dim=1)).mean(),
    "relative_error_batch": lambda a, b: frobenius(a - b) / frobenius(a),
    "centred": lambda a, b: (rows(a - b).norm(dim=1) / (rows(a) - rows(a).mean(0)).norm(dim=1)).mean(),
    "cosine": lambda a, b: (1 - (rows(a) * rows(b)).sum(1) / (rows(a).norm(dim=1) * rows(b).norm(dim=1))).mean(),
    "cka": cka,
}


@pytest.fixture
def smooth(network):
    """Without ties, and with statistics of BatchNorm that stay: attacks in eval mode see the same network each time."""
    model = network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)
    model[1].momentum = 0.0
    return model


def bases():
    threat = Threat(eps=EPS)
    return {"at": AT, "fast": Fast(threat), "trades": TRADES(threat, steps=2)}


def activations(model, x):
    """What layers 2 and 5 of the network give."""
    low = model[:3](x)
    return {"2": low, "5": model[3:6](low)}


def test_every_measure_is_tried():
    assert set(BY_HAND) == set(MEASURES)


@pytest.mark.parametrize("measure", BY_HAND)
@pytest.mark.parametrize("name", bases())
def test_the_loss_is_the_base_plus_the_weighted_displacement(name, measure, smooth, batch, context):
    base = bases()[name]
    place = context(smooth, batch)
    alone = base.loss(smooth, batch, place).value
    x_adv = place.craft(base.attack, mode=getattr(base, "mode", "eval"))
    clean, perturbed = activations(smooth, batch.x), activations(smooth, x_adv)
    shifts = {layer: BY_HAND[measure](clean[layer], perturbed[layer]) for layer in clean}
    expected = alone + 0.4 * shifts["5"] + 1.5 * shifts["2"]
    defence = LayerRegularised(base, layers=["5", "2"], gamma=[0.4, 1.5], measure=measure)
    loss = defence.loss(smooth, batch, context(smooth, batch))
    torch.testing.assert_close(loss.value, expected, **EXACT)
    for layer, shift in shifts.items():
        torch.testing.assert_close(loss.logs[f"displacement {layer}"], shift.detach(), **EXACT)
    parameters = list(smooth.parameters())
    ours, theirs = (torch.autograd.grad(v, parameters, allow_unused=True) for v in (loss.value, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_one_gamma_stands_for_all_layers():
    assert LayerRegularised(AT, layers=["2", "5"], gamma=0.7).gamma == (0.7, 0.7)


def test_a_layer_with_gamma_0_is_not_looked_at(smooth, batch, context):
    both = LayerRegularised(AT, layers=["2", "5"], gamma=[0.0, 0.7]).loss(smooth, batch, context(smooth, batch))
    one = LayerRegularised(AT, layers=["5"], gamma=0.7).loss(smooth, batch, context(smooth, batch))
    torch.testing.assert_close(both.value, one.value, rtol=0, atol=0)
    assert list(both.logs) == ["displacement 5"]


def test_gamma_rises_linearly_over_the_warmup(smooth, batch, context):
    defence = LayerRegularised(AT, layers=["5"], gamma=2.0, warmup=4.0)
    base = AT.loss(smooth, batch, context(smooth, batch)).value.detach()
    added = [
        float(defence.loss(smooth, batch, context(smooth, batch, epoch=e)).value.detach() - base)
        for e in (0, 1, 3, 4, 9)
    ]
    shares = [value / added[-1] for value in added]
    torch.testing.assert_close(shares, [0.0, 0.25, 0.75, 1.0, 1.0], **EXACT)


def test_an_added_clean_pass_leaves_buffers_and_the_random_state_alone(network, single, context, same):
    """With dropout in the network: the base's own passes draw, the added one must not."""
    found = []
    for defence in (AT, LayerRegularised(AT, layers=["2", "5"], gamma=1.0)):
        model = network()
        with torch.random.fork_rng([]):
            torch.manual_seed(1)
            loss = defence.loss(model, single, context(model, single))
            loss.value.backward()
            found.append((dict(model.named_buffers()), torch.get_rng_state(), [m.training for m in model.modules()]))
    same(*found)


def test_buffers_after_a_step_of_training_are_those_of_the_base(network, train, same):
    options = {"epochs": 1, "batch_size": 1000}
    one = train(network(), AT, **options).model
    other = train(network(), LayerRegularised(AT, layers=["2"], gamma=1.0), **options).model
    same(dict(other.named_buffers()), dict(one.named_buffers()))
    assert not torch.equal(other[0].weight, one[0].weight)


@pytest.mark.parametrize(("name", "extra"), [("at", 1), ("fast", 1), ("trades", 0)])
def test_a_pass_is_added_only_where_the_base_makes_none(name, extra, smooth, batch, context, passes):
    counts = []
    for gamma in (0.0, 1.0):
        defence = LayerRegularised(bases()[name], layers=["2"], gamma=gamma)
        defence.loss(smooth, batch, context(smooth, batch))  # the first finds the axis of the inputs
        with passes(smooth) as modes:
            defence.loss(smooth, batch, context(smooth, batch))
        counts.append(len(modes))
    assert counts[1] - counts[0] == extra


class Brighter(Defence):
    """A base of a user's own: its perturbed inputs are brighter ones."""

    def loss(self, model, batch, context):
        return Loss(torch.nn.functional.cross_entropy(context.adversarial(batch.x + 0.05), batch.y))


def test_an_input_whose_clean_activation_is_zero_is_left_out(batch, context):
    """A dead unit's displacement has no relative size; it must not turn the loss into NaN."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.ReLU(), nn.Linear(2, 4)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.ones(2, 36))
        model[1].bias.fill_(-float(batch.x.flatten(1).sum(1).sort().values[2] + 0.5))
        model[3].weight.copy_(-torch.arange(8.0).view(4, 2))
    clean, perturbed = model[:3](batch.x), model[:3](batch.x + 0.05)
    change = (clean - perturbed).norm(dim=1) / clean.norm(dim=1)
    assert 0 < int(change.isinf().sum()) < len(batch.x), "the case does not try a displacement from 0"
    expected = Brighter().loss(model, batch, context(model, batch)).value + change[change.isfinite()].mean()
    defence = LayerRegularised(Brighter(), layers=["2"], gamma=1.0, measure="relative_error")
    loss = defence.loss(model, batch, context(model, batch)).value
    torch.testing.assert_close(loss, expected, **EXACT)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, list(model.parameters())))


def test_the_bases_attack_and_own_modules_are_its_own():
    class Head(AdversarialTraining):
        def __init__(self):
            super().__init__(AT.attack)
            self.head = nn.Linear(2, 2)

    defence = LayerRegularised(Head(), layers=["2"])
    assert defence.attack is AT.attack
    assert set(defence.state_dict()) == {"base.head.weight", "base.head.bias"}


def test_settings_round_trip_with_layers():
    defence = LayerRegularised(AT, layers=["2", "5"], gamma=[0.1, 0.2], measure="cosine", warmup=2.0)
    again = LayerRegularised(**defence.settings())
    assert again.settings() == defence.settings()
    assert again.base is AT


# -- bad input -----------------------------------------------------------------------------------------------------


def test_a_base_that_perturbs_nothing_is_refused_by_name(smooth, batch, context):
    regularised = LayerRegularised(Standard(), layers=["2"], gamma=1.0)
    with pytest.raises(UserError, match="Standard makes no perturbed pass"):
        regularised.loss(smooth, batch, context(smooth, batch))
    with pytest.raises(UserError, match="Standard makes no perturbed pass"):
        regularised.prepare(smooth, None, 0)  # before the base has prepared anything
    with pytest.raises(UserError, match=r"CSA makes no perturbed pass.*with updates=1"):
        LayerRegularised(CSA(), layers=["2"], gamma=1.0).prepare(smooth, None, 0)
    LayerRegularised(Standard(), layers=["2"], gamma=0.0).loss(smooth, batch, context(smooth, batch))


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_an_unknown_layer_is_told_before_training_with_the_nearest(warmup, network, train, tmp_path):
    model = nn.Sequential()
    for name, part in zip(("conv1", "norm", "relu1", "flat", "fc1", "relu2", "drop", "fc2"), network(), strict=True):
        model.add_module(name, part)
    defence = LayerRegularised(AT, layers=["relu1", "rleu2"], gamma=0.3, warmup=warmup)
    with pytest.raises(UserError, match=r"no layer is called or matches 'rleu2'; did you mean .*'relu2'"):
        train(model, defence, out=tmp_path / "run")
    right = LayerRegularised(AT, layers=["relu1", "relu2"], gamma=0.3)
    assert train(model, right, epochs=1, out=tmp_path / "run").best_epoch == 1, "the folder is free for another try"


def test_an_unknown_layer_is_told_by_the_loss_too(smooth, batch, context):
    with pytest.raises(UserError, match="no layer is called or matches '9'"):
        LayerRegularised(AT, layers=["9"]).loss(smooth, batch, context(smooth, batch))


def test_a_pattern_is_no_name(smooth, batch, context):
    with pytest.raises(UserError, match=r"'\[25\]' is a pattern, for 2, 5"):
        LayerRegularised(AT, layers=["[25]"]).loss(smooth, batch, context(smooth, batch))


def test_a_layer_that_only_evaluation_runs_is_told(smooth, batch, context):
    class Extra(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.late = smooth, nn.Identity()

        def forward(self, x):
            return self.inner(x) if self.training else self.late(self.inner(x))

    model = Extra()
    with pytest.raises(UserError, match="layer 'late' cannot be regularised, for it does not run in training"):
        LayerRegularised(AT, layers=["late"]).loss(model, batch, context(model, batch))


class Dropping(nn.Module):
    """Tokens folded before the inputs, of which training drops a half."""

    def __init__(self):
        super().__init__()
        self.embed, self.act, self.head = nn.Linear(1, 5), nn.ReLU(), nn.Linear(5, 3)

    def forward(self, x):
        tokens = x[:, : x.shape[1] // (1 + self.training), None].transpose(0, 1)
        return self.head(self.act(self.embed(tokens.flatten(0, 1))).unflatten(0, tokens.shape[:2]).mean(0))


def test_a_layer_of_another_size_in_training_is_told_as_that(batch, context):
    model = Dropping()
    few = Batch(batch.x.flatten(1).float(), batch.y, batch.ids)
    with pytest.raises(UserError, match="in training its value is of another size for each input than in evaluation"):
        LayerRegularised(AT, layers=["act"]).loss(model, few, context(model, few))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"measure": None}, "there is no measure None;"),
        ({"measure": ["centred"]}, "there is no measure ['centred']; did you mean 'centred'?"),
        ({"layers": 3}, "layers must be a name or a list of names; got 3"),
        ({"layers": ["a", 1]}, "layers must be a name or a list of names; got ['a', 1]"),
        ({"layers": ["a"], "gamma": "0.3"}, "gamma must be a finite number of 0 or more; got '0.3'"),
        ({"layers": ["a", "b"], "gamma": [0.3, None]}, "gamma must be a finite number of 0 or more; got None"),
        ({"base": "at"}, "base must be a defence; got 'at'"),
        ({"measure": "centered"}, "there is no measure 'centered'; did you mean 'centred'?"),
        ({"layers": ["a", "b"], "gamma": [1.0]}, "2 layers need one gamma or as many; got 1"),
        ({"layers": ["a"], "gamma": -0.1}, "gamma must be a finite number of 0 or more; got -0.1"),
        ({"layers": ["a"], "gamma": float("nan")}, "gamma must be a finite number of 0 or more; got nan"),
        ({"warmup": -1.0}, "warmup must be a finite number of 0 or more; got -1"),
        ({"layers": ["a", "b", "a"]}, "layers must be names, each once; got 'a' 2 times"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, line):
    with pytest.raises(UserError) as caught:
        LayerRegularised(**settings)
    assert line in str(caught.value)


def test_one_name_alone_is_one_layer():
    assert LayerRegularised(layers="relu1").layers == ("relu1",)


def test_a_warmup_that_training_would_end_in_is_refused(network, train, tmp_path):
    with pytest.raises(UserError, match="warmup 5 is longer than the training, which ends after 2: give 2 or less"):
        train(network(), LayerRegularised(AT, layers=["2"], warmup=5.0), epochs=2, out=tmp_path / "run")
    assert train(network(), LayerRegularised(AT, layers=["2"], warmup=1.0), epochs=1, out=tmp_path / "run").best_epoch
