"""The one-pixel attack where a single pixel decides, and against all pixels tried one by one."""

import math

import pytest
import torch

from buttress.attacks.black_box.one_pixel import OnePixel, three_others
from buttress.errors import UserError
from buttress.random import Random
from buttress.threat import Threat


def one_eye(row, column, channels=1):
    """A model that looks at one pixel only, and says 1 where the sum of its channels is above 0.9 of the largest."""

    def model(x):
        seen = 10 * (x[:, :, row, column].sum(1) / channels - 0.9)
        return torch.stack([-seen, seen], 1).detach()

    return model


def changed(x_adv, x):
    """(N, H, W) bool: pixels that differ in any channel."""
    return (x_adv != x).any(1)


@pytest.mark.parametrize(("channels", "place"), [(1, (4, 2)), (3, (0, 5))])
def test_finds_the_one_decisive_pixel(channels, place):
    x = 0.4 * torch.rand(5, channels, 6, 6, generator=torch.Generator().manual_seed(1))
    result = OnePixel(queries=900, population=60)(one_eye(*place, channels), x, torch.zeros(5, dtype=torch.long))
    assert result.success.all()
    where = torch.zeros(6, 6, dtype=torch.bool)
    where[place] = True
    assert torch.equal(changed(result.x_adv, x), where.expand(5, 6, 6))
    assert (result.backwards == 0).all()


def test_finds_the_one_decisive_feature():
    x = 0.4 * torch.rand(5, 20, generator=torch.Generator().manual_seed(1))

    def model(x):
        return torch.stack([0.9 - x[:, 13], x[:, 13] - 0.9], 1)

    result = OnePixel(queries=900, population=60)(model, x, torch.zeros(5, dtype=torch.long))
    assert result.success.all()
    assert [row.nonzero().flatten().tolist() for row in result.x_adv != x] == [[13]] * 5


@pytest.mark.representatives(targeted=[True])
@pytest.mark.parametrize("targeted", [False, True])
def test_comes_close_to_the_best_of_all_pixels_and_colours(nets, targeted):
    """Each pixel with each of 11 colours, for images of one channel."""
    model, y = nets.conv(), torch.zeros(4, dtype=torch.long)
    x = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(6))
    y = model(x).argmax(1)
    target = (y + 1) % 4 if targeted else None
    result = OnePixel(queries=1500, population=50)(model, x, y, target=target)

    def loss(points):
        logs = model(points).log_softmax(1).detach()
        return logs.gather(1, target[:, None])[:, 0] if targeted else -logs.gather(1, y[:, None])[:, 0]

    best = loss(x)
    for pixel in range(36):
        for colour in torch.linspace(0, 1, 11).tolist():
            points = x.flatten(1).clone()
            points[:, pixel] = colour
            best = torch.maximum(best, loss(points.view_as(x)))
    start, found = loss(x), loss(result.x_adv)
    assert (changed(result.x_adv, x).flatten(1).sum(1) == 1).all()
    assert (found - start >= 0.95 * (best - start)).all()


@pytest.mark.parametrize("pixels", [1, 3])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_changes_so_many_pixels_at_most_and_stays_in_the_threat(nets, norm, pixels):
    model = nets.conv(2)
    x = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(6))
    threat = Threat(norm=norm, eps=0.2)
    result = OnePixel(threat=threat, pixels=pixels, population=8, queries=50)(model, x, torch.arange(6) % 4)
    assert (changed(result.x_adv, x).flatten(1).sum(1) <= pixels).all()
    assert (result.distance > 0).any()
    assert threat.contains(result.x_adv, x).all()


@pytest.mark.parametrize("queries", [1, 2, 5, 23])
def test_never_worse_than_the_start_and_asks_exactly_as_often_as_it_may(nets, queries):
    model, seen = nets.conv(), []
    x, y = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(6)), torch.arange(6) % 4
    start = torch.nn.functional.cross_entropy(model(x), y, reduction="none").detach()
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    result = OnePixel(queries=queries, population=4)(model, x, y)
    assert (result.forwards == queries + 1).all()  # and the verdict
    assert sum(seen) == 6 * (queries + 1)
    newly_beaten = result.success & (model(x).argmax(1) == y)
    assert ((result.loss >= start - 1e-6) | newly_beaten).all()
    assert result.success[model(x).argmax(1) != y].all()
    assert queries > 1 or torch.equal(result.x_adv, x)


def test_a_generation_is_made_of_the_one_before(nets):
    """Every child is one candidate plus half the difference of two others; parents give way to better children."""
    population, seen = 5, []

    def model(x):
        seen.append(x.clone())
        return torch.stack([-x.flatten(1).sum(1), x.flatten(1).sum(1)], 1)

    x = torch.zeros(1, 1)  # one pixel: only its colour is left to choose
    OnePixel(queries=1 + 3 * population, population=population)(model, x, torch.zeros(1, dtype=torch.long))
    colours = torch.cat(seen[1:-1]).flatten().view(3, population)
    members = colours[0]
    for children in colours[1:]:
        pairs = members[:, None, None] + 0.5 * (members[None, :, None] - members[None, None, :])
        for child in children:
            assert (pairs.clamp(0, 1) - child).abs().min() < 1e-6
        members = torch.maximum(members, children)
    assert float(seen[-1]) == float(colours.max())


def test_a_candidate_that_beats_the_model_is_kept_whatever_its_loss():
    """The dark end of a lone pixel has the higher loss, its bright end the wrong class."""

    def model(x):
        value = x.flatten(1)
        dark, bright = value < 0.3, value > 0.6
        logits = torch.where(dark, torch.tensor([1.0, 0.9, 0.9]), torch.tensor([2.0, 0.0, 0.0]))
        return torch.where(bright, torch.tensor([2.0, 2.1, -9.0]), logits)

    x, y = torch.full((3, 1), 0.5), torch.zeros(3, dtype=torch.long)
    result = OnePixel(queries=60, population=20)(model, x, y)
    assert result.success.all()
    assert (result.x_adv > 0.6).all()
    assert (result.loss < -model(torch.zeros(3, 1)).log_softmax(1)[:, 0]).all()


def test_the_three_others_are_different_and_evenly_drawn():
    me = torch.arange(6)
    a, b, c = three_others(6, Random(0, torch.arange(3000)))
    drawn = torch.stack([me.expand_as(a), a, b, c], 2).sort(2).values
    assert (drawn.diff(dim=2) > 0).all()
    assert drawn.amin() == 0
    assert drawn.amax() == 5
    for other in (a, b, c):
        share = torch.nn.functional.one_hot((other - me) % 6, 6).double().mean((0, 1))
        torch.testing.assert_close(share, torch.tensor([0, 0.2, 0.2, 0.2, 0.2, 0.2]).double(), rtol=0, atol=0.015)


def test_an_input_fares_alike_in_any_batch(nets):
    model = nets.conv(dtype=torch.float64)
    x = torch.rand(6, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    y, ids = model(x).argmax(1), torch.tensor([5, 900, 2, 77, 31, 8])
    attack = OnePixel(queries=60, population=6)
    whole = attack(model, x, y, ids=ids)
    for part in ([3], [5, 0], [1, 2, 4]):
        assert torch.equal(attack(model, x[part], y[part], ids=ids[part]).x_adv, whole.x_adv[part])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pixels": 0}, "pixels must be a whole number of 1 or more; got 0"),
        ({"population": 3}, "population must be a whole number of 4 or more"),
        ({"queries": 0}, "queries must be a whole number of 1 or more; got 0"),
        ({"threat": Threat(eps=math.inf, box=None)}, "finite eps or a box"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        OnePixel(**wrong)
