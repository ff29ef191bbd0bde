import pytest
import torch
from torch import nn

from buttress.errors import UserError
from buttress.models import Normalized


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (4, 3), (4, 3, 7), (0, 3, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_each_channel_is_shifted_and_scaled_by_its_own(shape, dtype):
    mean, std = [0.25, 0.5, -1.0], [0.5, 2.0, 0.25]  # exact in every dtype
    x = torch.randint(0, 8, shape, generator=torch.Generator().manual_seed(0)).to(dtype) / 8
    got = Normalized(nn.Identity(), mean, std)(x)
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], 1)
    assert got.dtype == dtype
    assert torch.equal(got, by_hand)


def test_one_number_serves_every_channel():
    x = torch.rand(2, 5, 3, 3)
    assert torch.equal(Normalized(nn.Identity(), 0.5, 0.25)(x), (x - 0.5) / 0.25)
    assert torch.equal(Normalized(nn.Identity(), torch.zeros(5), 0.25)(x), x / 0.25)


def test_the_statistics_are_saved_and_move_with_the_model():
    model = Normalized(nn.Linear(2, 2), [0.1, 0.2], [1.0, 2.0])
    assert list(model.state_dict()) == ["mean", "std", "model.weight", "model.bias"]
    assert list(dict(model.named_parameters())) == ["model.weight", "model.bias"]
    assert model.double().mean.dtype == torch.float64


def test_the_callers_tensor_is_not_kept():
    mean = torch.zeros(2)
    model = Normalized(nn.Identity(), mean, 1.0)
    mean += 1
    assert torch.equal(model.mean, torch.zeros(2))


@pytest.mark.parametrize(
    ("mean", "std", "line"),
    [
        (0.0, [1.0, 0.0], "std must be positive in every channel; got [1.0, 0.0]"),
        (0.0, -1.0, "std must be positive in every channel; got -1.0"),
        ([0.0, float("nan")], 1.0, "mean must be a finite number or a list of one per channel; got [0.0, nan]"),
        ([[0.0]], 1.0, "mean must be a finite number or a list of one per channel; got [[0.0]]"),
        ([], 1.0, "mean must be a finite number or a list of one per channel; got []"),
        ("a", 1.0, "mean must be a number or a list of one number per channel; got 'a'"),
        ([0.0, 0.0], [1.0] * 3, "mean has 2 channels and std has 3: give one value for each"),
    ],
)
def test_statistics_that_make_no_sense_are_told_in_one_line(mean, std, line):
    with pytest.raises(UserError) as told:
        Normalized(nn.Identity(), mean, std)
    assert str(told.value) == line


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 4), (3,)])
def test_channels_that_do_not_fit_are_told_in_one_line(shape):
    with pytest.raises(UserError) as told:
        Normalized(nn.Identity(), [0.0] * 3, 1.0)(torch.zeros(shape))
    assert str(told.value) == (
        "Normalized has a mean and std for 3 channels, but the inputs have shape "
        f"{'x'.join(map(str, shape))}: they must be (N, 3, ...)"
    )


def test_bytes_are_refused():
    with pytest.raises(UserError, match=r"floating-point inputs in \[0, 1\]; got torch.uint8"):
        Normalized(nn.Identity(), 0.5, 0.5)(torch.zeros(2, 3, dtype=torch.uint8))
