"""Regularisers of a layer against closed forms; and what a constant layer does to each."""

import pytest
import torch

from buttress.errors import UserError
from buttress.layers.measures import MEASURES, mean_defined
from buttress.layers.regularisers import REGULARISERS, LayerStep, class_contrast, resolve, share

AGAINST = sorted(set(REGULARISERS) - set(MEASURES))  # those that set displacement against what the layer is there for
EXACT = {"rtol": 0, "atol": 1e-12}


def step(seed=0, n=12, shape=(2, 3), classes=3, dtype=torch.float64, moved=0.3):
    """A layer that tells classes apart, its displacement, and a rest of the network by margin and gradient."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    y = torch.arange(n) % classes
    clean = normal(classes, *shape)[y] + 0.5 * normal(n, *shape)
    return LayerStep(
        clean.to(dtype),
        (clean + moved * normal(n, *shape)).to(dtype),
        y,
        normal(n).abs() + 0.1,
        normal(n, *shape).to(dtype),
    )


def replaced(one, **values):
    return LayerStep(**{**vars(one), **values})


def contrasts(rows, y):
    """Mean of the own class less mean of all others, by loops."""
    result = []
    for label in y.tolist():
        own, others = rows[y == label], rows[y != label]
        result.append(own.mean(0) - others.mean(0))
    return torch.stack(result)


def by_hand(name, one):
    """The mean share over inputs of other classes, by loops over pairs; of tolerance, as the rest's linearisation."""
    clean, moved = one.clean.flatten(1), (one.perturbed - one.clean).flatten(1)
    read = unit(one.gradient.flatten(1))
    towards = unit(contrasts(clean, one.y))
    shares = []
    for i, label in enumerate(one.y.tolist()):
        d = (read[i] @ moved[i]).abs() if name == "margin_direction" else moved[i].norm()
        pairs = []
        for j in (one.y != label).nonzero().flatten().tolist():
            gap = clean[i] - clean[j]
            if name == "between_classes":
                s = (towards[i] @ gap).clamp(min=0)
            elif name == "margin_direction":
                s = (read[i] @ gap).clamp(min=0)
            else:
                tolerated = one.margin[i].clamp(min=0) / one.gradient[i].norm()
                s = torch.minimum(tolerated, torch.maximum((read[i] @ gap).abs(), (read[j] @ gap).abs()))
            pairs.append(d / (d + s) if s else torch.ones_like(d))
        shares.append(torch.stack(pairs).mean())
    return torch.stack(shares)


def unit(vectors):
    return vectors / vectors.norm(dim=1, keepdim=True)


