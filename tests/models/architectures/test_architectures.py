"""Each architecture against a count of its parameters by hand, and against the layers that its paper lists."""

import pytest
import torch

from buttress import models
from buttress.errors import UserError


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def conv(inputs: int, filters: int, side: int, bias: bool = False) -> int:
    return filters * (inputs * side * side + bias)


def linear(inputs: int, outputs: int) -> int:
    return outputs * (inputs + 1)


def test_lsa_a():
    assert count(models.create("lsa-a")) == linear(2, 100) + 2 * linear(100, 100) + linear(100, 1) == 20_601
    assert count(models.create("lsa-a", features=5, width=7, classes=3)) == 42 + 2 * 56 + 24


def test_lsa_a_by_its_formula():
    model = models.create("lsa-a", width=6, seed=0)
    w = [p.detach() for p in model.parameters()]
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    h = x
    for k in range(3):
        z = h @ w[2 * k].T + w[2 * k + 1]
        h = torch.where(z > 0, z, z.exp() - 1)
    torch.testing.assert_close(model(x), h @ w[6].T + w[7])


def test_lsa_b():
    convolutions = conv(1, 16, 5, True) + conv(16, 32, 5, True) + conv(32, 64, 5, True)
    assert count(models.create("lsa-b")) == convolutions + linear(576, 100) + linear(100, 10)
    # 32 -> 28 -> 24 -> 12 -> 8 -> 4
    more = 32 - 16
    wider = models.create("lsa-b", image_size=32, channels=2)
    assert count(wider) == convolutions + 16 * 25 + linear(64 * more, 100) + linear(100, 10)
    assert wider(torch.rand(1, 2, 32, 32)).shape == (1, 10)
    assert models.create("lsa-b", image_size=20)(torch.rand(1, 1, 20, 20)).shape == (1, 10)


def vgg_count(filters: list[int], channels: int) -> int:
    total = linear(filters[-1], 10)
    for f in filters:
        total += conv(channels, f, 3, True) + 2 * f
        channels = f
    return total


def test_vgg19():
    filters = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    assert count(models.create("vgg19")) == vgg_count(filters, 3)
    narrow = models.create("vgg19", width=0.125, channels=1)
    assert count(narrow) == vgg_count([f // 8 for f in filters], 1)
    assert [m.kernel_size for m in narrow.features if isinstance(m, torch.nn.MaxPool2d)] == [2] * 5
    for side in (8, 28, 32, 50):
        assert narrow.eval()(torch.rand(1, 1, side, side)).shape == (1, 10)


def residual_count(width: int, channels: int, classes: int, preact: bool) -> int:
    """Four stages of two blocks; a batch normalisation has two numbers for each of its channels."""
    total = conv(channels, width, 3) + linear(8 * width, classes) + (0 if preact else 2 * width)
    inputs = width
    for filters in (width, 2 * width, 4 * width, 8 * width):
        for _ in range(2):
            total += conv(inputs, filters, 3) + conv(filters, filters, 3)
            total += 2 * (inputs + filters) if preact else 4 * filters
            if inputs != filters:
                total += conv(inputs, filters, 1) + (0 if preact else 2 * filters)
            inputs = filters
    return total


def test_resnet18():
    assert count(models.create("resnet18")) == residual_count(64, 3, 10, preact=False) == 11_173_962
    assert count(models.create("resnet18", width=8, channels=1, classes=4)) == residual_count(8, 1, 4, preact=False)


def test_preactresnet18():
    assert count(models.create("preactresnet18")) == residual_count(64, 3, 10, preact=True) == 11_171_146
    final = models.create("preactresnet18", width=8, final_activation=True)
    assert count(final) == residual_count(8, 3, 10, preact=True) + 2 * 64
    with pytest.raises(UserError, match="final_activation must be True or False; got 'no'"):
        models.create("preactresnet18", final_activation="no")


def wrn_count(depth: int, width: int) -> int:
    n, total, inputs = (depth - 4) // 6, conv(3, 16, 3), 16
    for filters in (16 * width, 32 * width, 64 * width):
        for _ in range(n):
            total += conv(inputs, filters, 3) + conv(filters, filters, 3) + 2 * inputs + 2 * filters
            total += conv(inputs, filters, 1) if inputs != filters else 0
            inputs = filters
    return total + 2 * inputs + linear(inputs, 10)


def test_wrn():
    assert count(models.create("wrn")) == wrn_count(28, 10) == 36_479_194
    assert count(models.create("wrn", depth=16, width=2)) == wrn_count(16, 2)
    with pytest.raises(UserError, match=r"depth must be 6 n \+ 4 .*; got 27"):
        models.create("wrn", depth=27)


def test_wrn_starts_as_published():
    model = models.create("wrn", depth=10, width=2, seed=0)
    weight = model.block3.layer[0].conv2.weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)
    assert model.fc.bias.abs().max() == 0


def test_wrn_drops_out_between_the_convolutions_in_training_only():
    model = models.create("wrn", depth=10, width=1, dropout=0.5, seed=0)
    assert [m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)] == [0.5] * 3
    plain = models.create("wrn", depth=10, width=1, seed=0)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_blocks_halve_the_image_in_the_last_stages():
    for name, stages in (("resnet18", "layer"), ("preactresnet18", "layer"), ("wrn", "block")):
        model = models.create(name, **({"width": 4} if name != "wrn" else {"depth": 10, "width": 1}))
        sides: list[int] = []
        hooks = [
            getattr(model, f"{stages}{k}").register_forward_hook(lambda *a, to=sides: to.append(a[2].shape[-1]))
            for k in (1, 2, 3, 4)
            if hasattr(model, f"{stages}{k}")
        ]
        model.eval()(torch.rand(1, 3, 32, 32))
        for hook in hooks:
            hook.remove()
        assert sides == [32, 16, 8, 4][: len(sides)]
        assert len(sides) == (3 if name == "wrn" else 4)


