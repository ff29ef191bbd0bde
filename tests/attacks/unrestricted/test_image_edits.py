"""The attack by edits: each within its range, by signed steps, and nothing where nothing is asked."""

import pytest
import torch

from buttress.attacks import Semantic
from buttress.attacks.corruptions.image_operations import blurred, contrasted, displaced, turning
from buttress.attacks.unrestricted.image_edits import EDITS
from buttress.errors import UserError

EXACT = {"rtol": 0, "atol": 1e-12}


def images(n, *shape):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture(scope="module")
def case(nets):
    model = nets.conv(seed=3, dtype=torch.float64)
    x = 0.3 + 0.4 * images(6, 1, 6, 6)
    with torch.no_grad():
        model[5].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


def colours(nets):
    weight = torch.randn(3, 3 * 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return nets.linear(weight)


def test_edits_at_their_limits_are_what_they_say():
    x, one = 0.4 + 0.2 * images(2, 3, 28, 28), torch.ones(2, dtype=torch.float64)
    attack = Semantic()
    torch.testing.assert_close(attack.edited(x, {"brightness": one}), x + 0.2, **EXACT)
    torch.testing.assert_close(attack.edited(x, {"contrast": -one}), contrasted(x, 0.6), **EXACT)
    torch.testing.assert_close(attack.edited(x, {"blur": one}), blurred(x, 1.0), **EXACT)
    torch.testing.assert_close(attack.edited(x, {"rotation": one}), displaced(x, turning(15 * one, (28, 28))), **EXACT)
    shift = attack.edited(x, {"translation": torch.stack([one, 0 * one], 1) / 0.07 / 28})
    torch.testing.assert_close(shift[..., :-1], x[..., 1:], **EXACT)
    far = attack.edited(x, {"elastic": torch.ones(2, 2, 4, 4, dtype=torch.float64) / 0.04 / 28})
    torch.testing.assert_close(far[..., :-1, :-1], x[..., 1:, 1:], **EXACT)
    grey = x.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(attack.edited(grey, {"hue": one, "saturation": one}), grey, **EXACT)
    half = Semantic(strength=0.5).edited(x, {"brightness": one})
    torch.testing.assert_close(half, x + 0.1, **EXACT)
    wide = Semantic(box=(-1.0, 3.0)).edited(4 * x - 1, {"brightness": one, "saturation": one})
    torch.testing.assert_close(wide, 4 * attack.edited(x, {"saturation": one, "brightness": one}) - 1, **EXACT)


def test_brightness_ascends_to_its_limit(nets, case):
    """On a model that likes its second class bright, the first is attacked by light and the second by dark."""
    model = nets.linear(torch.stack([-torch.ones(36), torch.ones(36)]).double())
    x = 0.3 + 0.4 * images(2, 1, 6, 6)
    out = Semantic(edits="brightness", steps=4, step=0.4, stop=False).craft(model, x, torch.tensor([0, 1]))
    torch.testing.assert_close(out[0], x[0] + 0.2, **EXACT)
    torch.testing.assert_close(out[1], x[1] - 0.2, **EXACT)


@pytest.mark.parametrize("edit", EDITS)
def test_each_edit_alone_raises_the_loss(nets, edit):
    model, x = colours(nets), 0.3 + 0.4 * images(6, 3, 6, 6)
    y = model(x).argmax(1)
    attack = Semantic(edits=[edit], steps=3, step=0.05, stop=False)
    result = attack(model, x, y)
    before = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
    assert (result.loss >= before - 1e-9).float().mean() > 0.7
    assert (result.loss - before).mean() > 0
    assert (result.forwards == 4).all()


def test_one_step_follows_the_gradient_of_every_edit(case):
    model, x, y = case
    attack = Semantic(edits=("contrast", "rotation"), steps=1, step=0.3, start="uniform", stop=False)
    ids = torch.arange(6)
    from buttress.random import Random, derive

    random = Random(derive(5, "attack"), ids)
    values = {edit: (2 * random.uniform((), x.dtype) - 1).requires_grad_() for edit in ("contrast", "rotation")}
    loss = torch.nn.functional.cross_entropy(model(attack.edited(x, values)), y, reduction="sum")
    slopes = torch.autograd.grad(loss, list(values.values()))
    stepped = {e: (v + 0.3 * s.sign()).clamp(-1, 1).detach() for (e, v), s in zip(values.items(), slopes, strict=True)}
    torch.testing.assert_close(attack.craft(model, x, y, seed=5, ids=ids), attack.edited(x, stepped), **EXACT)


def test_zero_steps_no_strength_and_wrong_inputs_keep_the_bits(case):
    model, x, y = case
    assert torch.equal(Semantic(steps=0).craft(model, x, y), x)
    torch.testing.assert_close(Semantic(strength=0.0).craft(model, x, y), x, **EXACT)
    assert torch.equal(Semantic().craft(model, x, (y + 1) % 4), x)
    assert not torch.equal(Semantic(stop=False).craft(model, x, (y + 1) % 4), x)


def test_settings_are_looked_at(case):
    model, x, y = case
    for wrong in ({"edits": ["sepia"]}, {"edits": ()}, {"steps": -1}, {"start": "middle"}, {"step": 0.0}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Semantic(**wrong)
    with pytest.raises(UserError, match="strength"):
        Semantic(strength=-1.0)
    with pytest.raises(UserError, match="three channels; got 1"):
        Semantic(edits="hue")(model, x, y)
