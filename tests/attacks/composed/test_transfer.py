"""Crafting on a surrogate: what is asked of whom, what counts, and whose verdict it is."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from buttress.attacks import APGD, FGSM, MIFGSM, PGD, EoT, Transfer
from buttress.errors import UserError
from buttress.models.wrapping.mean_ensemble import Ensemble
from buttress.threat import Threat

THREAT = Threat(eps=0.08)


@pytest.fixture(scope="module")
def case(nets):
    def made(seed):
        model = nets.conv(seed=seed)
        with torch.no_grad():
            model[5].weight *= 8
            model[5].bias -= model(x).mean(0)
        return model

    x = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    model, surrogate = made(3), made(7)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4  # one that is wrong from the start
    return model, surrogate, x, y


class Watched(nn.Module):
    """Notes in which state it is called."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, []

    def forward(self, x):
        self.calls.append((self.training, len(x)))
        return self.model(x)


@pytest.mark.parametrize("target", [None, "random"])
@pytest.mark.parametrize("attack", [PGD(threat=THREAT), APGD(threat=THREAT, steps=6), MIFGSM(threat=THREAT)])
def test_with_the_model_itself_it_is_the_attack_inside(case, attack, target):
    model, _, x, y = case
    ours = Transfer(attack=attack, surrogate=model)(model, x, y, seed=2, target=target)
    theirs = attack(model, x, y, seed=2, target=target)
    assert torch.equal(ours.x_adv, theirs.x_adv)
    assert torch.equal(ours.success, theirs.success)
    assert torch.equal(ours.forwards, theirs.forwards)
    assert torch.equal(ours.backwards, theirs.backwards)


def test_the_points_are_the_surrogates_and_the_verdict_is_the_models(case):
    model, surrogate, x, y = case
    attack = PGD(threat=THREAT, steps=7)
    ours = Transfer(attack=attack, surrogate=surrogate)(model, x, y, seed=1)
    there = attack(surrogate, x, y, seed=1)
    assert torch.equal(ours.x_adv, there.x_adv)
    assert torch.equal(ours.success, model(ours.x_adv).argmax(1) != y)
    assert not torch.equal(ours.success, there.success)
    assert (ours.forwards == 8).all()
    assert (ours.backwards == 7).all()


def test_the_attacked_model_need_not_give_gradients_and_only_judges(case):
    model, surrogate, x, y = case
    watched = Watched(model)

    def closed(x):
        with torch.no_grad():
            return watched(x)

    result = Transfer(attack=PGD(threat=THREAT), surrogate=surrogate)(closed, x, y)
    assert [count for _, count in watched.calls] == [12]
    first = Transfer(attack=PGD(threat=THREAT), surrogate=surrogate)(closed, x, y, search="first")
    stands = model(x).argmax(1) == y
    assert torch.equal(first.x_adv[~stands], x[~stands])
    assert torch.equal(first.x_adv[stands], result.x_adv[stands])
    assert (first.forwards[~stands] == 1).all()
    assert (first.forwards[stands] == 12).all()


def test_the_surrogate_comes_back_as_it_was_also_after_an_exception(nets):
    surrogate, model = nets.awkward(5, seed=1), nets.awkward(5).eval()
    x, y = torch.rand(6, 5, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=torch.int64)
    before = nets.state(surrogate)
    attack = Transfer(attack=PGD(threat=THREAT), surrogate=surrogate)
    attack(model, x, y)
    nets.assert_state(surrogate, before)

    def fail(module, args):
        raise KeyError("the cable was cut")

    hook = surrogate.register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        attack(model, x, y)
    hook.remove()
    nets.assert_state(surrogate, before)


def test_the_surrogate_runs_in_eval_mode_though_the_model_may_train(case):
    model, surrogate, x, y = case
    watched = Watched(surrogate).train()
    Transfer(attack=FGSM(threat=THREAT), surrogate=watched)(model, x, y, mode="train")
    assert [training for training, _ in watched.calls] == [False]
    assert watched.training


def test_several_surrogates_are_one_model(case, nets):
    model, surrogate, x, y = case
    both = Ensemble([surrogate, nets.conv(seed=9)], mean="probabilities")
    attack = PGD(threat=THREAT)
    ours = Transfer(attack=attack, surrogate=both)(model, x, y)
    assert torch.equal(ours.x_adv, attack(both, x, y).x_adv)


def test_draws_inside_are_the_surrogates_and_those_around_the_models(case):
    model, surrogate, x, y = case
    inside = Transfer(attack=EoT(attack=FGSM(threat=THREAT), draws=5), surrogate=surrogate)(model, x, y)
    assert (inside.forwards == 5 + 1).all()
    around = EoT(attack=Transfer(attack=FGSM(threat=THREAT), surrogate=surrogate), draws=5)(model, x, y)
    assert (around.forwards == 1 + 5).all()
    torch.testing.assert_close(inside.x_adv, around.x_adv)


def test_in_bf16_the_surrogate_searches_and_the_verdict_is_exact(case):
    model, surrogate, x, y = case
    result = Transfer(attack=PGD(threat=THREAT), surrogate=surrogate)(model, x, y, precision="bf16")
    assert result.precision == "bf16"
    assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)
    auto = Transfer(attack=PGD(threat=THREAT), surrogate=surrogate)(model, x, y, precision="auto")
    assert auto.precision in ("fp32", "bf16", "folded", "twin")


def test_what_is_no_surrogate_is_refused(case, nets):
    model, _, x, y = case
    with pytest.raises(UserError, match="surrogate must be a torch module"):
        Transfer(attack=PGD(), surrogate=3)
    with pytest.raises(UserError, match="attack must be an attack with a threat"):
        Transfer(attack="pgd", surrogate=model)
    with pytest.raises(UserError, match="labels must be 0 to 1"):
        Transfer(attack=PGD(), surrogate=nets.conv(classes=2))(model, x, y)


def test_the_threat_is_that_of_the_attack_inside(case):
    _, surrogate, *_ = case
    assert Transfer(attack=PGD(threat=THREAT), surrogate=surrogate).threat == THREAT
    prints = {Transfer(attack=PGD(threat=t), surrogate=surrogate).fingerprint() for t in (THREAT, THREAT, Threat())}
    assert len(prints) == 2


def test_every_block_of_the_page_for_users_runs(case, capsys):
    page = (Path(__file__).parents[3] / "docs" / "attacks.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    model, _, x, y = case
    names = {"model": model, "x": x, "y": y}
    for block in blocks:
        exec(compile(block, "docs/attacks.md", "exec"), names)
    assert len(blocks) == 13
    assert "forward passes an input" in capsys.readouterr().out
    assert names["through"].success.sum() > names["plain"].success.sum()
    assert names["fools_both"].shape == y.shape


def test_told_is_the_precision_in_which_the_surrogate_was_searched(case, nets):
    model, _, x, y = case
    hooked = nets.conv(seed=7)
    hooked.register_forward_hook(lambda *_: None)  # such a network has no twin
    result = Transfer(attack=PGD(threat=THREAT, steps=2), surrogate=hooked)(model, x, y, precision="twin")
    assert result.precision == "bf16"


def test_without_a_surrogate_it_says_how_to_name_one():
    with pytest.raises(
        UserError, match=r"needs a surrogate, .*: surrogate=NETWORK in Python, .* --by.surrogate FOLDER"
    ):
        Transfer()
