"""Interpolated adversarial training against mixtures made by hand."""

import copy

import pytest
import torch

from buttress.attacks.gradient.pgd import PGD
from buttress.defences.iat import IAT
from buttress.errors import UserError
from buttress.threat import Threat

ATTACK = PGD(threat=Threat(eps=0.07), steps=3)
EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64, activation=torch.nn.Tanh)


def cross_entropy(logits, y):
    return -logits.log_softmax(1)[torch.arange(len(y)), y].mean()


def half(model, x, y, mixture):
    """Mixup at the input or after a layer of a Sequential: its modules run one by one."""
    end = 0 if mixture.layer is None else int(mixture.layer) + 1
    h = model[:end](x)
    h = mixture.share * h + (1 - mixture.share) * h[mixture.order]
    logits = model[end:](h)
    return mixture.share * cross_entropy(logits, y) + (1 - mixture.share) * cross_entropy(logits, y[mixture.order])


@pytest.mark.parametrize("options", [{}, {"variant": "manifold", "layers": ["2", "5"]}])
@pytest.mark.parametrize("index", range(6))
def test_each_half_is_mixed_with_itself(options, index, smooth, batch, context):
    """The unmixed inputs are attacked; values and gradients are those of the mixtures."""
    defence, place = IAT(ATTACK, **options), context(smooth, batch, index=index)
    by_hand = copy.deepcopy(smooth)
    x_adv = ATTACK.craft(by_hand, batch.x, batch.y, seed=place.seed, ids=batch.ids)
    mixtures = [defence.mixture(place, name) for name in ("natural", "adversarial")]
    assert not torch.equal(mixtures[0].order, mixtures[1].order)
    assert mixtures[0].share != mixtures[1].share
    expected = 0.5 * half(by_hand, batch.x, batch.y, mixtures[0]) + 0.5 * half(by_hand, x_adv, batch.y, mixtures[1])
    loss = defence.loss(smooth, batch, place).value
    torch.testing.assert_close(loss, expected, **EXACT)
    ours, theirs = (torch.autograd.grad(v, list(m.parameters())) for v, m in ((loss, smooth), (expected, by_hand)))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_the_place_is_drawn_uniformly(smooth, batch, context):
    defence = IAT(ATTACK, variant="manifold", layers=["2", "5"])
    places = [defence.mixture(context(smooth, batch, index=i), "natural").layer for i in range(300)]
    counts = {place: places.count(place) for place in (None, "2", "5")}
    assert sum(counts.values()) == 300
    assert all(75 < count < 125 for count in counts.values()), counts


@pytest.mark.parametrize(
    ("options", "alpha"),
    [({}, 1.0), ({"variant": "manifold", "layers": ["2"]}, 2.0), ({"alpha": 0.25}, 0.25)],
)
def test_shares_follow_the_beta_distribution(options, alpha, smooth, batch, context):
    """Its mean is a half and its variance 1 / (4 (2 alpha + 1)); alpha follows from the variant."""
    defence = IAT(ATTACK, **options)
    shares = [defence.mixture(context(smooth, batch, index=i), "natural").share for i in range(600)]
    shares = torch.tensor(shares, dtype=torch.float64)
    assert abs(shares.mean() - 0.5) < 0.05
    torch.testing.assert_close(shares.var().item(), 1 / (4 * (2 * alpha + 1)), rtol=0.15, atol=0)


@pytest.mark.parametrize("options", [{"alpha": 0.0}, {"alpha": 1e-5}])
def test_without_mixing_it_is_half_clean_half_adversarial(options, smooth, batch, context):
    """Shares are 0 or 1 then: whole batches, in another order at most."""
    defence = IAT(ATTACK, **options)
    for index in range(4):
        place, by_hand = context(smooth, batch, index=index), copy.deepcopy(smooth)
        x_adv = place.craft(ATTACK)
        assert defence.mixture(place, "natural").share in (0.0, 1.0)
        expected = 0.5 * cross_entropy(by_hand(batch.x), batch.y) + 0.5 * cross_entropy(by_hand(x_adv), batch.y)
        torch.testing.assert_close(defence.loss(smooth, batch, place).value, expected, **EXACT)


def test_alpha_0_keeps_the_bits_of_the_inputs(smooth, batch, context, same):
    mixture = IAT(ATTACK, alpha=0.0).mixture(context(smooth, batch), "natural")
    same(mixture(batch.x), batch.x)


def test_halves_can_share_their_draws(smooth, batch, context):
    defence = IAT(ATTACK, independent=False, variant="manifold", layers=["2", "5"])
    for index in range(4):
        place, by_hand = context(smooth, batch, index=index), copy.deepcopy(smooth)
        x_adv, mixture = place.craft(ATTACK), defence.mixture(place, "both")
        expected = 0.5 * half(by_hand, batch.x, batch.y, mixture) + 0.5 * half(by_hand, x_adv, batch.y, mixture)
        torch.testing.assert_close(defence.loss(smooth, batch, place).value, expected, **EXACT)


def test_watched_layers_hold_what_the_network_went_on_with(smooth, batch, context):
    defence = IAT(ATTACK, variant="manifold", layers=["5"], independent=False)
    index = next(i for i in range(20) if defence.mixture(context(smooth, batch, index=i), "both").layer == "5")
    place, by_hand = context(smooth, batch, index=index), copy.deepcopy(smooth)
    place.watch(["5"])
    defence.loss(smooth, batch, place)
    mixed = defence.mixture(place, "both")(by_hand[:6](batch.x))
    torch.testing.assert_close(place.passes["clean"].activations["5"], mixed, **EXACT)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"variant": "cutmix"}, "variant must be one of input, manifold; got 'cutmix'"),
        ({"variant": "manifold"}, "layers are named for the variant manifold"),
        ({"layers": ["2"]}, "layers are named for the variant manifold"),
        ({"alpha": -1.0}, "alpha must be a finite number of 0 or more; got -1"),
        ({"alpha": float("nan")}, "alpha must be a finite number of 0 or more; got nan"),
    ],
)
def test_settings_that_mean_nothing(options, line):
    with pytest.raises(UserError, match=line):
        IAT(**options)


@pytest.mark.parametrize(("layer", "line"), [("9", "no layer is called or matches '9'"), ("[25]", "is a pattern")])
def test_layers_are_checked_before_training(layer, line, network, images):
    with pytest.raises(UserError, match=line):
        IAT(variant="manifold", layers=[layer]).prepare(network(), images, 0)
