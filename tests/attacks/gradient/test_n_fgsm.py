"""N-FGSM's point against its own loop, and how far from the input it lies."""

import pytest
import torch

from buttress.attacks import Attack
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.fgsm_rs import FGSMRS
from buttress.attacks.gradient.n_fgsm import NFGSM
from buttress.defences.base.step_context import rescaled
from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.threat import Threat

EPS = 0.05


@pytest.fixture
def model(nets):
    return nets.conv(dtype=torch.float64)


@pytest.fixture
def x():
    x = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:, :, 0], x[:, :, 1] = 0.0, 1.0  # the box's edges, where clipping matters
    return x


Y = torch.arange(8) % 4
IDS = torch.arange(50, 58)


def by_hand(model, x, k, alpha, clip):
    draws = Random(derive(9, "attack"), IDS)
    eta = k * EPS * (2 * draws.uniform(x.shape[1:], torch.float64) - 1)
    leaf = (x + eta).clamp(0, 1).requires_grad_()
    log_p = model(leaf).log_softmax(1)
    slope = torch.autograd.grad(-log_p[torch.arange(8), Y].sum(), leaf)[0]
    moved = leaf.detach() + alpha * EPS * slope.sign()
    return (torch.max(torch.min(moved, x + EPS), x - EPS) if clip else moved).clamp(0, 1)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("k", "alpha"), [(2.0, 1.0), (3.0, 1.5), (0.0, 1.0)])
def test_it_equals_its_loop(model, x, k, alpha, clip):
    attack = NFGSM(threat=Threat(eps=EPS), k=k, alpha=alpha, clip=clip)
    x_adv = attack.craft(model, x, Y, seed=9, ids=IDS)
    torch.testing.assert_close(x_adv, by_hand(model, x, k, alpha, clip), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_reaches_beyond_eps_and_never_beyond_its_own_bound(model, x, dtype):
    model, x = model.to(dtype), x.to(dtype)
    attack, threat = NFGSM(threat=Threat(eps=EPS), k=2.0), Threat(eps=EPS)
    found = [attack(model, x, Y, seed=seed) for seed in range(20)]
    distances = torch.stack([f.distance for f in found])
    assert (distances > 2.5 * EPS).any()
    assert distances.max() <= 3 * EPS
    assert all(Threat(eps=3 * EPS).contains(f.x_adv, x).all() for f in found)
    clipped = NFGSM(threat=threat, k=2.0, clip=True)
    assert all(threat.contains(clipped(model, x, Y, seed=seed).x_adv, x).all() for seed in range(20))


def test_it_is_no_attack_within_its_threat():
    assert not isinstance(NFGSM(), Attack)


def test_without_noise_it_is_fgsm_and_with_small_noise_and_clipping_fgsm_rs(model, x):
    threat = Threat(eps=EPS)
    pairs = [
        (NFGSM(threat=threat, k=0.0), FGSM(threat=threat)),
        (NFGSM(threat=threat, k=1.0, alpha=1.25, clip=True), FGSMRS(threat=threat, alpha=1.25)),
    ]
    for one, other in pairs:
        points = [attack.craft(model, x, Y, seed=9, ids=IDS) for attack in (one, other)]
        torch.testing.assert_close(points[0], points[1], rtol=0, atol=1e-12)


def test_a_share_of_its_budget_for_all_and_for_each(model, x):
    attack, half = NFGSM(threat=Threat(eps=EPS)), NFGSM(threat=Threat(eps=EPS / 2))
    x = x.clamp(0.2, 0.8)
    expected = half.craft(model, x, Y, seed=9)
    for smaller in (rescaled(attack, 0.5), rescaled(attack, 1.0, torch.full((8,), 0.5, dtype=torch.float64))):
        torch.testing.assert_close(smaller.craft(model, x, Y, seed=9), expected, rtol=0, atol=1e-12)
    single = rescaled(attack, 1.0, torch.tensor([0.0, 1.0] * 4, dtype=torch.float64)).craft(model, x, Y, seed=9)
    moved = (single - x).abs().flatten(1).amax(1)
    assert (moved[::2] == 0).all()
    assert (moved[1::2] > EPS).all()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"threat": Threat(norm="l2")}, "n-fgsm is defined in linf; got l2"),
        ({"threat": Threat(eps=float("inf"))}, "n-fgsm needs a finite eps; got inf"),
        ({"k": -1.0}, "k must be a finite number of 0 or more; got -1.0"),
        ({"alpha": 0.0}, "alpha must be a finite number above 0; got 0.0"),
    ],
)
def test_what_it_refuses(settings, line):
    with pytest.raises(UserError) as error:
        NFGSM(**settings)
    assert str(error.value) == line
