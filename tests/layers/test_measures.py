import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.errors import UserError
from buttress.layers.measures import (
    MEASURES,
    centred,
    cka,
    cosine,
    mean_defined,
    ratio,
    relative_error,
    resolve,
    row_norms,
)

ALL = sorted(MEASURES)


def pair(seed=0, n=6, shape=(2, 3), dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    clean = torch.randn(n, *shape, generator=random, dtype=dtype)
    return clean, clean + 0.3 * torch.randn(n, *shape, generator=random, dtype=dtype)


def in_numpy(name, clean, perturbed):
    c, p = (t.numpy().reshape(len(t), -1) for t in (clean, perturbed))
    size = np.linalg.norm
    if name == "relative_error":
        return size(c - p, axis=1) / size(c, axis=1)
    if name == "relative_error_batch":
        return np.full(len(c), np.sqrt(((c - p) ** 2).sum()) / np.sqrt((c**2).sum()))
    if name == "centred":
        return size(c - p, axis=1) / size(c - c.mean(0), axis=1)
    if name == "cosine":
        return 1 - (c * p).sum(1) / (size(c, axis=1) * size(p, axis=1))
    c, p = c - c.mean(0), p - p.mean(0)
    value = 1 - size(c.T @ p) ** 2 / (size(c.T @ c) * size(p.T @ p))
    return np.full(len(c), value)


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 1000), n=st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_each_measure_is_its_formula(name, seed, n):
    clean, perturbed = pair(seed, n)
    np.testing.assert_allclose(
        MEASURES[name](clean, perturbed), in_numpy(name, clean, perturbed), rtol=1e-9, atol=1e-12
    )
    single = MEASURES[name](clean.float(), perturbed.float())
    np.testing.assert_allclose(single, in_numpy(name, clean, perturbed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_gradients_agree_with_finite_differences(name):
    clean, perturbed = (t.requires_grad_() for t in pair())
    assert torch.autograd.gradcheck(MEASURES[name].function, (clean, perturbed, None))


@pytest.mark.parametrize("name", ALL)
def test_no_displacement_is_exactly_zero_with_a_gradient_of_zero(name):
    clean, _ = pair(dtype=torch.float32)
    clean = clean.requires_grad_()
    perturbed = clean.detach().clone().requires_grad_()
    value = MEASURES[name](clean, perturbed)
    assert torch.equal(value, torch.zeros(6))
    for grad in torch.autograd.grad(value.sum(), (clean, perturbed)):
        assert torch.equal(grad, torch.zeros_like(grad))


@pytest.mark.parametrize("name", ["relative_error", "cosine", "centred"])
def test_nothing_over_nothing_is_zero_and_something_over_nothing_is_left_out(name):
    clean = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    perturbed = torch.tensor([[0.0, 0.0], [1.0, 0.0], [3.0, 3.0]], requires_grad=True)
    value = MEASURES[name](clean, perturbed, torch.zeros(2))
    assert value[0] == 0
    assert value[1].isnan()
    assert 0 < value[2] < 1
    total = mean_defined(value)
    torch.testing.assert_close(total, value[2] / 2)
    for grad in torch.autograd.grad(total, (clean, perturbed)):
        assert bool(grad.isfinite().all())
        assert not grad[:2].any()
        assert grad[2].any()


def test_the_batch_measures_on_nothing():
    nothing, something = torch.zeros(3, 2), torch.eye(3)[:, :2]
    for name in ("relative_error_batch", "cka"):
        assert torch.equal(MEASURES[name](nothing, nothing), torch.zeros(3))
        assert bool(MEASURES[name](nothing, something).isnan().all())


def test_mean_defined_of_nothing_is_zero():
    assert mean_defined(torch.full((3,), torch.nan)) == 0
    assert mean_defined(torch.zeros(0)) == 0


def test_an_offset_lowers_the_relative_error_but_not_the_centred_one():
    clean, perturbed = pair()
    plain, offset = relative_error(clean, perturbed), relative_error(clean + 100, perturbed + 100)
    assert bool((offset < 0.1 * plain).all())
    torch.testing.assert_close(centred(clean, perturbed), centred(clean + 100, perturbed + 100))
    centre = clean.mean(0)
    with_centre = centred(clean, perturbed, centre + 100), centred(clean + 100, perturbed + 100, centre + 200)
    torch.testing.assert_close(*with_centre)
    torch.testing.assert_close(centred(clean, perturbed), centred(clean, perturbed, centre))


def test_cosine_ignores_scale_and_cka_ignores_rotation_offset_and_scale():
    clean, perturbed = pair(shape=(5,))
    torch.testing.assert_close(cosine(clean, perturbed), cosine(3 * clean, 0.2 * perturbed))
    torch.testing.assert_close(cosine(clean, -clean), torch.full((6,), 2.0, dtype=torch.float64))
    random = torch.Generator().manual_seed(5)
    turn, _ = torch.linalg.qr(torch.randn(5, 5, generator=random, dtype=torch.float64))
    torch.testing.assert_close(cka(clean, perturbed), cka(clean, 7 * perturbed @ turn + 3))
    torch.testing.assert_close(cka(clean, clean @ turn), torch.zeros(6, dtype=torch.float64))


def test_half_precision_is_measured_in_single():
    clean, perturbed = (t.bfloat16() for t in pair())
    for name in ALL:
        value = MEASURES[name](clean, perturbed)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, MEASURES[name](clean.float(), perturbed.float()))


def test_too_few_inputs_and_unknown_names_are_refused():
    one = torch.ones(1, 3)
    with pytest.raises(UserError, match="CKA needs 2 or more inputs to a batch; got 1"):
        cka(one, one)
    with pytest.raises(UserError, match="needs a centre, or 2 or more"):
        centred(one, one)
    assert centred(one, 2 * one, torch.zeros(3)) == 1
    with pytest.raises(UserError, match="did you mean 'relative_error'"):
        resolve("relative_eror")
    assert resolve(MEASURES["cka"]) is resolve("cka")


def test_ratio_has_gradients_everywhere():
    numerator = torch.tensor([0.0, 1.0, 1.0], requires_grad=True)
    denominator = torch.tensor([0.0, 0.0, 2.0], requires_grad=True)
    value = ratio(numerator, denominator)
    torch.testing.assert_close(value.detach(), torch.tensor([0.0, torch.nan, 0.5]), equal_nan=True)
    a, b = torch.autograd.grad(value[2] + value[0], (numerator, denominator))
    torch.testing.assert_close(a, torch.tensor([0.0, 0.0, 0.5]))
    torch.testing.assert_close(b, torch.tensor([0.0, 0.0, -0.25]))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1e-36, 1e-25, 1e-20, 1e19, 1e25, 1e35])