def test_names_are_those_of_public_checkpoints():
    keys = {
        "resnet18": [
            "conv1.weight",
            "bn1.weight",
            "layer1.0.conv1.weight",
            "layer1.0.bn2.bias",
            "layer2.0.shortcut.0.weight",
            "layer2.0.shortcut.1.running_mean",
            "layer4.1.conv2.weight",
            "linear.bias",
        ],
        "preactresnet18": ["conv1.weight", "layer1.0.bn1.weight", "layer3.0.shortcut.0.weight", "linear.weight"],
        "wrn": [
            "conv1.weight",
            "block1.layer.0.bn1.weight",
            "block1.layer.0.convShortcut.weight",
            "block3.layer.0.conv2.weight",
            "bn1.running_var",
            "fc.bias",
        ],
        "smallcnn": ["feature_extractor.conv1.weight", "feature_extractor.conv4.bias", "classifier.fc3.weight"],
        "vgg19": ["features.0.weight", "features.1.running_mean", "features.49.weight", "classifier.weight"],
    }
    for name, some in keys.items():
        small = {"wrn": {"depth": 10, "width": 2}, "smallcnn": {}, "vgg19": {"width": 0.125}}.get(name, {"width": 4})
        assert set(some) <= set(models.create(name, **small).state_dict())
    assert "layer1.0.shortcut.0.weight" not in models.create("resnet18", width=4).state_dict()


def test_smallcnn():
    model = models.create("smallcnn", seed=0)
    convolutions = conv(1, 32, 3, True) + conv(32, 32, 3, True) + conv(32, 64, 3, True) + conv(64, 64, 3, True)
    assert count(model) == convolutions + linear(1024, 200) + linear(200, 200) + linear(200, 10)
    assert model.eval()(torch.rand(2, 1, 28, 28)).abs().max() == 0  # the last layer starts at zero
    assert float(model.feature_extractor.conv3.weight.detach().std()) == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03)
    assert model.feature_extractor.conv3.bias.abs().max() == 0
    assert models.create("smallcnn", image_size=16)(torch.rand(1, 1, 16, 16)).shape == (1, 10)
    with pytest.raises(UserError, match=r"dropout must be a number in \[0, 1\); got 1"):
        models.create("smallcnn", dropout=1)


@pytest.mark.parametrize(("side", "left"), [(8, 2), (28, 7), (32, 8), (9, 2)])
def test_cnn(side, left):
    model = models.create("cnn", image_size=side, channels=3, width=6, classes=4)
    by_hand = conv(3, 6, 3, True) + conv(6, 12, 3, True) + linear(12 * left * left, 24) + linear(24, 4)
    assert count(model) == by_hand
    assert model(torch.rand(2, 3, side, side)).shape == (2, 4)


def test_cnn_has_the_sizes_of_the_digits_runs():
    model = models.create("cnn")
    assert (model.conv1.out_channels, model.conv2.out_channels, model.fc1.out_features) == (16, 32, 64)


def test_mlp():
    model = models.create("mlp", features=12, hidden=[5, 4], classes=3, activation="tanh", seed=0)
    assert count(model) == linear(12, 5) + linear(5, 4) + linear(4, 3)
    w = [p.detach() for p in model.parameters()]
    x = torch.rand(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    h = ((x.reshape(2, 12) @ w[0].T + w[1]).tanh() @ w[2].T + w[3]).tanh()
    torch.testing.assert_close(model(x), h @ w[4].T + w[5])
    assert [name for name, _ in model.named_children()] == ["flatten", "fc1", "act1", "fc2", "act2", "fc3"]
    assert count(models.create("mlp", features=3, hidden=())) == linear(3, 2)
    with pytest.raises(UserError, match=r"activation must be one of elu, .*relu.*; got 'rellu'"):
        models.create("mlp", activation="rellu")
    with pytest.raises(UserError, match="hidden must be a list of whole numbers; got 64"):
        models.create("mlp", hidden=64)


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("lsa-a", {"classes": 0}, "classes must be a whole number of 1 or more; got 0"),
        ("lsa-a", {"features": 0}, "features must be a whole number of 1 or more; got 0"),
        ("lsa-b", {"classes": 0}, "classes must be a whole number of 1 or more; got 0"),
        ("lsa-b", {"image_size": 19}, "image_size must be a whole number of 20 or more; got 19"),
        ("smallcnn", {"image_size": 15}, "image_size must be a whole number of 16 or more; got 15"),
        ("cnn", {"image_size": 3}, "image_size must be a whole number of 4 or more; got 3"),
        ("cnn", {"classes": 10.0}, "classes must be a whole number of 1 or more; got 10.0"),
        ("cnn", {"width": True}, "width must be a whole number of 1 or more; got True"),
        ("mlp", {"hidden": [8, 0]}, "hidden must be a whole number of 1 or more; got 0"),
        ("resnet18", {"channels": 0}, "channels must be a whole number of 1 or more; got 0"),
        ("preactresnet18", {"classes": 0}, "classes must be a whole number of 1 or more; got 0"),
        ("wrn", {"depth": 4}, "depth must be a whole number of 10 or more; got 4"),
        ("wrn", {"dropout": float("nan")}, "dropout must be a number in [0, 1); got nan"),
        ("vgg19", {"width": 0}, "width must be a number in [0.015625, 64]; got 0"),
        ("vgg19", {"classes": "ten"}, "classes must be a whole number of 1 or more; got 'ten'"),
    ],
)
def test_options_that_make_no_sense_are_told_in_one_line(name, options, line):
    with pytest.raises(UserError) as told:
        models.create(name, **options)
    assert str(told.value) == line
