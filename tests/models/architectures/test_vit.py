"""Vision transformers against counts by hand, torch's own attention, and what a convolution cannot see."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from buttress import attacks, layers, models
from buttress.errors import UserError
from buttress.models.blocks.transformer import Attention, Convolution
from buttress.threat import Threat

TINY = {"classes": 3, "channels": 1, "image_size": 8, "width": 8, "depth": 2, "heads": 2}
every = pytest.mark.parametrize(
    ("name", "more"), [("vit", {}), ("vit", {"stem": "cnn"}), ("covit", {}), ("vit-hybrid", {})]
)


def count(model):
    return sum(p.numel() for p in model.parameters())


def images(n=3, side=8, seed=0):
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def tiny(name="vit", **more):
    return models.create(name, seed=0, **TINY, **more).eval()


def expected(d, mixer, *, stem, tokens, classes, depth, ratio=4):
    """Numbers in a network of width d, from the numbers in its mixer and stem."""
    block = 2 * 2 * d + mixer + (ratio * d * d + ratio * d) + (ratio * d * d + d)
    return stem + d + tokens * d + depth * block + 2 * d + classes * (d + 1)


def test_parameters_of_the_published_form():
    d, stem = 128, 128 * (3 * 16 * 16 + 1)
    attention = 3 * d * d + 3 * d + d * d + d
    convolution = 4 * (32 * 32 * 3 + 32) + d * d + d
    shape = {"stem": stem, "tokens": 14 * 14 + 1, "classes": 10, "depth": 4}
    assert count(models.create("vit")) == expected(d, attention, **shape) == 918_410
    assert count(models.create("covit")) == expected(d, convolution, **shape) == 769_930


@pytest.mark.parametrize(("heads", "kernels"), [(1, (3,)), (2, (5, 7)), (3, (9,)), (4, (11, 11, 13, 13))])
def test_settings_with_equal_parameters(heads, kernels):
    same = {**TINY, "width": 12, "heads": heads, "mixer_bias": False}
    pair = models.create("vit", **same), models.create("covit", kernels=kernels, **same)
    assert count(pair[0]) == count(pair[1])
    shape = {"stem": 12 * 5, "tokens": 17, "classes": 3, "depth": 2}
    assert count(pair[0]) == expected(12, 3 * 144 + 144 + 12, **shape)


def test_the_stem_of_convolutions():
    model = models.create("vit-hybrid", **{**TINY, "image_size": 32, "patch": 4, "channels": 3})
    halving = 4 * 3 * 9 + 2 * 4 + 8 * 4 * 9 + 2 * 8 + (8 * 8 + 8)
    mixer = 4 * 64 + 4 * 8
    assert count(model) == expected(8, mixer, stem=halving, tokens=65, classes=3, depth=2)
    assert model.embedding(torch.rand(2, 3, 32, 32)).shape == (2, 65, 8)
    same = models.create("vit", stem="cnn", seed=3, **TINY).state_dict()
    torch.testing.assert_close(models.create("vit-hybrid", seed=3, **TINY).state_dict(), same, rtol=0, atol=0)


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (16, 2), (28, 4), (32, 4), (64, 8), (224, 16)])
def test_the_patch_follows_the_image(side, patch):
    model = models.create("vit", **{**TINY, "image_size": side, "width": 4, "depth": 1})
    assert model.embedding.stem.kernel_size == (patch, patch)
    assert model.embedding.position.shape == (1, (side // patch) ** 2 + 1, 4)
    assert model(images(1, side)).shape == (1, 3)


def test_attention_is_torchs():
    ours, theirs = Attention(8, 2, True).double(), nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.projection.state_dict())
    z = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(ours(z), theirs(z, z, z)[0])


def test_the_convolution_by_hand():
    """Each group of channels is convolved along the tokens with its own kernel, zeros beyond the ends."""
    mixer = Convolution(4, (1, 3), False).double()
    z = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, three = (head.weight.detach() for head in mixer.heads)
    padded = torch.cat([torch.zeros(2, 1, 2), z[..., 2:], torch.zeros(2, 1, 2)], dim=1)
    wide = sum(padded[:, k : k + 5] @ three[:, :, k].T for k in range(3))
    mixed = torch.cat([z[..., :2] @ one[:, :, 0].T, wide], dim=-1)
    torch.testing.assert_close(mixer(z), mixed @ mixer.projection.weight.T + mixer.projection.bias)


def test_a_convolution_sees_no_further_than_its_kernel():
    reach = {}
    for name in ("vit", "covit"):
        block = tiny(name).blocks[0]
        z = torch.randn(1, 17, 8, generator=torch.Generator().manual_seed(0))
        moved = z.clone()
        moved[0, 8] += torch.arange(8.0)
        reach[name] = ((block(moved) - block(z)).abs().amax((0, 2)) > 0).nonzero().flatten().tolist()
    assert reach == {"vit": list(range(17)), "covit": [7, 8, 9]}


def test_what_the_head_sees():
    z = torch.randn(2, 17, 8, generator=torch.Generator().manual_seed(0))
    heads = {pool: tiny(pool=pool).head for pool in ("mean", "class", "patches")}
    for pool, token in {"mean": z.mean(1), "class": z[:, 0], "patches": z.mean(1)}.items():
        torch.testing.assert_close(heads[pool](z), heads[pool].linear(heads[pool].norm(token)))
    assert tiny(pool="patches").embedding(images()).shape == (3, 16, 8)
    assert tiny(pool="mean").embedding(images()).shape == (3, 17, 8)


@every
def test_layers_are_seen_and_second_derivatives_exist(name, more):
    model, x = tiny(name, **more), images().requires_grad_()
    with layers.capture(model) as seen:
        logits = model(x)
    assert [key for key in seen if "mlp" in key] == ["blocks.0.mlp.1", "blocks.1.mlp.1"]
    (slope,) = torch.autograd.grad(logits.log_softmax(1)[:, 0].sum(), x, create_graph=True)
    second = torch.autograd.grad(slope.square().sum(), model.blocks[0].mixer.projection.weight)[0]
    assert second.isfinite().all()
    assert second.abs().sum() > 0


def test_attention_weights_are_a_layer():
    model = tiny()
    with layers.capture(model, "*softmax") as seen:
        model(images())
    assert list(seen) == ["blocks.0.mixer.softmax", "blocks.1.mixer.softmax"]
    torch.testing.assert_close(seen["blocks.1.mixer.softmax"].sum(-1), torch.ones(3, 2, 17))


@every
def test_attacks_take_it_as_it_is(name, more):
    model, x, y = tiny(name, **more), images(6), torch.arange(6) % 3
    attack = attacks.PGD(threat=Threat(eps=0.1), steps=3)
    plain, twin = (attack(model, x, y, precision=precision).x_adv for precision in ("fp32", "twin"))
    assert (twin - x).abs().max() <= 0.1 + 1e-6
    with torch.no_grad():
        before, after, fast = (float(cross_entropy(model(points), y)) for points in (x, plain, twin))
        with torch.autocast("cpu", torch.bfloat16):
            coarse = model(x).float()
        torch.testing.assert_close(coarse, model(x), rtol=0.05, atol=0.05)
    assert before < fast
    assert fast == pytest.approx(after, rel=0.05)
    assert model.double()(x.double()).dtype == torch.float64


@every
def test_copies_are_the_same_network(name, more):
    model, x = tiny(name, **more), images()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"heads": 3}, "width must be a multiple of heads; got 8 for 3 heads"),
        ({"patch": 3}, "image_size must be a multiple of patch; got 8 for patches of 3"),
        ({"kernels": (2,)}, "kernels must be one odd size, or one for each of the 2 heads; got (2,)"),
        ({"kernels": (1, 3, 5)}, "kernels must be one odd size, or one for each of the 2 heads; got (1, 3, 5)"),
        ({"mixer": "pooling"}, "mixer must be one of attention, convolution; got 'pooling'"),
        ({"stem": "none"}, "stem must be one of patch, cnn; got 'none'"),
        ({"pool": "max"}, "pool must be one of mean, class, patches; got 'max'"),
        ({"mlp_ratio": 0}, "mlp_ratio must be a finite number above 0; got 0"),
        ({"mixer_bias": 1}, "mixer_bias must be True or False; got 1"),
        ({"stem": "cnn", "patch": 1}, "with stem 'cnn' patch must be a power of 2 from 2 on; got 1"),
    ],
)
def test_options_that_make_no_sense(options, line):
    with pytest.raises(UserError) as told:
        models.create("vit", **{**TINY, **options})
    assert str(told.value) == line
