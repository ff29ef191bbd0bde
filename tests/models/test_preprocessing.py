"""Mean and standard deviation as a user states them, and as others keep them beside weights."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from buttress.errors import UserError
from buttress.models import Normalized
from buttress.models.preprocessing import NAMED, Statistics, beside, stated

FACTOR = 1 / 255


@pytest.mark.parametrize(
    ("text", "mean", "std"),
    [
        ("0.5,0.4,0.3/0.2,0.1,0.3", (0.5, 0.4, 0.3), (0.2, 0.1, 0.3)),
        ("0.5/0.25", (0.5,), (0.25,)),
        ("0.1,0.2,0.3/1", (0.1, 0.2, 0.3), (1.0,)),
        *((name, *values) for name, values in NAMED.items()),
    ],
)
def test_what_is_stated_is_what_is_meant(text, mean, std):
    found = stated(text, 3)
    assert (found.mean, found.std) == (mean, std)


numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=3, max_size=3), st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3))
def test_statistics_as_words_are_read_back_to_the_last_digit(mean, std):
    found = Statistics(tuple(mean), tuple(std))
    assert stated(found.words, 3) == found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("imagnet", "normalise must be none, data, MEAN/STD such as .*, or one of imagenet.*; got 'imagnet'"),
        ("0.5", "normalise must be none, data, MEAN/STD"),
        ("0.5/", "normalise must be"),
        ("0.5/x", "normalise must be"),
        ("nan/1", "normalise must be"),
        ("0.5/1/2", "normalise must be"),
        ("0.5/0", "std must be positive in every channel; got 0"),
        ("0.5,0.5/1", "has values for 2 and 1 channels, the inputs have 3"),
    ],
)
def test_what_means_nothing_is_told(text, told):
    with pytest.raises(UserError, match=told):
        stated(text, 3)


@pytest.mark.parametrize(
    "facts",
    [
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 0.00392156862745098},
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "rescale_factor": 2 / 255},
        {"image_mean": [120.0, 110.0, 100.0], "image_std": [50.0, 51.0, 52.0], "do_rescale": False},
        {"image_mean": 0.5, "image_std": 0.5},
        {"do_normalize": False},
        {"do_normalize": False, "do_rescale": False},
    ],
)
def test_an_image_processors_configuration_does_what_the_processor_does(facts, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(facts))
    found = beside(tmp_path / "model.safetensors")
    levels = torch.randint(0, 256, (4, 3, 5, 5), generator=torch.Generator().manual_seed(0))
    pixels = levels * (facts.get("rescale_factor", FACTOR) if facts.get("do_rescale", True) else 1.0)
    if facts.get("do_normalize", True):
        mean, std = (torch.tensor(facts[key]).reshape(-1, 1, 1) for key in ("image_mean", "image_std"))
        pixels = (pixels - mean) / std
    inside = Normalized(nn.Identity(), *found.by_channel(3))
    torch.testing.assert_close(inside(levels / 255), pixels.float(), rtol=1e-4, atol=1e-4)


def test_timms_configuration_is_read_and_nothing_is_nothing(tmp_path):
    assert beside(tmp_path / "model.safetensors") is None
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Of", "transformers"]}))
    assert beside(tmp_path / "model.safetensors") is None
    config = {"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = beside(tmp_path / "model.safetensors")
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    assert found.origin == f"from {tmp_path / 'config.json'}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("preprocessor_config.json", {"image_mean": [0.4], "image_std": [0.2]}),
        ("processor_config.json", {"image_processor": {"image_mean": [0.4], "image_std": [0.2]}}),
        ("config.json", {"pretrained_cfg": {"mean": [0.4], "std": [0.2]}}),
        ("config.json", {"architecture": "resnet18", "mean": [0.4], "std": [0.2]}),
        ("open_clip_config.json", {"preprocess_cfg": {"mean": [0.4], "std": [0.2]}}),
    ],
)
def test_configurations_are_found_beside_a_file_and_in_a_folder_of_weights(name, content, tmp_path):
    (tmp_path / name).write_text(json.dumps(content))
    for weights in (tmp_path / "model.safetensors", tmp_path):
        found = beside(weights)
        assert (found.mean, found.std) == ((0.4,), (0.2,))
        assert found.origin == f"from {tmp_path / name}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "preprocessor_config.json cannot be read"),
        ('{"do_resize": true}', "does not say image_mean and image_std: give --normalise"),
        ('{"image_mean": ["a"], "image_std": [1]}', "expected numbers for mean and std"),
        ('{"image_mean": [0.5], "image_std": [0]}', "expected numbers for mean and std"),
        ('{"image_mean": [0.5], "image_std": [0.5], "do_flip_channel_order": true}', "in the order BGR"),
        ('{"image_mean": [0.5], "image_std": [0.5], "rescale_offset": true}', r"asks for 1 less .* \(rescale_offset\)"),
        ('{"image_mean": [0.5], "image_std": [0.5], "include_top": true}', "asks for another division by std"),
    ],
)
def test_a_configuration_that_does_not_say_it_is_told(text, told, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(UserError, match=told):
        beside(tmp_path / "model.safetensors")
