"""Attacks that a user writes on the public types: a search without gradients, a denoiser's, and one in another file."""

import dataclasses
import functools
import sys
import typing
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from buttress import registry
from buttress.attacks import PGD, Attack
from buttress.losses import margin
from buttress.tasks import Denoising
from buttress.threat import Threat, per_row


@dataclass(frozen=True, kw_only=True)
class RandomSquares(Attack):
    """Squares of random place and sign, kept where the margin falls; their side follows a schedule of each row."""

    threat: Threat = Threat()
    queries: int = 200
    share: float = 0.5

    def perturb(self, oracle, x, y, random):
        height, width = x.shape[2:]
        best = self.threat.project(x + self.threat.eps * random.sign((x.shape[1], 1, width)), x)
        best_loss = margin(oracle.logits(best), y)
        accepted = torch.zeros(len(x))
        rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
        for _ in range(self.queries):
            if oracle.done:
                break
            side = (self.share * height / (1 + accepted)).round().clamp(min=1).long()
            top = per_row((random.uniform() * (height - side + 1)).long(), x)
            left = per_row((random.uniform() * (width - side + 1)).long(), x)
            extent = per_row(side, x)
            inside = (rows >= top) & (rows < top + extent) & (columns >= left) & (columns < left + extent)
            candidate = torch.where(inside, x + self.threat.eps * random.sign((x.shape[1], 1, 1)), best)
            candidate = self.threat.project(candidate, x)
            loss = margin(oracle.logits(candidate), y)
            better = loss > best_loss
            accepted += better
            best, best_loss = torch.where(per_row(better, x), candidate, best), torch.where(better, loss, best_loss)
        return best


@pytest.mark.parametrize("search", ["full", "first"])
def test_a_search_without_gradients(nets, search):
    net = nets.conv(seed=3)
    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        net[5].weight *= 8
        net[5].bias -= net(x).mean(0)
        y = net(x).argmax(1)

    def model(x):  # gives no gradient
        with torch.no_grad():
            return net(x)

    attack = RandomSquares(threat=Threat(eps=0.1))
    result = attack(model, x, y, search=search)
    assert result.success.float().mean() > 0.5
    assert attack.threat.contains(result.x_adv, x).all()
    assert (result.backwards == 0).all()
    if search == "full":
        assert (result.forwards == 202).all()
    else:
        assert (result.forwards[result.success] < 202).any()
        assert (result.forwards[~result.success] == 203).all()
    part = attack(model, x[5:], y[5:], search=search, ids=torch.arange(5, 12))
    assert torch.equal(part.success, result.success[5:])


class Smoother(nn.Module):
    """A denoiser: the mean over 3x3 pixels."""

    def forward(self, x):
        return nn.functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


