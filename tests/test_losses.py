"""The losses against independent NumPy, over random logits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress import losses
from buttress.errors import UserError


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def cross_entropy(z, y):
    return -np.log(softmax(z)[y])


def margin(z, y):
    return np.delete(z, y).max() - z[y]


def dlr(z, y):
    ordered = np.sort(z)[::-1]
    return -(z[y] - np.delete(z, y).max()) / (ordered[0] - ordered[2] + 1e-12)


def log_odds_against(z, y):
    return np.log(np.exp(np.delete(z, y)).sum()) - z[y]


def negative_logit(z, y):
    return -z[y]


def logits(seed, n, classes, scale):
    random = np.random.default_rng(seed)
    return scale * random.normal(size=(n, classes)), random.integers(classes, size=n)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 5), classes=st.integers(3, 8), scale=st.sampled_from([0.01, 1.0, 30.0])
)
@pytest.mark.parametrize("reference", [cross_entropy, margin, dlr, log_odds_against, negative_logit])
def test_label_losses(reference, seed, n, classes, scale):
    z, y = logits(seed, n, classes, scale)
    expected = np.array([reference(row, label) for row, label in zip(z, y, strict=True)])
    actual = getattr(losses, reference.__name__)(torch.tensor(z), torch.tensor(y))
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 8), scale=st.sampled_from([0.01, 1.0, 30.0]))
def test_kl_is_that_of_the_clean_distribution_from_the_moved_one(seed, classes, scale):
    (z, _), (clean, _) = logits(seed, 3, classes, scale), logits(seed + 1, 3, classes, scale)
    p, q = (np.array([softmax(row) for row in rows]) for rows in (clean, z))
    actual = losses.kl(torch.tensor(z), torch.tensor(clean)).numpy()
    np.testing.assert_allclose(actual, (p * np.log(p / q)).sum(1), rtol=1e-7, atol=1e-12)
    assert (actual >= 0).all()


def test_mse_is_the_mean_over_all_but_the_batch():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 3, 1, 4, 4))
    np.testing.assert_allclose(losses.mse(torch.tensor(a), torch.tensor(b)).numpy(), ((a - b) ** 2).mean((1, 2, 3)))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), classes=st.integers(2, 6))
def test_the_direction_of_cross_entropy_is_that_of_its_gradient(seed, classes):
    z, y = (torch.tensor(v) for v in logits(seed, 4, classes, 2.0))
    gradients = []
    for loss in (losses.cross_entropy, losses.resolve("cross_entropy").direction):
        leaf = z.clone().requires_grad_()
        gradients.append(torch.autograd.grad(loss(leaf, y).sum(), leaf)[0])
    torch.testing.assert_close(*(g / g.norm(dim=1, keepdim=True) for g in gradients))


def test_dlr_ignores_shift_and_scale_of_the_logits():
    z, y = (torch.tensor(v) for v in logits(3, 6, 5, 1.0))
    torch.testing.assert_close(losses.dlr(7 * z + 3, y), losses.dlr(z, y))


def test_dlr_with_two_classes_is_the_margin_and_says_so():
    z, y = (torch.tensor(v) for v in logits(3, 6, 2, 1.0))
    with pytest.warns(UserWarning, match="DLR needs 3 classes, the model has 2"):
        assert torch.equal(losses.dlr(z, y), losses.margin(z, y))


def test_resolve_takes_names_functions_and_losses():
    assert losses.resolve("kl").against == "clean"
    assert losses.resolve(losses.margin) == losses.Loss(losses.margin)
    own = losses.Loss(losses.margin, against="clean")
    assert losses.resolve(own) is own
    with pytest.raises(UserError, match=r"^there is no loss 'cross_entorpy'; did you mean 'cross_entropy'\?$"):
        losses.resolve("cross_entorpy")
    with pytest.raises(UserError, match=r"^a loss is a name or a function of outputs and labels; got Tensor$"):
        losses.resolve(torch.zeros(3))
