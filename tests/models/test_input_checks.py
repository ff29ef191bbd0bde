import pytest
import torch
from torch import nn

from buttress import models
from buttress.errors import UserError


def told(model: nn.Module, x: torch.Tensor) -> str:
    with pytest.raises(UserError) as error:
        models.forward_checked(model, x)
    return str(error.value)


def test_a_fitting_input_passes():
    model, x = models.create("cnn", seed=0), torch.rand(2, 1, 8, 8)
    assert torch.equal(models.forward_checked(model, x), model(x))


def test_wrong_channels_name_the_channels():
    assert told(models.create("resnet18", width=4), torch.rand(2, 1, 16, 16)) == (
        "ResNet cannot take inputs of shape 2x1x16x16: its first layer, conv1, takes 3 channels; it takes them with "
        "three equal channels: write a module around it with def forward(self, x): return self.network("
        "x.expand(-1, 3, -1, -1))"
    )


@pytest.mark.parametrize("side", [12, 3])
def test_a_wrong_size_names_the_size_also_inside_wrappers(side):
    model = models.Output(models.create("cnn", mean=0.5), 0)
    assert told(model, torch.rand(2, 1, side, side)) == (
        f"CNN cannot take inputs of shape 2x1x{side}x{side}: its first layer, conv1, takes 1 channel, and it was made "
        "for images of 8x8 pixels; give such inputs, or a model made for these"
    )


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Linear(4, 2), (3, 5)),
        (nn.Conv2d(3, 4, 3), (2, 5)),
        (nn.Conv2d(3, 4, 9), (2, 3, 5, 5)),
        (nn.Conv1d(1, 2, 3), (2, 3, 8, 8)),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(4)), (2, 1, 3, 3)),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1)), (2, 3)),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1)), (2, 4, 3, 3)),
        (nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 1)), (2, 4)),
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 1)), (2, 3)),
    ],
)
def test_every_way_in_which_torch_complains_of_a_shape_is_known(model, shape):
    line = told(model.eval(), torch.rand(shape))
    assert line.startswith(f"{type(model).__name__} cannot take inputs of shape {'x'.join(map(str, shape))}: its first")


def test_other_errors_are_left_as_they_are():
    with pytest.raises(RuntimeError, match=r"dtype|type"):
        models.forward_checked(nn.Linear(2, 2), torch.rand(1, 2, dtype=torch.float64))
    with pytest.raises(UserError, match="Normalized has a mean and std for 3 channels"):
        models.forward_checked(models.Normalized(nn.Identity(), [0.0] * 3, 1.0), torch.rand(2, 1, 4, 4))

    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        models.forward_checked(Broken(), torch.rand(1, 2))


def test_a_model_without_layers_is_named_by_its_class():
    assert told(nn.Unflatten(1, (2, 2)), torch.rand(1, 3)) == (
        "Unflatten cannot take inputs of shape 1x3; give such inputs, or a model made for these"
    )
