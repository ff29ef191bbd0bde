"""A network that refuses its inputs is tried with other forms of them, and the adapter that works is told."""

import pytest
import torch
from torch import nn

from buttress import models
from buttress.errors import UserError


class Net(nn.Module):
    def __init__(self, channels=3, change=lambda x: x):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))
        self.change = change

    def forward(self, x):
        return self.net(self.change(x))


class Strict(Net):
    def forward(self, x):
        assert x.shape[-1] == 3, "channels last, please"
        return self.net(x.permute(0, 3, 1, 2))


class TextAndImages(Net):
    def forward(self, input_ids=None, pixel_values=None):
        return self.net(pixel_values)


CASES = [
    (Net(change=lambda x: x.permute(0, 3, 1, 2)), (2, 3, 8, 8), "x.permute(0, 2, 3, 1)"),
    (Strict(), (2, 3, 8, 8), "x.permute(0, 2, 3, 1)"),
    (Net(), (2, 8, 8, 3), "x.permute(0, 3, 1, 2)"),
    (Net(), (2, 1, 8, 8), "x.expand(-1, 3, -1, -1)"),
    (Net(1), (2, 3, 8, 8), "x.mean(1, keepdim=True)"),
    (Net(), (2, 4, 8, 8), "x[:, :3]"),
    (Net(1), (2, 8, 8), "x[:, None]"),
    (nn.Linear(192, 3), (2, 3, 8, 8), "x.flatten(1)"),
    (TextAndImages(), (2, 3, 8, 8), "pixel_values=x"),
]


@pytest.mark.parametrize(("network", "shape", "given"), CASES)
def test_the_adapter_that_is_told_works(network, shape, given):
    x = torch.rand(shape)
    for model in (network, models.Output(network, 0)):
        with pytest.raises(UserError) as error:
            models.forward_checked(model, x)
        line = str(error.value)
        assert line.startswith(f"{type(network).__name__} cannot take inputs of shape {'x'.join(map(str, shape))}")
        assert line.endswith(f"write a module around it with def forward(self, x): return self.network({given})")
    assert eval(f"network({given})", {"network": network, "x": x}).shape == (2, 3)


def test_where_no_form_helps_the_error_is_the_networks_own():
    class Broken(nn.Module):
        def forward(self, x):
            raise AssertionError("bad luck")

    with pytest.raises(AssertionError, match="bad luck"):
        models.forward_checked(Broken(), torch.rand(2, 3, 8, 8))
