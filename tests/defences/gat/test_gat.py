"""Generative adversarial training: its objective, what is drawn, what is dropped, and who learns."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks.unrestricted.generator_styles import LEVELS, Latent
from buttress.attacks.unrestricted.image_edits import Semantic
from buttress.defences.base.networks import new_network
from buttress.defences.base.pretraining import pretrain
from buttress.defences.gat.defence import GAT
from buttress.defences.gat.generator_training import style_vae
from buttress.errors import UserError
from buttress.random import derive, generator

QUICK = {"epochs": 1, "judge_epochs": 1, "latent": 4, "steps": 2}


class Judge(nn.Module):
    """Sure of class 0 for all."""

    def forward(self, x):
        return torch.tensor([9.0, 0.0, 0.0, 0.0], dtype=x.dtype).expand(len(x), 4)


@pytest.fixture
def smooth(network):
    return network(dropout=0.0, dtype=torch.float64, activation=nn.Tanh)


def ready(images, model, **settings):
    defence = GAT(**{**QUICK, **settings})
    with torch.random.fork_rng():
        defence.prepare(model, images, 5)
    return defence


def cross_entropy(logits, y):
    return -(logits - logits.exp().sum(1, keepdim=True).log()).gather(1, y[:, None]).squeeze(1)


def drawn(place, levels):
    return levels[int(torch.randint(len(levels), (), generator=generator(derive(place.seed, "level"))))]


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_it_is_the_mean_over_clean_and_attacked_images(weight, smooth, images, batch, context):
    """Generator and attack are made again here, from the seed."""
    defence, by_hand = ready(images, smooth, legitimacy=0.0, weight=weight), copy.deepcopy(smooth)
    place = context(smooth, batch)
    made = style_vae(images.train, 4, seed=derive(5, "generator"), epochs=1, latent=4)
    attack = Latent(generator=made, level=drawn(place, LEVELS), steps=2)
    x_adv = attack.craft(smooth, batch.x, batch.y, seed=place.seed, ids=batch.ids)
    assert not torch.equal(x_adv, batch.x)
    loss = defence.loss(smooth, batch, place)
    clean, attacked = (cross_entropy(by_hand(x), batch.y) for x in (batch.x, x_adv))
    expected = (clean.sum() + weight * attacked.sum()) / (8 + 8 * weight)
    torch.testing.assert_close(loss.value, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(loss.logs["natural"], clean.mean().detach())
    torch.testing.assert_close(loss.logs["adversarial"], attacked.mean().detach())
    assert loss.logs["dropped"] == 0


def test_what_the_auxiliary_classifier_doubts_is_dropped(smooth, images, batch, context):
    """Those of class 0 stay; the others are passed as they were and do not count."""
    defence, by_hand = ready(images, smooth), copy.deepcopy(smooth)
    defence._judge = [Judge()]
    place = context(smooth, batch)
    kept = batch.y == 0
    x_adv = place.craft(defence._attacks[LEVELS.index(drawn(place, LEVELS))])
    x_adv = torch.where(kept[:, None, None, None], x_adv, batch.x)
    loss = defence.loss(smooth, batch, place)
    clean, attacked = (cross_entropy(by_hand(x), batch.y) for x in (batch.x, x_adv))
    torch.testing.assert_close(loss.value, (clean.sum() + attacked[kept].sum()) / (8 + 2), rtol=1e-9, atol=0)
    torch.testing.assert_close(loss.logs["adversarial"], attacked[kept].mean().detach())
    torch.testing.assert_close(loss.logs["dropped"], torch.tensor(0.75, dtype=torch.float64))


def test_the_auxiliary_classifier_is_the_models_architecture_trained_on_clean_images(network, images, batch):
    model = network(dropout=0.0)
    defence = ready(images, model, judge_epochs=3)
    with torch.random.fork_rng():
        judge = new_network(model, derive(5, "judge"))
        pretrain(judge, images.train, epochs=3, seed=derive(5, "judging"), batch_size=16)
    probability = judge.eval()(batch.x.float()).softmax(1).gather(1, batch.y[:, None]).squeeze(1)
    for share in (0.2, 0.25):
        defence.legitimacy = share
        assert torch.equal(defence.legitimate(batch.x.float(), batch.y), probability >= share)
    assert 0 < (probability >= 0.25).sum() < 8


def test_without_steps_the_second_half_is_reconstructions(smooth, images, batch, context):
    defence, by_hand = ready(images, smooth, steps=0, legitimacy=0.0, levels="all"), copy.deepcopy(smooth)
    made = defence.attack.generator
    x_rec = copy.deepcopy(made).double()(batch.x, batch.y)
    loss = defence.loss(smooth, batch, context(smooth, batch)).value
    clean, again = (cross_entropy(by_hand(x), batch.y) for x in (batch.x, x_rec))
    torch.testing.assert_close(loss, (clean + again).mean() / 2, rtol=1e-9, atol=0)
    assert defence.cost.crafting == 0


def test_each_level_is_drawn_for_a_quarter_of_the_batches(smooth, images, batch, context, monkeypatch):
    defence, seen = ready(images, smooth, legitimacy=0.0), []
    monkeypatch.setattr(Latent, "craft", lambda self, model, x, y, **_: seen.append(self.level) or x)
    for index in range(400):
        defence.loss(smooth, batch, context(smooth, batch, index=index))
    assert set(seen) == set(LEVELS)
    assert all(70 < seen.count(level) < 130 for level in LEVELS)
    only = ready(images, smooth, levels=["mid"])
    assert [attack.level for attack in only._attacks] == ["mid"]


def test_gradients_reach_the_classifier_alone(network, images, single, context):
    model = network(dropout=0.0)
    defence = ready(images, model)
    assert not list(defence.parameters())
    assert not list(defence.buffers())
    made, judge = defence.attack.generator, defence._judge[0]
    before = {name: value.clone() for name, value in made.state_dict().items()}
    defence.loss(model, single, context(model, single)).value.backward()
    assert all(p.grad is None and not p.requires_grad for p in (*made.parameters(), *judge.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert model[0].weight.grad.abs().sum() > 0


def test_low_level_edits_need_no_generator(smooth, images, batch, context):
    defence = ready(images, smooth, edits="low-level", strength=0.5)
    by_hand, place = copy.deepcopy(smooth), context(smooth, batch)
    attack = Semantic(strength=0.5, steps=2)
    assert defence.attack == attack
    x_adv = attack.craft(smooth, batch.x, batch.y, seed=place.seed, ids=batch.ids)
    loss = defence.loss(smooth, batch, place).value
    expected = sum(F.cross_entropy(by_hand(x), batch.y) for x in (batch.x, x_adv)) / 2
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=0)


def test_a_resumed_run_makes_the_same_generator(network, images, same):
    one, other = (ready(images, network()) for _ in range(2))
    same(one.attack.generator.state_dict(), other.attack.generator.state_dict())
    same(one._judge[0].state_dict(), other._judge[0].state_dict())


def test_settings_are_looked_at(smooth, batch, context):
    with pytest.raises(UserError, match="call that first"):
        GAT().loss(smooth, batch, context(smooth, batch))
    assert GAT().attack is None
    wrong = [
        ({"edits": "pixels"}, "latent or low-level"),
        ({"levels": ["top"]}, "levels"),
        ({"levels": []}, "levels"),
        ({"levels": "top"}, "levels"),
        ({"edits": "low-level", "steps": 0}, "reconstructions"),
        ({"weight": -1.0}, "weight"),
        ({"legitimacy": 1.0}, "legitimacy"),
        ({"latent": 0}, "latent"),
        ({"judge_epochs": -1}, "judge_epochs"),
        ({"steps": -1}, "steps"),
        ({"style_step": 0.0}, "style_step"),
    ]
    for settings, told in wrong:
        with pytest.raises(UserError, match=told):
            GAT(**settings)
