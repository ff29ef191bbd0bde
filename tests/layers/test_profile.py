import json
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.errors import UserError
from buttress.layers import LayerProfile
from buttress.layers.profile import QUANTILES


def profile(values, input_change=None, **parts):
    values = torch.tensor(values)
    p, length, n = values.shape
    change = torch.full((p, n), 0.5) if input_change is None else torch.tensor(input_change)
    parts = {"predecessors": list(range(-1, length - 1)), "crossed": [True] * length} | parts
    names = [f"layer{k}" for k in range(length)]
    return LayerProfile.of(names, ["pgd", "gaussian"][:p], "relative_error", values, change, **parts)


def constant(means):
    """A profile of one perturbation in which every input has its layer's mean."""
    return profile([[[m, m] for m in means]])


def test_mu_sigma_and_the_cut_off_by_hand():
    p = profile([[[1.0, 3.0], [4.0, 4.0], [0.0, 0.0]]])
    assert p.mean.tolist() == [[2.0, 4.0, 0.0]]
    assert p.std.tolist() == [[1.0, 0.0, 0.0]]
    assert p.mu() == 2.0
    sigma = math.sqrt((1 + 1 + 4 + 4 + 4 + 4) / 6)
    assert p.sigma() == pytest.approx(sigma)
    assert p.mvl(0.5) == ["layer1"]
    assert p.mvl(2 / sigma - 1e-9) == ["layer1"]
    assert p.mvl(2 / sigma + 1e-9) == []
    assert p.mvl(-0.1) == ["layer1", "layer0"]
    assert p.mvl(-5) == ["layer1", "layer0", "layer2"]


def test_the_cut_off_is_strict_and_ties_keep_their_order():
    assert constant([1.0, 1.0, 1.0]).mvl(0.0) == []
    assert constant([2.0, 0.0, 2.0, 0.0]).mvl(1.0) == []
    assert constant([2.0, 0.0, 2.0, 0.0]).mvl(0.5) == ["layer0", "layer2"]


def test_mvl_is_of_the_first_perturbation_unless_one_is_named():
    p = profile([[[2.0], [0.0]], [[0.0], [2.0]]])
    assert p.mvl() == p.mvl(perturbation="pgd") == ["layer0"]
    assert p.mvl(perturbation="gaussian") == ["layer1"]
    with pytest.raises(UserError, match="no perturbation 'gausian'; did you mean 'gaussian'"):
        p.mvl(perturbation="gausian")


def test_what_is_left_out_counts_for_nothing():
    nan = math.nan
    p = profile([[[1.0, nan, 3.0], [nan, nan, nan], [5.0, 5.0, nan]]])
    assert p.excluded.tolist() == [[1, 3, 1]]
    assert p.mean[0, 0] == 2
    assert p.mu() == 3.5
    assert p.sigma() == pytest.approx(math.sqrt((2.5**2 + 0.5**2 + 2 * 1.5**2) / 4))
    assert p.mvl(0.5) == ["layer2"]
    assert p.quantile(0.5)[0].tolist() == pytest.approx([2.0, nan, 5.0], nan_ok=True)


numbers = st.floats(0, 10, width=32)


@given(st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=6))
@settings(deadline=None)
def test_moments_are_those_of_all_numbers_together(rows):
    p = profile([rows])
    everything = torch.tensor(rows, dtype=torch.float64)
    assert p.mu() == pytest.approx(float(everything.mean()), abs=1e-9)
    assert p.sigma() == pytest.approx(float(everything.std(correction=0)), abs=1e-6)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_suggested_cut_off_names_a_layer_whenever_layers_differ(means):
    p = constant([m / 7 for m in means])
    eta = p.suggest_eta()
    assert eta >= 0
    chosen = p.mvl(eta)
    assert bool(chosen) == (len(set(means)) > 1)
    if chosen:
        worst = max(means)
        assert {k for k, m in enumerate(means) if m == worst} <= {int(name[5:]) for name in chosen}
        assert len(chosen) < len(means)


def test_the_suggested_cut_off_lies_in_the_widest_gap():
    assert constant([1.0, 1.1, 5.0, 5.2, 1.05]).mvl(constant([1.0, 1.1, 5.0, 5.2, 1.05]).suggest_eta()) == [
        "layer3",
        "layer2",
    ]
    far = constant([9.0, 5.0, 4.9, 1.0, 1.0])
    assert far.mvl(far.suggest_eta()) == ["layer0"]


