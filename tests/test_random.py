"""Draws by input id: their distributions (fixed seeds, exact tests) and what they depend on."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.random import _GOLDEN, Random, _mix, derive, generator, seed_torch

IDS = torch.arange(400)


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_uniform_is_uniform(seed):
    from scipy.stats import kstest

    u = Random(seed, IDS).uniform((100,)).double()
    assert 0 <= u.min() < u.max() < 1
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 1e-3
    assert kstest(u[:, 0].numpy(), "uniform").pvalue > 1e-3  # across inputs
    assert kstest(u[7].numpy(), "uniform").pvalue > 1e-3  # across elements


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_normal_is_normal(seed):
    from scipy.stats import kstest

    z = Random(seed, IDS).normal((100,), torch.float64)
    assert z.dtype == torch.float64
    assert torch.isfinite(z).all()
    assert kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


def test_signs_and_integers_are_balanced():
    from scipy.stats import chisquare

    random = Random(3, IDS)
    signs = random.sign((100,))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(signs.sum()) < 4 * math.sqrt(signs.numel())
    counts = random.integers(7, (100,)).flatten().bincount(minlength=7)
    assert len(counts) == 7
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_nothing_correlates():
    """Inputs, draws, elements and seeds beside each other: |r| stays within 5 standard errors of 0."""
    random = Random(0, IDS)
    first, second = (random.normal((100,), torch.float64) for _ in range(2))
    other = Random(1, IDS).normal((100,), torch.float64)
    pairs = {
        "inputs": (first[1:], first[:-1]),
        "elements": (first[:, 1:], first[:, :-1]),
        "draws": (first, second),
        "seeds": (first, other),
        "inputs and draws": (first[1:], second[:-1]),
        "inputs and elements": (first[1:, 1:], first[:-1, :-1]),
        "inputs against elements": (first[1:, :-1], first[:-1, 1:]),
        "magnitudes": (first[1:].square() - 1, first[:-1].square() - 1),
    }
    for name, (a, b) in pairs.items():
        r = (a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()
        assert abs(r) < 5 / math.sqrt(a.numel()), name


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**62),
    ids=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=8, unique=True),
    data=st.data(),
)
def test_an_inputs_draws_do_not_depend_on_its_batch(seed, ids, data):
    order = data.draw(st.permutations(range(len(ids))))
    part = torch.tensor(order[: data.draw(st.integers(1, len(ids)))])
    whole, some = Random(seed, torch.tensor(ids)), Random(seed, torch.tensor(ids)[part])
    assert len(some) == len(part)
    for draw in ("uniform", "normal", "sign"):
        assert torch.equal(getattr(whole, draw)((2, 3))[part], getattr(some, draw)((2, 3)))
    assert torch.equal(whole.integers(10)[part], some.integers(10))
    assert torch.equal(whole.uniform()[part], some.uniform())


def test_a_dtype_changes_no_draw():
    single, double = (Random(0, IDS).uniform((9,), dtype) for dtype in (torch.float32, torch.float64))
    assert torch.equal(single.double(), double)


def test_drawing_leaves_the_global_state_and_the_ids_alone():
    ids, state = IDS.clone(), torch.random.get_rng_state()
    random = Random(0, ids)
    random.normal((3,))
    generator(0, "x")
    assert torch.equal(ids, IDS)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_no_inputs_no_draws():
    assert Random(0, torch.arange(0)).uniform((3, 2)).shape == (0, 3, 2)


def test_derived_seeds_differ_by_place_and_are_seeds():
    places = [(), ("a",), ("b",), ("a", 0), ("a", 1), (0, "a"), (0,), (1,), ("a", "a")]
    seeds = {derive(seed, *place) for seed in (0, 1, 2**62) for place in places}
    assert len(seeds) == 3 * len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(5, "data", 3) == derive(5, "data", 3)


@given(seed=st.integers(-(2**63), 2**63 - 1), place=st.integers(-(2**63), 2**63 - 1))
def test_seeds_are_derived_as_draws_are_mixed(seed, place):
    """Python's numbers, made to wrap, against torch's, which do."""
    kept = 2**63 - 1
    key = torch.tensor(seed & kept)
    for number in (place & kept, 0xE8B7BE43):  # the second is the CRC of "a"
        key = _mix((key + 1) * _GOLDEN + number)
    assert derive(seed, place, "a") == derive(np.int64(seed), np.int64(place), "a") == int(key) & kept


def test_generators_repeat():
    first, second, other = (torch.rand(3, generator=generator(seed, "x")) for seed in (4, 4, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_torch_is_seeded_as_by_its_own_call_and_nothing_is_kept():
    torch.manual_seed(5)
    expected = torch.rand(3)
    kept = len(torch.cuda._queued_calls)
    seed_torch(5)
    assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == kept or torch.accelerator.is_available()
