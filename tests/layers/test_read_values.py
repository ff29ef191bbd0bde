import pytest
import torch

from buttress.layers.read_values import ReadValues

SAME = {
    "itself": lambda h: h,
    "view": lambda h: h.view(2, 12),
    "flatten": lambda h: h.flatten(),
    "transpose": lambda h: h.transpose(0, 2),
    "axes of one": lambda h: h[:, None],
    "slice of everything": lambda h: h[:],
    "detached": lambda h: h.detach(),
}
OTHERS = {
    "a half of the inputs": lambda h: h[:1],
    "the other half": lambda h: h[1:],
    "half of the features": lambda h: h[..., :2],
    "the other features": lambda h: h[..., 2:],
    "every second": lambda h: h[..., ::2],
    "expanded": lambda h: h[None].expand(2, -1, -1, -1),
    "a copy": lambda h: h.clone(),
    "the same memory as other numbers": lambda h: h.view(torch.int32),
}


@pytest.mark.parametrize("view", SAME)
def test_the_same_numbers_are_known_whatever_their_shape(view):
    h, read = torch.arange(24.0).view(2, 3, 4), ReadValues()
    assert not read.known(h)
    assert read.known(SAME[view](h))


@pytest.mark.parametrize("view", OTHERS)
def test_other_numbers_of_one_memory_are_not_known(view):
    h, read = torch.arange(24.0).view(2, 3, 4), ReadValues()
    part = OTHERS[view](h)
    assert not read.known(h)
    assert not read.known(part)
    assert read.known(part)
    assert read.known(h)


def test_what_was_written_over_is_another_value():
    h, read = torch.zeros(3), ReadValues()
    assert not read.known(h)
    h.add_(1)
    assert not read.known(h)
