"""Boxes and budgets by feature, masks and half-infinite boxes: by value, in JSON, in words, and their geometry."""

import dataclasses
import json
import math

import pytest
import torch

from buttress.engine.fingerprint import plain
from buttress.errors import UserError
from buttress.random import Random
from buttress.threat import Threat
from buttress.threat.box import Box, FeatureValues
from buttress.threat.row_threat import RowThreat

NORMS = ["linf", "l2", "l1"]
EPS = torch.tensor([0.1, 0.2, 0.0, 0.4, 0.3])
MASK = torch.tensor([True, False, True, True, True])
LOW, HIGH = torch.tensor([0.0, -1.0, -math.inf, 0.0, -math.inf]), torch.tensor([1.0, 1.0, 2.0, math.inf, math.inf])
X = torch.tensor([[0.5, 0.5, 1.5, 0.5, 0.5], [0.0, -1.0, 2.0, 0.0, 7.0]])


def threats():
    return [
        Threat(eps=EPS),
        Threat(norm="l2", eps=0.3, mask=MASK),
        Threat(norm="l1", eps=0.3, mask=MASK, box=(LOW, HIGH)),
        Threat(eps=EPS, mask=MASK, box=(LOW, HIGH)),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_threat_by_feature_is_equal_hashed_and_fingerprinted_by_value_and_comes_back_from_json(number):
    threat, again, others = threats()[number], threats()[number], threats()[:number] + threats()[number + 1 :]
    assert threat == again
    assert hash(threat) == hash(again)
    assert plain(threat) == plain(again)
    assert threat not in others
    assert plain(threat) not in [plain(other) for other in others]
    assert Threat(**json.loads(json.dumps(threat.facts()))) == threat
    assert dataclasses.replace(threat) == threat


def test_an_eps_by_feature_is_its_largest_and_shares_of_it_so_that_a_sweep_scales_all():
    threat = Threat(eps=EPS)
    assert threat.eps == float(EPS.double().max())
    half = dataclasses.replace(threat, eps=threat.eps / 2)
    low, high = half.cube(torch.full((1, 5), 0.5, dtype=torch.float64))
    torch.testing.assert_close(high - low, EPS.double()[None], rtol=1e-12, atol=1e-15)
    assert dataclasses.replace(threat, eps=2 * EPS) == Threat(eps=2 * EPS)


def test_it_is_told_in_words():
    assert Threat(eps=EPS[:2], mask=MASK[:2]).text() == "linf eps 0.2 (by feature from 0.1; 1 of 2 features fixed)"
    assert Threat().text() == "linf eps 8/255"
    assert repr(FeatureValues(EPS.double())) == "0 to 0.4 by feature"
    assert repr(Threat(mask=MASK)).endswith("mask=1 of 5 features fixed)")


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projections_starts_and_steps_are_exact(number, dtype):
    threat, generator = threats()[number], torch.Generator().manual_seed(1)
    x = dataclasses.replace(threat, eps=1.0, mask=None, shares=None).clip(X.to(dtype), X.to(dtype))
    fixed = ~MASK if threat.mask is not None else torch.zeros(5, dtype=torch.bool)
    for scale in (0.01, 0.3, 10.0, math.inf):
        far = x + scale * torch.randn(2, 5, generator=generator, dtype=dtype)
        for point in (threat.project(far, x), threat.random_start(x, Random(3, torch.arange(2))), *threat.cube(x)):
            assert torch.equal(point[:, fixed], x[:, fixed])
        projected = threat.project(far, x)
        assert threat.contains(projected, x).all()
        assert torch.equal(threat.project(projected, x), projected)
        if threat.shares is not None:
            assert ((projected.double() - x.double()).abs() <= EPS.double()).all()
    assert threat.contains(threat.random_start(x, Random(3, torch.arange(2))), x).all()
    step = threat.ascend(x, torch.randn(2, 5, generator=generator, dtype=dtype), 0.1)
    assert torch.equal(step[:, fixed], x[:, fixed])


@pytest.mark.parametrize("norm", NORMS)
def test_under_a_mask_the_projection_is_that_of_the_free_features_alone(norm):
    generator = torch.Generator().manual_seed(0)
    x, far = (torch.randn(20, 5, dtype=torch.float64, generator=generator) for _ in range(2))
    whole, part = Threat(norm=norm, eps=0.4, box=None, mask=MASK), Threat(norm=norm, eps=0.4, box=None)
    expected = x.clone()
    expected[:, MASK] = part.project(far[:, MASK], x[:, MASK])
    torch.testing.assert_close(whole.project(far, x), expected, rtol=0, atol=1e-12)
    grad = torch.randn(20, 5, dtype=torch.float64, generator=generator)
    rise = ((whole.ascend(x, grad, 1.0) - x) * grad).sum(1)
    torch.testing.assert_close(rise, whole.dual(grad))  # Hoelder, among the features that may change


def test_the_distance_counts_in_shares_of_eps_and_a_fixed_feature_that_moved_is_outside():
    x = torch.zeros(2, 2, dtype=torch.float64)
    moved = torch.tensor([[0.1, 0.1], [0.0, 0.3]], dtype=torch.float64)
    eps = torch.tensor([0.2, 0.4], dtype=torch.float64)
    torch.testing.assert_close(Threat(eps=eps, box=None).distance(moved, x), torch.tensor([0.2, 0.3]).double())
    assert Threat(eps=9.0, box=None, mask=MASK[:2]).distance(moved, x).isinf().all()
    assert not Threat(eps=9.0, box=None, mask=MASK[:2]).contains(moved, x).any()


def test_budgets_of_single_inputs_keep_mask_shares_and_box():
    rows = RowThreat.of(Threat(eps=EPS, mask=MASK, box=(LOW, HIGH)), torch.tensor([0.5, 2.0]))
    x = X.double()
    moved = rows.project(x + 9, x) - x
    expected = torch.where(MASK, EPS.double(), 0) * torch.tensor([[0.5], [2.0]])
    assert (moved <= expected).all()
    torch.testing.assert_close(moved[0, [0, 3]], expected[0, [0, 3]])


def test_lengths_are_in_widths_and_where_an_end_is_infinite_in_the_mean_of_those_that_are_finite():
    like = torch.zeros(1, 5)
    assert Threat(box=(0.0, 255.0)).unit == 255
    assert Threat(box=(0.0, math.inf)).unit == Threat(box=None).unit == 1
    by_feature = Threat(box=(LOW, HIGH))
    assert by_feature.unit == pytest.approx(math.sqrt((1 + 4) / 2))
    torch.testing.assert_close(by_feature.widths(like), torch.tensor([1.0, 2.0, *[by_feature.unit] * 3]))
    assert not dataclasses.replace(by_feature, eps=math.inf).bounded
    closed = torch.tensor([True, True, False, False, False])
    assert dataclasses.replace(by_feature, eps=math.inf, mask=closed).bounded


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"eps": EPS, "norm": "l2"}, "an eps by feature is defined in linf; got l2"),
        ({"eps": -EPS}, "an eps by feature must be finite numbers of 0 or more; got -0.4 to"),
        ({"eps": EPS / 0}, "eps must be a tensor of numbers"),
        ({"mask": EPS}, "mask must be a tensor of true and false"),
        ({"mask": torch.zeros(3, dtype=torch.bool)}, "mask fixes all features"),
        ({"box": (HIGH, LOW)}, r"box must be \(low, high\) with low < high"),
        ({"box": (LOW, HIGH[:3])}, r"box must be \(low, high\) with low < high"),
        ({"box": (math.inf, math.inf)}, r"box must be \(low, high\) with low < high"),
        ({"box": "01"}, r"box must be \(low, high\) with low < high"),
    ],
)
def test_what_means_nothing_is_refused_in_one_line(fields, line):
    with pytest.raises(UserError, match=line) as caught:
        Threat(**fields)
    assert "\n" not in str(caught.value)


def test_inputs_of_another_shape_or_outside_of_a_feature_s_range_are_refused():
    with pytest.raises(UserError, match=r"mask by feature has shape \(5,\), one input has \(4,\)"):
        Threat(mask=MASK).check(torch.zeros(2, 4))
    with pytest.raises(UserError, match=r"feature 2 of a flattened input must be from -inf to 2; got 1.5 to 3"):
        Box.read((LOW, HIGH)).check(torch.where(X == 2, 3, X))
