"""The attack in styles and noises: which level moves, how far, and what becomes of the input."""

import copy
import math

import pytest
import torch

from buttress.attacks import Latent
from buttress.attacks.unrestricted.generator_styles import LEVELS, Pyramid
from buttress.errors import UserError
from buttress.models.blocks.style_vae import StyleVAE

EXACT = {"rtol": 0, "atol": 1e-12}


@pytest.fixture(scope="module")
def case(nets):
    """(model, generator, x, y) in float64, all inputs right; inputs far from the box."""
    model = nets.conv(seed=3, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    with torch.no_grad():
        model[5].bias -= model(x).mean(0)
    generator = nets.seeded(lambda: StyleVAE((1, 6, 6), 4, 3)).double().eval()
    return model, generator, x, model(x).argmax(1)


class Recorder(Pyramid):
    """A pyramid that keeps the last styles and noises it was asked about."""

    def generate(self, styles, noises):
        self.last = [v.detach().clone() for v in (*styles, *noises)]
        return super().generate(styles, noises)


@pytest.mark.parametrize("level", LEVELS)
def test_only_the_styles_and_noises_of_the_level_move_and_only_so_far(case, level):
    model, _, x, y = case
    recorder = Recorder().eval()  # in training mode a copy would be asked
    limits = {"style_step": 0.3, "style_limit": 0.5, "noise_step": 0.4, "noise_limit": 1.0}
    Latent(generator=recorder, level=level, steps=4, stop=False, **limits).craft(model, x, y)
    for k, values in enumerate(recorder.last):
        if level in ("all", LEVELS[k % 3]):
            reached = values.abs().amax()
            assert reached == (0.25 if k < 3 else 1.0)  # the spread of the pyramid's styles is a half
        else:
            assert (values == 0).all()


def test_one_step_is_signed_ascent_in_styles_and_noises(case):
    """Against autograd through generator and model, written out here."""
    model, generator, x, y = case
    attack = Latent(generator=generator, level="mid", steps=1, style_step=0.05, noise_step=0.1)
    styles, noises = generator.invert(x, y)
    styles, noises = [s.detach() for s in styles], [n.detach() for n in noises]
    base = generator.generate(styles, noises)
    style, noise = styles[1].clone().requires_grad_(), noises[1].clone().requires_grad_()
    image = generator.generate([styles[0], style, styles[2]], [noises[0], noise, noises[2]])
    loss = torch.nn.functional.cross_entropy(model(x + image - base.detach()), y, reduction="sum")
    slopes = torch.autograd.grad(loss, [style, noise])
    moved = [styles[0], style + 0.05 * slopes[0].sign(), styles[2]], [noises[0], 0.1 * slopes[1].sign(), noises[2]]
    expected = x + generator.generate(*moved) - base
    torch.testing.assert_close(attack.craft(model, x, y), expected.detach(), **EXACT)
    assert (expected - x).abs().amax() > 1e-4


@pytest.mark.parametrize("noises", ["zero", "normal"])
def test_zero_steps_give_the_input_or_its_reconstruction(case, noises):
    model, generator, x, y = case
    assert torch.equal(Latent(generator=generator, steps=0, noises=noises).craft(model, x, y), x)
    made = Latent(generator=generator, steps=0, residue=False).craft(model, x, y)
    torch.testing.assert_close(made, generator(x, y).detach(), **EXACT)


def test_an_input_that_is_wrong_already_keeps_its_bits(case):
    model, generator, x, y = case
    wrong = (y + (torch.arange(6) < 2)) % 4
    stopped = Latent(generator=generator).craft(model, x, wrong)
    assert torch.equal(stopped[:2], x[:2])
    assert not torch.equal(stopped[2:], x[2:])
    assert not torch.equal(Latent(generator=generator, stop=False).craft(model, x, wrong)[:2], x[:2])


def test_it_stops_at_the_first_point_that_is_wrong(case):
    model, _, x, y = case
    limits = {"style_step": 0.2, "style_limit": 3.0, "steps": 15}
    result = Latent(**limits)(model, x, y)
    shorter = torch.stack([Latent(**{**limits, "steps": k}, stop=False)(model, x, y).x_adv for k in range(16)])
    wrong = torch.stack([model(point).argmax(1) != y for point in shorter])
    assert wrong.any(0).any()
    for i in range(6):
        place = int(wrong[:, i].int().argmax()) if wrong[:, i].any() else 15
        torch.testing.assert_close(result.x_adv[i], shorter[place, i], **EXACT)


def test_the_loss_rises(case):
    model, generator, x, y = case
    for level in LEVELS:
        moved = Latent(generator=generator, level=level, stop=False)(model, x, y)
        before = torch.nn.functional.cross_entropy(model(x), y, reduction="none")
        assert (moved.loss > before).all(), level


def test_a_target_is_approached(case):
    model, _, x, y = case
    target = (y + 1) % 4
    moved = Latent(style_limit=2.0, style_step=0.2, stop=False)(model, x, y, target=target).x_adv
    assert (model(moved).log_softmax(1) - model(x).log_softmax(1)).gather(1, target[:, None]).gt(0).all()


def test_the_box_scales_the_generators_images(case, nets):
    """In the box [-1, 3] the same styles make four times the change."""
    _, generator, x, y = case
    flat = nets.linear(torch.randn(4, 36, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    one = Latent(generator=generator, stop=False).craft(flat, x, y)
    wide = Latent(generator=generator, stop=False, box=(-1.0, 3.0), loss="margin").craft(flat, 4 * x - 1, y)
    same_loss = Latent(generator=generator, stop=False, loss="margin").craft(flat, x, y)
    assert one.shape == x.shape
    torch.testing.assert_close(wide, 4 * same_loss - 1, rtol=0, atol=1e-9)


def test_the_generator_comes_back_as_it_was_and_the_passes_are_counted(case):
    model, generator, x, y = case
    training = copy.deepcopy(generator).train()
    before = {k: v.clone() for k, v in training.state_dict().items()}
    result = Latent(generator=training, steps=3)(model, x, y)
    assert training.training
    assert all(p.requires_grad and p.grad is None for p in training.parameters())
    assert all(torch.equal(v, before[k]) for k, v in training.state_dict().items())
    assert (result.forwards == 4).all()
    assert (result.backwards == 3).all()


def test_an_input_fares_alike_in_any_batch(case):
    model, generator, x, y = case
    attack = Latent(generator=generator, noises="normal")
    ids = torch.tensor([5, 900, 2, 77, 31, 8])
    whole = attack.craft(model, x, y, ids=ids)
    for part in ([3], [5, 0], [1, 2, 4]):
        torch.testing.assert_close(attack.craft(model, x[part], y[part], ids=ids[part]), whole[part], **EXACT)
    assert not torch.equal(attack.craft(model, x, y, ids=ids + 1), whole)


def test_a_float32_generator_serves_float64_inputs(case, nets):
    model, generator, x, y = case
    single = copy.deepcopy(generator).float()
    torch.testing.assert_close(
        Latent(generator=single, steps=0, residue=False).craft(model, x, y), single.double()(x, y).detach(), **EXACT
    )


def test_the_fingerprint_tells_the_weights_and_settings_are_looked_at(case, nets):
    model, generator, x, y = case
    other = nets.seeded(lambda: StyleVAE((1, 6, 6), 4, 3), seed=9).double()
    assert len({Latent(generator=g).fingerprint() for g in (generator, copy.deepcopy(generator), other)}) == 2
    with pytest.raises(UserError, match="generator must be a torch module"):
        Latent(generator="stylegan")
    with pytest.raises(UserError, match="generator must have invert, generate, spread; Linear"):
        Latent(generator=torch.nn.Linear(2, 2))(model, x, y)
    with pytest.raises(UserError, match="need images"):
        Latent()(nets.linear(torch.eye(5)), torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))
    for wrong in ({"level": "top"}, {"noises": "pink"}, {"steps": -1}, {"style_step": 0.0}, {"noise_limit": math.nan}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            Latent(**wrong)