@pytest.mark.parametrize("loss", ["mse", None])
def test_a_denoiser_is_attacked_by_its_own_loss(loss):
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((6, 1, 8, 8), 0.5)
    x = (clean + 0.05 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    task, threat = Denoising(floor=25.0), Threat(eps=0.1)
    assert (task.score(Smoother()(x), clean) > 25).all()
    result = PGD(threat=threat, steps=20, loss=loss)(Smoother(), x, clean, task=task)
    assert result.success.all()
    assert threat.contains(result.x_adv, x).all()
    error = (Smoother()(result.x_adv) - clean).square().flatten(1).mean(1)
    torch.testing.assert_close(result.loss, error)
    # All pixels moved by eps to one side is the best there is for a mean; the noise splits some images into two sides.
    best = torch.stack([(Smoother()((x + s * 0.1).clamp(0, 1)) - clean).square().flatten(1).mean(1) for s in (-1, 1)])
    assert (error > 0.5 * best.amax(0)).all()
    again = PGD(threat=threat, steps=20, loss=loss)(Smoother(), x, clean, task=task, search="first")
    assert again.success.all()
    assert (again.forwards < result.forwards).all()


def test_a_denoiser_is_led_to_a_target_image():
    x = torch.full((2, 1, 8, 8), 0.5)
    target = torch.full((2, 1, 8, 8), 0.6)
    task, threat = Denoising(floor=40.0), Threat(eps=0.1)
    result = PGD(threat=threat, steps=20)(Smoother(), x, x, task=task, target=target)
    assert result.success.all()
    assert not PGD(threat=Threat(eps=0.05), steps=20)(Smoother(), x, x, task=task, target=target).success.any()


FILE = """
from dataclasses import dataclass
from buttress.attacks import Attack
from buttress.registry import attack
from buttress.threat import Threat


@dataclass(frozen=True, kw_only=True)
class Darker(Attack):
    threat: Threat = Threat()
    by: float = 1.0

    def perturb(self, oracle, x, y, random):
        return x - self.by
"""


def test_an_attack_from_a_file_of_the_users(tmp_path, nets):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    name = f"{file}:Darker"
    darker = registry.attack.get(name)
    assert registry.attack.get(name) is darker
    x, y = torch.full((3, 4), 0.5), torch.tensor([0, 1, 0])
    result = darker(threat=Threat(eps=0.1))(nets.linear(torch.ones(2, 4)), x, y)
    torch.testing.assert_close(result.x_adv, torch.full((3, 4), 0.4))
    assert registry.attack.name_of(darker) == name
    assert registry.attack.get(registry.attack.name_of(darker(by=0.5))) is darker


@dataclass(frozen=True, kw_only=True)
class Learned(Attack):
    threat: Threat = Threat()
    network: nn.Module = dataclasses.field(default_factory=nn.Identity)
    pattern: Tensor | None = None

    def perturb(self, oracle, x, y, random):
        return x


def test_fingerprints_tell_weights_by_value(nets):
    prints = [Learned(network=nets.conv(seed)).fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]
    patterns = [torch.zeros(3), torch.zeros(3), torch.zeros(3).double(), torch.tensor(0.0), None]
    prints = [Learned(pattern=pattern, network=nets.conv()).fingerprint() for pattern in patterns]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 4
    assert PGD().fingerprint() != Learned().fingerprint()


def test_fingerprints_tell_two_losses_of_one_place_apart():
    losses = [functools.partial(scaled, factor) for factor in (1.0, 2.0)]
    losses += [lambda logits, y, k=k: k * logits[:, 0] for k in (1,)]
    losses += [closing_over(1.0), closing_over(2.0)]
    assert len({PGD(loss=loss).fingerprint() for loss in losses}) == len(losses)
    assert PGD(loss=closing_over(1.0)).fingerprint() == PGD(loss=closing_over(1.0)).fingerprint()


def scaled(factor, logits, y):
    return factor * logits[:, 0]


def closing_over(factor):
    return lambda logits, y: factor * logits[:, 0]


class Weighted:
    def __init__(self, weight):
        self.weight = weight

    def loss(self, logits, y):
        return self.weight * logits[:, 0]


def weighted(logits, y, weight=1.0):
    return weight * logits[:, 0]


def otherwise_weighted(logits, y, weight=-1.0):
    return weight * logits[:, 0]


otherwise_weighted.__qualname__ = "weighted"


def test_fingerprints_tell_names_defaults_and_objects_apart():
    pairs = [
        (lambda logits, y: logits.amax(1), lambda logits, y: logits.amin(1)),
        (Weighted(1.0).loss, Weighted(2.0).loss),
        (weighted, otherwise_weighted),
        (lambda logits, y: [z + 1 for z in logits], lambda logits, y: [z + 2 for z in logits]),
    ]
    for one, other in pairs:
        assert PGD(loss=one).fingerprint() == PGD(loss=one).fingerprint()
        assert PGD(loss=one).fingerprint() != PGD(loss=other).fingerprint()


def test_a_subclass_need_not_import_what_its_base_names(tmp_path, monkeypatch):
    """The command line reads annotations; those of PGD speak of threats and losses."""
    (tmp_path / "slow.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from buttress.attacks.gradient.pgd import PGD\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Slow(PGD):\n"
        "    patience: int = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    slow = registry.attack.get("slow.py:Slow")
    kinds = typing.get_type_hints(slow, vars(sys.modules[slow.__module__]))
    assert kinds["threat"] is Threat
    assert kinds["patience"] is int
