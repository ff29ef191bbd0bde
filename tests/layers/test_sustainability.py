from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks import PGD, Gaussian
from buttress.errors import UserError
from buttress.layers import MEASURES, capture, sustainability
from buttress.threat import Threat


@pytest.fixture
def data(inputs):
    y = torch.arange(7) % 4
    return [(inputs[:4], y[:4]), (inputs[4:], y[4:])]


def test_values_agree_with_numpy(mixed, inputs, data, shift, in_numpy, mixed_layers):
    profile = sustainability(mixed, data, {"shift": shift(size=0.4), "small": shift(size=0.1)}, seed=5)
    assert profile.layers == mixed_layers
    assert profile.perturbations == ["shift", "small"]
    assert profile.values.shape == (2, 7, 7)
    assert profile.values.dtype == torch.float32
    clean = in_numpy(mixed, inputs)
    for row, size in enumerate((0.4, 0.1)):
        x_adv = shift(size=size).craft(mixed, inputs, torch.zeros(7, dtype=torch.int64), seed=5)
        perturbed = in_numpy(mixed, x_adv)
        for k, name in enumerate(mixed_layers):
            gap = np.linalg.norm(clean[name] - perturbed[name], axis=1)
            expected = gap / np.linalg.norm(clean[name], axis=1)
            np.testing.assert_allclose(profile.values[row, k], expected, rtol=1e-5, atol=1e-6, err_msg=name)
            assert float(profile.mean[row, k]) == pytest.approx(expected.mean(), rel=1e-5)
            assert float(profile.std[row, k]) == pytest.approx(expected.std(), rel=1e-4, abs=1e-6)
        change = np.linalg.norm((x_adv - inputs).numpy(), axis=1) / np.linalg.norm(inputs.numpy(), axis=1)
        np.testing.assert_allclose(profile.input_change[row], change, rtol=1e-5)
    assert profile.mu("small") < profile.mu("shift")
    assert float(profile.gain()[0]) == pytest.approx(
        float(profile.mean[0, 0] / profile.input_change[0].mean()), rel=1e-5
    )