def test_those_that_a_constant_layer_cannot_satisfy():
    assert AGAINST == ["between_classes", "margin_direction", "tolerance"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", AGAINST)
def test_its_value_is_the_closed_form(name, seed):
    one = step(seed)
    torch.testing.assert_close(resolve(name)(one), by_hand(name, one), **EXACT)


def test_a_share_by_hand():
    """Two classes at -1 and 1, moved by 1 against their distance of 2; margin 3 of slope 2 tolerates 1.5."""
    y, clean = torch.tensor([0, 0, 1, 1]), torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    one = LayerStep(clean, clean * 0, y, torch.full((4,), 3.0), 2 * clean)
    torch.testing.assert_close(resolve("between_classes")(one), torch.full((4,), 1 / 3))
    torch.testing.assert_close(resolve("tolerance")(one), torch.full((4,), 1 / (1 + 1.5)))
    torch.testing.assert_close(resolve("margin_direction")(one), torch.full((4,), 1 / 3))


def test_tolerance_is_the_distance_to_the_boundary_of_a_linear_rest():
    """At the point where a linear rest changes its mind the displacement is all that is tolerated: a share of 1/2."""
    one, boundary = step(3, classes=2), torch.tensor([[[1.0, 0.5, -2.0], [0.3, 1.0, 0.0]]]).double()
    side = torch.where(one.y == 0, 1.0, -1.0).double()
    clean = one.clean + 2 * (side[:, None, None] - ((one.clean * boundary).sum((1, 2)) / 6)[:, None, None]) * boundary
    one = replaced(one, clean=clean, gradient=side[:, None, None] * boundary)
    one = replaced(one, margin=side * (clean * boundary).sum((1, 2)))
    assert (one.margin > 0).all()
    slope = one.gradient.flatten(1)
    way = -slope * (one.margin / slope.square().sum(1))[:, None]
    on_the_boundary = replaced(one, perturbed=one.clean + way.view_as(one.clean))
    torch.testing.assert_close(resolve("tolerance")(on_the_boundary), torch.full((12,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("name", sorted(REGULARISERS))
def test_what_a_constant_layer_does(name):
    """A layer without any spread has the largest share there is; the paper's measure is then the smallest there is."""
    one = step()
    constant = replaced(one, clean=torch.full_like(one.clean, 5.0), perturbed=torch.full_like(one.clean, 5.0))
    before, after = (mean_defined(resolve(name)(s)) for s in (one, constant))
    if name in AGAINST:
        assert after == 1
        assert before < 1
    else:
        assert after == 0
        assert before > 0


@pytest.mark.parametrize("name", sorted(REGULARISERS))
def test_a_large_constant_added_to_the_layer_lowers_the_papers_measure_alone(name):
    one = step()
    shifted = replaced(one, clean=one.clean + 100, perturbed=one.perturbed + 100)
    before, after = (mean_defined(resolve(name)(s)) for s in (one, shifted))
    if name.startswith("relative_error") or name == "cosine":
        assert after < before / 10
    else:
        torch.testing.assert_close(after, before, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-18, 1e-3, 1e12])
@pytest.mark.parametrize("name", AGAINST)
def test_scaling_a_layer_whose_rest_answers_changes_nothing(name, scale):
    one = step(dtype=torch.float32)
    scaled = replaced(one, clean=one.clean * scale, perturbed=one.perturbed * scale, gradient=one.gradient / scale)
    torch.testing.assert_close(resolve(name)(scaled), resolve(name)(one), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", AGAINST)
def test_scaling_down_towards_a_constant_never_lowers_it_whatever_the_rest_does(name):
    """With the rest as it was, logits go to those of a constant layer, of which one class of three is right."""
    one = step()
    least = min(float(mean_defined(resolve(name)(one))), 2 / 3)
    for scale in (0.1, 1e-4, 0.0):
        margin = torch.where(one.y == 0, 1.0, -1.0).double()
        shrunk = replaced(one, clean=one.clean * scale, perturbed=one.perturbed * scale, margin=margin)
        assert float(mean_defined(resolve(name)(shrunk))) >= least - 1e-12


@pytest.mark.parametrize("name", AGAINST)
def test_its_gradient_does_not_reward_a_smaller_layer(name):
    """The derivative along the layer's scale is 0: training cannot lower it by shrinking the layer."""
    one = step()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    value = resolve(name)(replaced(one, clean=one.clean * scale, perturbed=one.perturbed * scale)).sum()
    (slope,) = torch.autograd.grad(value, scale)
    torch.testing.assert_close(slope, torch.zeros_like(slope), **EXACT)


@pytest.mark.parametrize("name", AGAINST)
def test_its_gradient_is_that_of_its_value(name):
    one = step(n=6)
    clean, perturbed = (v.clone().requires_grad_() for v in (one.clean, one.perturbed))

    def value(a, b):
        return resolve(name)(replaced(one, clean=a, perturbed=b)).sum()

    if name == "tolerance":  # where the linear tolerance goes with how far inputs are apart
        values, surrogate = value(clean, perturbed), tolerance_in_proportion(one, clean, perturbed)
        torch.testing.assert_close(values, surrogate, **EXACT)
        ours, theirs = (torch.autograd.grad(v, (clean, perturbed)) for v in (values, surrogate))
        torch.testing.assert_close(ours, theirs, **EXACT)
        assert torch.autograd.gradcheck(lambda a, b: tolerance_in_proportion(one, a, b), (clean, perturbed))
    else:
        assert torch.autograd.gradcheck(value, (clean, perturbed))


def tolerance_in_proportion(one, clean, perturbed):
    """The sum of tolerance as a function of the layer alone: m / ||dm/dz|| at ``one``, times how r has grown since."""
    read, total = unit(one.gradient.flatten(1)), 0

    def apart(values, i):
        gaps = (values[i] - values).flatten(1)
        r = torch.maximum((gaps @ read[i]).abs(), (gaps * read).sum(1).abs())
        return r[one.y != one.y[i]]

    for i in range(len(clean)):
        now, then = apart(clean, i), apart(one.clean, i)
        linear = one.margin[i] / one.gradient[i].norm() * (now.square().mean() / then.square().mean()).sqrt()
        d = (perturbed[i] - clean[i]).norm()
        total = total + (d / (d + torch.minimum(linear, now))).mean()
    return total


@pytest.mark.parametrize("name", ["tolerance", "margin_direction"])
def test_a_spread_that_the_rest_does_not_read_changes_nothing_and_is_not_rewarded(name):
    """The first column is all that the margin hangs on, at every input; the others are made larger."""
    one, unread = step(shape=(5,)), torch.tensor([False, True, True, True, True])
    one = replaced(one, gradient=torch.where(unread, 0, one.gradient))
    values, slopes = [], []
    for size in (1.0, 10.0, 100.0):
        scale = torch.tensor(size, dtype=torch.float64, requires_grad=True)
        clean = torch.where(unread, one.clean * scale, one.clean)
        value = resolve(name)(replaced(one, clean=clean, perturbed=clean + one.perturbed - one.clean)).mean()
        values.append(value.detach())
        slopes.append(torch.autograd.grad(value, scale)[0])
    torch.testing.assert_close(torch.stack(values), values[0].expand(3), **EXACT)
    torch.testing.assert_close(torch.stack(slopes), torch.zeros(3, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize("jitter", [0.0, 1e-9])
@pytest.mark.parametrize("alive", [(1, 1, 1), (1, 0, 0), (3, 1, 0)])
@pytest.mark.parametrize("name", AGAINST)
def test_a_layer_that_is_one_constant_for_most_inputs_has_nearly_the_largest_share(name, alive, jitter):
    """Of 96 inputs some are told apart, by class; the others are at one value, up to rounding, and do not move."""
    y = torch.arange(96) % 3
    clean = torch.full((96, 10), 2.0) + jitter * torch.randn(96, 10, generator=torch.Generator().manual_seed(0))
    for label, count in enumerate(alive):
        clean[(y == label).nonzero().flatten()[:count], label] = 3.0
    reads = torch.nn.functional.one_hot(y, 10).float()
    one = LayerStep(clean, clean.clone(), y, torch.ones(96), reads)
    assert float(mean_defined(resolve(name)(one))) > 0.9


@pytest.mark.parametrize("name", AGAINST)
def test_a_row_that_is_not_finite_is_undefined_and_changes_no_other(name):
    one = step()
    kept = torch.arange(12) != 4
    spoilt, without = one.clean.clone(), LayerStep(*(v[kept] for v in vars(one).values()))
    spoilt[4, 0, 1] = torch.inf
    leaf = spoilt.requires_grad_()
    values = resolve(name)(replaced(one, clean=leaf, perturbed=one.perturbed + 0 * leaf))
    assert values[4].isnan()
    torch.testing.assert_close(values[kept], resolve(name)(without), **EXACT)
    (slope,) = torch.autograd.grad(mean_defined(resolve(name)(replaced(one, clean=leaf))), leaf)
    assert slope.isfinite().all()
    assert not slope[4].any()


@pytest.mark.parametrize("name", AGAINST)
def test_a_batch_in_which_nothing_is_to_be_told_apart_counts_nothing(name):
    one = step(n=1)
    if resolve(name).needs_classes:
        one = replaced(step(), y=torch.zeros(12, dtype=torch.int64))
    leaf = one.clean.clone().requires_grad_()
    values = resolve(name)(replaced(one, clean=leaf))
    assert values.isnan().all()
    (slope,) = torch.autograd.grad(mean_defined(values), leaf)
    assert not slope.any()


def test_an_input_that_is_wrong_unperturbed_tolerates_nothing():
    one = step()
    margin = one.margin.clone()
    margin[:3] = torch.tensor([0.0, -1.0, -100.0])
    moved = one.perturbed.clone().requires_grad_()
    values = resolve("tolerance")(replaced(one, margin=margin, perturbed=moved))
    assert values[:3].tolist() == [1, 1, 1]
    (slope,) = torch.autograd.grad(values.sum(), moved)
    assert not slope[:3].any()
    assert slope[3:].any()


def test_a_rest_that_reads_nothing_of_the_layer():
    """Nothing is apart along what is read: a share of 1, whatever is tolerated."""
    one = step()
    blind = replaced(one, gradient=torch.zeros_like(one.gradient))
    assert resolve("margin_direction")(blind).tolist() == [1] * 12
    assert resolve("tolerance")(blind).tolist() == [1] * 12


def test_a_rest_that_reads_nothing_of_the_layer_at_one_input_tolerates_all_that_others_read_of_it():
    one = step()
    gradient = one.gradient.clone()
    gradient[0] = 0
    blind = replaced(one, gradient=gradient)
    gap = (one.clean[0] - one.clean).flatten(1)
    seen = (unit(one.gradient.flatten(1)) * gap).sum(1).abs()[one.y != one.y[0]]
    d = (one.perturbed[0] - one.clean[0]).norm()
    torch.testing.assert_close(resolve("tolerance")(blind)[0], (d / (d + seen)).mean(), **EXACT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", AGAINST)
def test_half_precision_is_computed_in_float32(name, dtype):
    one = step(dtype=dtype)
    full = LayerStep(*(v.double() if v.is_floating_point() else v for v in vars(one).values()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = resolve(name)(one)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), by_hand(name, full), rtol=1e-5, atol=1e-6)


def test_contrasts_keep_their_digits_beside_an_offset():
    one = step(dtype=torch.float32)
    rows, everyone = one.clean.flatten(1), torch.ones(12, dtype=torch.bool)
    offset = 2.0**12
    shifted, defined = class_contrast(rows + offset, one.y, everyone)
    exact = contrasts((rows + offset).double(), one.y)
    assert defined.all()
    torch.testing.assert_close(shifted.double(), exact, rtol=0, atol=2e-4)


def test_a_share_of_nothing():
    zero, one = torch.zeros(1), torch.ones(1)
    assert [float(share(d, s)) for d, s in ((zero, one), (one, one), (one, zero), (zero, zero))] == [0, 0.5, 1, 1]


def test_an_unknown_name():
    with pytest.raises(UserError, match="there is no measure 'tolerence'; did you mean 'tolerance'"):
        resolve("tolerence")