def test_a_larger_eta_never_names_more():
    p = constant([0.3, 0.9, 0.5, 0.7, 0.1])
    lists = [p.mvl(eta / 10) for eta in range(-20, 21)]
    for one, other in pairwise(lists):
        assert one[: len(other)] == other
    assert len(lists[0]) == 5
    assert lists[-1] == []


def test_gain_is_over_the_layer_that_feeds():
    p = profile([[[1.0], [2.0], [6.0]]], [[0.25]], predecessors=[-1, 0, 0])
    assert p.gain().tolist() == [4.0, 2.0, 6.0]
    dead = profile([[[0.0], [0.0], [1.0]]], [[0.25]])
    assert dead.gain().tolist() == pytest.approx([0.0, 0.0, math.nan], nan_ok=True)


def test_quantiles():
    values = torch.rand(1, 2, 50, generator=torch.Generator().manual_seed(0))
    p = profile(values.tolist())
    for q in (*QUANTILES, 0.1, 1.0):
        torch.testing.assert_close(p.quantile(q), values.double().quantile(q, dim=2))
    with pytest.raises(UserError, match=r"q must be a number in \[0, 1\]; got 50"):
        p.quantile(50)


@pytest.mark.parametrize("values", [False, True])
def test_the_way_through_json(values):
    p = profile(
        [[[1.0, math.nan], [2.0, 4.0]], [[0.0, 1.0], [0.5, 0.5]]], crossed=[True, False], unpaired={"pgd": ["x"]}
    )
    back = LayerProfile.from_dict(json.loads(json.dumps(p.to_dict(values), allow_nan=False)))
    assert back.to_dict(values) == p.to_dict(values)
    for name in p.perturbations:
        assert back.mvl(0.1, name) == p.mvl(0.1, name)
        assert back.mu(name) == p.mu(name)
        assert back.sigma(name) == p.sigma(name)
        assert back.suggest_eta(name) == p.suggest_eta(name)
        torch.testing.assert_close(back.gain(name), p.gain(name), equal_nan=True)
    torch.testing.assert_close(back.quantile(0.95), p.quantile(0.95), equal_nan=True)
    if values:
        torch.testing.assert_close(back.values, p.values, equal_nan=True)
        torch.testing.assert_close(back.quantile(0.3), p.quantile(0.3), equal_nan=True)
    else:
        with pytest.raises(UserError, match="restored from its summary"):
            back.quantile(0.3)
    with pytest.raises(UserError, match="no layer profile"):
        LayerProfile.from_dict({"layers": ["a"]})


def test_frame_and_figure():
    p = profile([[[1.0, 3.0], [4.0, 4.0]], [[0.0, 0.0], [1.0, 2.0]]])
    frame = p.to_frame()
    assert frame["layer"].tolist() == ["layer0", "layer1"] * 2
    assert frame["perturbation"].tolist() == ["pgd"] * 2 + ["gaussian"] * 2
    assert frame["mean"].tolist() == [2.0, 4.0, 0.0, 1.5]
    assert frame["gain"].tolist()[:2] == [4.0, 2.0]
    assert frame["q50"].tolist() == [2.0, 4.0, 0.0, 1.5]
    figure = p.plot()
    assert [trace.name for trace in figure.data] == ["pgd", "gaussian"]
    assert list(figure.data[1].y) == [0.0, 1.5]
    assert list(figure.data[0].error_y.array) == pytest.approx([0.5, 0.0])
    assert list(figure.data[0].x) == p.layers


def test_a_frame_without_pandas_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UserError, match="pip install"):
        constant([1.0, 2.0]).to_frame()


def test_an_infinite_displacement_is_left_out_and_counted_and_a_saved_profile_is_the_same():
    """Activations that overflow under one input say nothing of the others."""
    values = [[[0.1, 0.2, 0.3], [0.5, 0.6, float("inf")]]]
    finite = [[[0.1, 0.2, 0.3], [0.5, 0.6, float("nan")]]]
    one, other = profile(values), profile(finite)
    assert (one.mu(), one.sigma(), one.mvl()) == (other.mu(), other.sigma(), other.mvl())
    assert one.excluded.tolist() == [[0, 1]]
    again = LayerProfile.from_dict(one.to_dict(values=True))
    assert (again.mu(), again.sigma(), again.mvl()) == (one.mu(), one.sigma(), one.mvl())
    assert torch.equal(again.values.isnan(), one.values.isnan())