def test_a_second_call_returns_the_same_and_the_model_is_as_before(mixed, data, shift, count_hooks):
    mixed.act.eval()
    state = torch.random.get_rng_state()
    one, other = (sustainability(mixed, data, {"shift": shift()}) for _ in range(2))
    assert one.layers == other.layers
    assert torch.equal(one.values, other.values)
    assert count_hooks(mixed) == 0
    assert [m.training for m in (mixed, mixed.act, mixed.fc1)] == [True, False, True]
    assert all(p.grad is None for p in mixed.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("measure", ["relative_error", "cosine", "centred"])
def test_numbers_depend_on_neither_batches_nor_order(mixed, inputs, shift, measure):
    y = torch.zeros(7, dtype=torch.int64)
    whole = sustainability(mixed, [(inputs, y)], {"s": shift()}, measure=measure)
    parts = sustainability(mixed, [(inputs, y)], {"s": shift()}, measure=measure, batch_size=2)
    torch.testing.assert_close(whole.values, parts.values)

    class Split(list):
        ids = torch.tensor([6, 5, 4, 3, 2, 1, 0])

    if measure != "centred":  # its reference is the first inputs
        back = sustainability(mixed, Split([(inputs.flip(0), y)]), {"s": shift()}, measure=measure)
        torch.testing.assert_close(back.values.flip(2), whole.values)


def test_the_centre_is_the_mean_of_a_fixed_sample_whose_size_is_told(mixed, inputs, data, shift):
    profile = sustainability(mixed, iter(data), {"s": shift()}, ["tanh"], "centred", reference=5)
    assert profile.reference == 5
    assert profile.inputs == 7
    x_adv = shift().craft(mixed, inputs, torch.zeros(7, dtype=torch.int64))
    with torch.no_grad(), capture(mixed, ["tanh"]) as held:
        mixed(inputs)
        clean = held["tanh"]
        mixed(x_adv)
        perturbed = held["tanh"]
    expected = (clean - perturbed).norm(dim=1) / (clean - clean[:5].mean(0)).norm(dim=1)
    torch.testing.assert_close(profile.values[0, 0], expected)
    change = (inputs - x_adv).norm(dim=1) / (inputs - inputs[:5].mean(0)).norm(dim=1)
    torch.testing.assert_close(profile.input_change[0], change)
    assert sustainability(mixed, data, {"s": shift()}, ["tanh"], "centred").reference == 7
    assert sustainability(mixed, data, {"s": shift()}, ["tanh"]).reference == 0


def test_an_offset_hides_displacement_from_the_published_measure_only(inputs, shift):
    class Offset(nn.Module):
        def __init__(self, offset):
            super().__init__()
            self.fc = nn.Linear(5, 5, bias=False)
            self.offset = offset
            with torch.no_grad():
                self.fc.weight.copy_(torch.eye(5))

        def forward(self, x):
            return F.relu(self.fc(x) + self.offset) - self.offset

    data = [(inputs, torch.zeros(7, dtype=torch.int64))]
    plain, offset = (
        {m: sustainability(Offset(c), data, {"s": shift()}, measure=m).mean for m in MEASURES} for c in (5.0, 50.0)
    )
    assert float(offset["relative_error"]) < 0.2 * float(plain["relative_error"])
    torch.testing.assert_close(offset["centred"], plain["centred"], rtol=1e-3, atol=0)


def test_batch_measures_leave_a_batch_of_one_out_where_they_must(mixed, data, inputs, shift):
    last = [*data, (inputs[:1], torch.zeros(1, dtype=torch.int64))]
    profile = sustainability(mixed, last, {"s": shift()}, measure="cka")
    assert profile.excluded.tolist() == [[1] * 7]
    values = profile.values[0, 0]
    assert len(values[:4].unique()) == len(values[4:7].unique()) == 1
    assert sustainability(mixed, last, {"s": shift()}, measure="relative_error_batch").excluded.sum() == 0


def test_a_dead_layer_is_zero_or_left_out(inputs, shift):
    class Dead(nn.Module):
        def forward(self, x):
            nothing = F.relu(x - 5)
            sometimes = F.relu(x.sum(1, keepdim=True) - 3)
            return torch.cat([x, nothing, sometimes], 1)

    profile = sustainability(Dead(), [(inputs, torch.zeros(7, dtype=torch.int64))], {"s": shift(size=2.0)})
    assert torch.equal(profile.values[0, 0], torch.zeros(7))
    off = inputs.sum(1) <= 3
    assert 0 < int(profile.excluded[0, 1]) <= int(off.sum())
    assert bool(profile.values[0, 1][~off].isfinite().all())


def test_calls_that_only_one_pass_makes_are_reported_and_the_rest_paired(inputs, shift):
    class Adaptive(nn.Module):
        def forward(self, x):
            for _ in range(2 if float(x.detach().max()) < 1 else 3):
                x = F.relu(x)
            return x.tanh()

    big = inputs + 5
    y = torch.zeros(7, dtype=torch.int64)
    profile = sustainability(Adaptive(), [(inputs, y), (big, y)], {"s": shift(size=0.01), "big": shift(size=9.0)})
    assert profile.layers == ["relu", "relu#1", "relu#2", "tanh"]
    assert profile.unpaired == {"big": ["relu#2"]}
    assert bool(profile.values[0, 2, :7].isnan().all())
    assert bool(profile.values[0, 2, 7:].isfinite().all())
    assert bool(profile.values[:, (0, 1, 3)].isfinite().all())
    assert profile.predecessors == [-1, 0, 1, 1]


def test_the_axis_of_the_inputs_need_not_be_the_first(inputs, shift):
    class Turned(nn.Module):
        def forward(self, x):
            return F.relu(F.gelu(x.T).T)

    profile = sustainability(Turned(), [(inputs, torch.zeros(7, dtype=torch.int64))], {"s": shift()})
    x_adv = shift().craft(Turned(), inputs, torch.zeros(7, dtype=torch.int64))
    clean, perturbed = F.gelu(inputs), F.gelu(x_adv)
    assert profile.layers == ["gelu", "relu"]
    torch.testing.assert_close(profile.values[0, 0], (clean - perturbed).norm(dim=1) / clean.norm(dim=1))
    assert profile.excluded.tolist() == [[0, 0]]


def test_a_randomised_network_draws_alike_in_both_passes(inputs, shift):
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 8), nn.ReLU())
    data = [(inputs, torch.zeros(7, dtype=torch.int64))]
    profile = sustainability(net, data, {"none": shift(size=0.0)}, mode="train")
    assert profile.values.abs().max() == 0
    net.insert(0, nn.BatchNorm1d(5))
    assert sustainability(net, data, {"s": shift()}, mode="train").mean.min() > 0
    assert int(net[0].num_batches_tracked) == 0


def test_one_perturbation_alone_and_a_real_attack(mixed, data):
    alone = sustainability(mixed, data, Gaussian(std=0.1))
    assert alone.perturbations == ["gaussian"]
    attack = PGD(threat=Threat(eps=0.3), steps=5)
    both = sustainability(mixed, data, {"pgd": attack, "gaussian": Gaussian(std=0.01)})
    torch.testing.assert_close(both.input_mean[1] < both.input_mean[0], torch.tensor(True))
    assert bool((both.mean[0] > both.mean[1]).all())


def test_what_cannot_be_analysed_is_refused(mixed, data, inputs, shift):
    good = {"s": shift()}
    cases = [
        (([], good), {}, "holds no inputs"),
        ((data, {}), {}, "mapping from name to perturbation"),
        ((data, {"s": 3}), {}, "'s' must be an attack or a noise; got a int"),
        ((data, good), {"measure": "cosin"}, "did you mean 'cosine'"),
        ((data, good), {"layers": "conv*"}, r"matches 'conv\*'"),
        ((data, good), {"batch_size": 0}, "batch_size must be a whole number of 1 or more"),
        (([inputs], good), {}, "pairs of tensors"),
        (([(inputs, torch.full((7,), 9))], good), {}, "labels must be 0 to 3"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(UserError, match=message):
            sustainability(mixed, *arguments, **options)
    with pytest.raises(UserError, match=r"torch\.nn\.Module"):
        sustainability(SimpleNamespace(), data, good)