def test_tiny_and_huge_activations_are_displaced_as_others(name, scale):
    """No square of theirs is a float32 number; in float64 all of them are."""
    random = torch.Generator().manual_seed(0)
    clean, perturbed = torch.randn(2, 4, 6, generator=random)
    expected = MEASURES[name](clean.double(), perturbed.double())
    scaled = (scale * values for values in (clean, perturbed))
    torch.testing.assert_close(MEASURES[name](*scaled), expected.float(), rtol=1e-5, atol=0)


def test_norms_of_usual_size_have_the_digits_that_they_had():
    random = torch.Generator().manual_seed(0)
    clean, perturbed = torch.randn(2, 50, 64, generator=random)
    plain = torch.linalg.vector_norm(clean - perturbed, dim=1) / torch.linalg.vector_norm(clean, dim=1)
    torch.testing.assert_close(MEASURES["relative_error"](clean, perturbed), plain, rtol=2e-7, atol=0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_are_scaled_where_that_changes_them_alone(seed, dtype):
    """Bit for bit the scaled ones, as gradients ask for, also of rows whose numbers differ by 30 orders."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(12, 300, generator=random, dtype=dtype) * 10.0 ** torch.arange(-6, 6)[:, None]
    spread = rows * 10 ** (-30 * torch.rand(12, 300, generator=random, dtype=dtype))
    for values in (rows, spread, rows * (torch.arange(12) != seed)[:, None], rows * 1e-25, rows * 1e20):
        scaled = row_norms(values.clone().requires_grad_())
        assert torch.equal(row_norms(values), scaled)
        torch.testing.assert_close(scaled.double(), values.double().norm(dim=1), rtol=1e-5, atol=0)
