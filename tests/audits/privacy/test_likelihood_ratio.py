"""The likelihood ratio on answers drawn from known normal distributions, where the best test is known."""

import pytest
import torch
from torch.distributions import Normal

from buttress.audits.privacy.likelihood_ratio import form_of, likelihood_ratio, log_odds
from buttress.audits.privacy.membership import inferred
from buttress.errors import UserError


def case(count=400, references=24, shift=1.5, seed=0):
    """Inputs of a difficulty of their own: log-odds N(m, 1) by networks that did not see them, N(m + shift, 1) else."""
    random = torch.Generator().manual_seed(seed)
    ease = 4 * torch.randn(count, generator=random, dtype=torch.float64)
    seen = torch.rand(references, count, generator=random) < 0.5
    member = torch.arange(count) < count // 2
    odds = ease + shift * seen + torch.randn(references, count, generator=random, dtype=torch.float64)
    target = ease + shift * member + torch.randn(count, generator=random, dtype=torch.float64)
    return target, odds, seen, member, ease


def advantage(scores, member):
    return inferred(scores[member], scores[~member], 0)["advantage"]


def test_log_odds_are_exact_where_probabilities_round():
    logits = torch.tensor([[30.0, 0.0, -1.0], [0.0, 1.0, 2.0]])
    p = logits[1].double().softmax(0)[0]
    found = log_odds(logits, torch.tensor([0, 0]))
    assert found[1] == pytest.approx(float((p / (1 - p)).log()))
    assert found[0] == pytest.approx(30 - float(torch.tensor([0.0, -1.0], dtype=torch.float64).logsumexp(0)))


def test_it_is_the_ratio_of_the_likelihoods():
    """Two references of each kind: means and deviations by hand."""
    odds = torch.tensor([[1.0], [3.0], [6.0], [10.0]], dtype=torch.float64)
    seen = torch.tensor([[False], [False], [True], [True]])
    target = torch.tensor([4.0], dtype=torch.float64)
    expected = Normal(8.0, 8**0.5).log_prob(target) - Normal(2.0, 2**0.5).log_prob(target)
    torch.testing.assert_close(likelihood_ratio(target, odds, seen, "each"), expected, check_dtype=False)
    torch.testing.assert_close(likelihood_ratio(target, odds, seen, "shared"), expected, check_dtype=False)


def test_offline_is_how_far_above_those_that_did_not_see_it():
    odds = torch.tensor([[1.0, 5.0], [3.0, 9.0]], dtype=torch.float64)
    target = torch.tensor([4.0, 7.0], dtype=torch.float64)
    found = likelihood_ratio(target, odds, torch.zeros(2, 2, dtype=torch.bool), "each")
    torch.testing.assert_close(found, torch.tensor([2 / 2**0.5, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("form", ["online", "offline"])
def test_calibration_finds_what_a_threshold_alone_does_not(form):
    """The best test knows each input's ease: advantage 2 Phi(0.75) - 1 = 0.547; a threshold alone has a fifth of it."""
    target, odds, seen, member, ease = case(4000)
    seen = seen if form == "online" else torch.zeros_like(seen)
    odds = odds if form == "online" else odds - 1.5 * case(4000)[2]
    assert form_of(seen) == form
    found = advantage(likelihood_ratio(target, odds, seen), member)
    best, alone = advantage(target - ease, member), advantage(target, member)
    assert best == pytest.approx(0.547, abs=0.04)
    assert found > best - 0.06
    assert alone < 0.25


def test_a_shared_variance_is_better_with_few_references():
    """Variances of two values each are worth little."""
    target, odds, seen, member, _ = case(4000, references=5)
    known = seen.any(0) & ~seen.all(0)
    target, odds, seen, member = target[known], odds[:, known], seen[:, known], member[known]
    each, shared = (advantage(likelihood_ratio(target, odds, seen, kind), member) for kind in ("each", "shared"))
    assert shared > each
    assert torch.equal(likelihood_ratio(target, odds, seen), likelihood_ratio(target, odds, seen, "shared"))


def test_what_cannot_be_calibrated_is_refused():
    target, odds = torch.zeros(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(UserError, match="1 of 2 inputs were seen by all 2 reference networks"):
        likelihood_ratio(target, odds, torch.tensor([[True, False], [True, True]]))
    with pytest.raises(UserError, match="2 reference networks or more"):
        likelihood_ratio(target, odds[:1], torch.zeros(1, 2, dtype=torch.bool))
    alone = torch.tensor([[True, False], [False, True]])
    with pytest.raises(UserError, match="no input has two reference networks alike"):
        likelihood_ratio(target, odds, alone)
