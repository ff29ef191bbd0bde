"""What is wrong, what is scored, and what is refused."""

import pytest
import torch

from buttress.errors import UserError
from buttress.tasks import Classification, Denoising, classification


def test_one_logit_is_read_as_two():
    z = torch.tensor([1.5, -2.0])
    expected = torch.tensor([[0.0, 1.5], [0.0, -2.0]])
    assert torch.equal(classification.read(z), expected)
    assert torch.equal(classification.read(z[:, None]), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_outputs_are_read_as_float32(dtype):
    assert classification.read(torch.ones(2, 3, dtype=dtype)).dtype == torch.float32
    assert classification.read(torch.ones(2, 3, dtype=torch.float64)).dtype == torch.float64


def test_beaten_and_score():
    z = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [torch.nan, 0.0, 0.0]])
    assert classification.is_adversarial(z, torch.tensor([0, 0, 0])).tolist() == [False, True, True]
    assert classification.is_adversarial(z, torch.tensor([0, 0, 0]), torch.tensor([1, 1, 0])).tolist() == [
        False,
        True,
        False,
    ]
    assert classification.score(z, torch.tensor([0, 0, 0])).tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_every_integer_kind(dtype):
    Classification().check(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 1], dtype=dtype))


def test_logits_that_happen_to_lie_in_0_to_1_are_no_probabilities():
    classification.check(torch.tensor([[0.2, 0.9], [0.1, 0.9]]), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="returns probabilities"):
        classification.check(torch.tensor([[0.2, 0.8], [0.1, 0.9]]), torch.tensor([0, 1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_in_half_precision_are_probabilities(dtype):
    """Their sums are off by more than those of float32."""
    z = 3 * torch.randn(50, 100, generator=torch.Generator().manual_seed(0))
    p = z.to(dtype).softmax(1)
    assert (p.float().sum(1) - 1).abs().max() > 1e-4
    with pytest.raises(UserError, match="returns probabilities"):
        classification.check(classification.read(p), torch.zeros(50, dtype=torch.int64))
    near = p.float() + 1e-4 * torch.rand(50, 100, generator=torch.Generator().manual_seed(1))
    classification.check(near.clamp(max=1), torch.zeros(50, dtype=torch.int64))


def test_a_map_of_one_pixel_is_read_as_logits():
    z = torch.arange(6.0).view(2, 3)
    assert torch.equal(classification.read(z[:, :, None, None]), z)
    with pytest.raises(UserError, match=r"it returned shape \(2, 3, 2, 2\)"):
        classification.read(torch.zeros(2, 3, 2, 2))


def test_denoising_by_peak_signal_to_noise_ratio():
    task = Denoising(floor=20.0)
    clean = torch.zeros(3, 1, 2, 2)
    restored = clean + torch.tensor([0.05, 0.1, 0.2]).view(3, 1, 1, 1)
    torch.testing.assert_close(
        task.score(restored, clean), torch.tensor([26.0206, 20.0, 13.9794]), rtol=1e-5, atol=1e-5
    )
    assert task.is_adversarial(restored, clean).tolist()[::2] == [False, True]
    assert task.is_adversarial(restored, clean, target=restored).all()
    assert task.score(clean, clean).isfinite().all()
    with pytest.raises(UserError, match=r"the restored images are \(3, 1, 2, 2\), the clean ones \(3, 1, 4\)"):
        task.check(restored, clean.view(3, 1, 4))
    with pytest.raises(UserError, match="must return the restored images; it returned a list"):
        task.read([clean])


def test_a_single_output_that_looks_like_a_probability_is_told():
    chances, y = torch.linspace(0.01, 0.99, 20)[:, None], torch.arange(20) % 2
    with pytest.warns(UserWarning, match="as a probability would"):
        classification.check(classification.read(chances), y)
    classification.check(classification.read(4 * chances - 2), y)


Z = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])
OR_VALUES = ", or task=tasks.Regression() if these are values"


@pytest.mark.parametrize(
    ("y", "hint"),
    [
        (torch.tensor([[0], [1]]), ": use y.squeeze(1)"),
        (torch.tensor([[0.0], [2.0]]), ": use y.squeeze(1).long()" + OR_VALUES),
        (torch.tensor([0.0, 1.0]), ": use y.long()" + OR_VALUES),
        (torch.tensor([[[0]], [[1]]]), ": use y.flatten()"),
        (torch.tensor([[[0.0]], [[1.0]]]), ": use y.flatten().long()" + OR_VALUES),
        (torch.tensor([[[1], [0], [0]], [[0], [1], [0]]]), ": use y.flatten(1).argmax(1)"),
        (torch.tensor([[1, -1, -1], [-1, 1, -1]]), ": use y.argmax(1)"),
        (torch.tensor([[1.0, -1, -1], [-1, 1, -1]]), ": use y.argmax(1)"),
        (torch.tensor([[1, -1, 1], [-1, 1, -1]]), ", use task=tasks.MultiLabel(), or --task multi-label"),
        (torch.tensor([True, False]), ": use y.long()"),
        (torch.tensor([0, 1], dtype=torch.int8), ": use y.long()"),
        (torch.tensor([[1, 0, 0], [0, 1, 0]]), ": use y.argmax(1)"),
        (torch.tensor([[1.0, 0, 0], [0, 1, 0]]), ": use y.argmax(1)"),
        (torch.tensor([[0.9, 0.1, 0], [0, 1, 0]]), ": use y.argmax(1)"),
        (torch.tensor([[True, False, True], [False, False, True]]), ", use task=tasks.MultiLabel(), or --task multi"),
        (torch.tensor([[0, 0, 0], [0, 1, 0]]), ", use task=tasks.MultiLabel(), or --task multi-label"),
        (torch.tensor([0.3, 1.0]), ": for values, use task=tasks.Regression(), or --task regression"),
        (torch.tensor([[0.3, 1.0, 9.0], [1.0, 2.0, 3.0]]), ": for values, use task=tasks.Regression(), or --task"),
    ],
)
def test_labels_of_another_form_get_the_hint_that_fits(y, hint):
    with pytest.raises(UserError, match=r"^labels must be class indices \(N,\), integers; got ") as refusal:
        classification.check(Z, y)
    assert hint in str(refusal.value)
    if hint.startswith(": use y"):  # and what it says is right
        classification.check(Z, eval(hint.removeprefix(": use ").removesuffix(OR_VALUES), {"y": y}))
        assert str(refusal.value).endswith(hint)


def test_signs_of_two_classes():
    with pytest.raises(UserError, match=r"^labels must be 0 to 1, .*; got -1 to 1: use \(y > 0\).long\(\)$"):
        classification.check(Z[:, :2], torch.tensor([1, -1]))


def test_labels_that_nothing_helps_get_no_hint():
    for y in (torch.tensor([torch.nan, 0.0]), torch.zeros(2, 3, 1), torch.zeros(2, dtype=torch.complex64)):
        with pytest.raises(UserError, match=r"of shape \([^)]*\)$"):
            classification.check(Z, y)
