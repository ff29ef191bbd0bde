"""Several labels: what is wrong, by how much, which way is up, and what is refused."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from buttress import losses, tasks
from buttress.attacks import FGSM, PGD
from buttress.errors import UserError
from buttress.tasks import MultiLabel
from buttress.threat import Threat

ANY, ALL = MultiLabel(), MultiLabel(wrong="all")


def random_case(seed, shape=(5, 3)):
    generator = torch.Generator().manual_seed(seed)
    z = 3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return z, torch.randint(2, shape, generator=generator)


def test_any_or_all_of_the_labels_wrong():
    z = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0], [torch.nan, -1.0], [0.0, 0.0]])
    y = torch.tensor([[1, 0]] * 4 + [[0, 1]])
    assert ANY.is_adversarial(z, y).tolist() == [False, True, True, True, True]
    assert ALL.is_adversarial(z, y).tolist() == [False, False, True, True, False]
    assert ANY.score(z, y).tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert ANY.is_adversarial(z, y, torch.tensor([[1, 1]] * 5)).tolist() == [False, True, False, False, False]
    assert (ANY.score_name, ALL.score_name) == ("exact match", "share with a label right")


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
@given(seed=st.integers(0, 10_000), wrong=st.sampled_from(["any", "all"]))
def test_the_margin_is_positive_exactly_where_it_is_wrong(seed, wrong, dtype):
    z, y = random_case(seed)
    task = MultiLabel(wrong=wrong)
    assert torch.equal(task.margin(z, y.to(dtype)) > 0, task.is_adversarial(z, y.to(dtype)))
    _, target = random_case(seed + 1)
    led = task.resolve("margin").value(z, y, target)
    assert torch.equal(led > 0, task.is_adversarial(z, y, target))


@given(st.integers(0, 10_000))
def test_losses_are_those_of_bernoulli_distributions(seed):
    z, y = random_case(seed)
    torch.testing.assert_close(
        losses.binary_cross_entropy(z, y), F.binary_cross_entropy_with_logits(z, y.double(), reduction="none").sum(1)
    )
    assert torch.equal(ANY.objective(z, y), ALL.objective(z, y))
    torch.testing.assert_close(losses.bernoulli_kl(z, z), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("task", [ANY, ALL], ids=["any", "all"])
def test_the_slope_survives_saturation(task):
    """At logits of 1000 the right way, the softest label's sigmoid is 0 in float64; the nearest has most of it."""
    y = torch.tensor([[1, 0, 1]])
    z = torch.tensor([[1000.0, -1200.0, 1100.0]])
    value, slope = task.resolve(task.loss).slope(z, y)
    signs, far = torch.tensor([[-1.0, 1.0, -1.0]]), z.double().abs()
    size = (far**-8).sum() ** -0.125 if task is ANY else (far**2).sum() ** 0.5
    torch.testing.assert_close(value, -size[None])
    torch.testing.assert_close(slope, signs * ((size / far) ** 9 if task is ANY else far / size))


@pytest.mark.parametrize("task", [ANY, ALL], ids=["any", "all"])
def test_fgsm_is_exact_on_a_linear_model_whose_labels_see_inputs_of_their_own(task):
    """Then label k can be moved by eps |w_k| whatever becomes of the others."""
    weight = torch.zeros(3, 9, dtype=torch.float64)
    for label in range(3):
        weight[label, 3 * label : 3 * label + 3] = torch.randn(3, generator=torch.Generator().manual_seed(label))
    x = torch.randn(200, 9, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    y = torch.randint(2, (200, 3), generator=torch.Generator().manual_seed(8))
    for eps in (0.1, 0.4):
        result = FGSM(threat=Threat(eps=eps, box=None))(lambda points: points @ weight.T, x, y, task=task)
        reached = losses.label_margins(x @ weight.T, y) + eps * weight.abs().sum(1)
        assert torch.equal(result.success, (reached > 0).any(1) if task is ANY else (reached > 0).all(1))
        assert 0 < result.success.double().mean() < 1


def test_the_mean_of_outputs_is_that_of_their_sigmoids():
    outputs = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(ANY.mean(list(outputs)).sigmoid(), outputs.sigmoid().mean(0))
    assert ANY.mean([torch.full((1, 1), 1000.0)] * 2) == 1000


def test_labels_in_words():
    assert ANY.words(torch.tensor([1, 0, 1]), ["cat", "dog"]) == "cat, 2"
    assert ANY.words(torch.tensor([False, False]), ["cat", "dog"]) == "none"
    z = torch.tensor([[2.0, -math.log(3)]])
    assert ANY.decision(z).tolist() == [[1, 0]]
    torch.testing.assert_close(ANY.confidence(z), torch.tensor([0.75]))


Z = torch.tensor([[1.0, -1.0, 2.0], [0.5, 1.0, -2.0]])


@pytest.mark.parametrize(
    ("y", "line"),
    [
        (torch.tensor([0, 2]), r"labels must be 0 or 1 of shape \(2, 3\); got torch.int64 of shape \(2,\): for one "),
        (torch.zeros(3, 2), r"shape \(2, 3\); got torch.float32 of shape \(3, 2\): use y.T"),
        (torch.tensor([[1, -1, 1], [1, 1, -1]]), r"labels must be 0 or 1; got -1 to 1: use y > 0$"),
        (torch.tensor([[0.9, 0.1, 1.0], [0.2, 0.0, 1.0]]), r"labels must be 0 or 1; got 0 to 1: use y > 0.5$"),
        (torch.zeros(2, 3, 1), r"shape \(2, 3\); got torch.float32 of shape \(2, 3, 1\): use y.flatten\(1\)$"),
        (torch.full((2, 3), 7), r"labels must be 0 or 1; got 7 to 7$"),
        (torch.full((2, 3), torch.nan), r"labels must be 0 or 1; got nan to nan$"),
    ],
)
def test_what_are_no_labels(y, line):
    with pytest.raises(UserError, match=line):
        ANY.check(Z, y)


def test_other_refusals():
    with pytest.raises(UserError, match=r"got torch.int64 of shape \(2,\): use y\[:, None\]"):
        ANY.check(Z[:, :1], torch.tensor([0, 1]))
    with pytest.raises(UserError, match="outputs all lie in"):
        ANY.check(Z.repeat(2, 1).sigmoid(), torch.ones(4, 3))
    with pytest.raises(UserError, match="NaN or infinite for 1 of the 2 inputs"):
        ANY.check(torch.where(Z == 2, torch.inf, Z), torch.ones(2, 3))
    with pytest.raises(UserError, match=r"must return logits \(inputs, labels\); it returned shape \(2, 3, 1\)"):
        ANY.read(Z[:, :, None])
    with pytest.raises(UserError, match="wrong must be"):
        MultiLabel(wrong="some")
    with pytest.raises(UserError, match=r"labels must be 0 or 1 of shape"):
        PGD()(lambda x: x @ Z, torch.full((2, 2), 0.5), torch.tensor([0, 1]), task=tasks.MultiLabel())
