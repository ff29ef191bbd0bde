import base64
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from buttress.audits.base.png import difference, png
from buttress.errors import UserError

SIDES = st.integers(1, 6)
SHAPES = st.one_of(st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES, st.just(3)))


def back(address):
    head, _, body = address.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))


@given(arrays(np.uint8, SHAPES))
def test_pixels_come_back(image):
    assert np.array_equal(back(png(image)), image)
    assert png(torch.from_numpy(image)) == png(image)


@pytest.mark.parametrize("image", [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2), np.uint8)])
def test_what_is_no_image_is_refused(image):
    with pytest.raises(UserError, match=r"uint8; got \("):
        png(image)


def test_difference_is_centred_on_grey_and_cut_off():
    x = np.full((1, 1, 4), 0.5)
    x_adv = x + np.array([0.0, 0.05, -0.05, 0.4])
    assert difference(x, x_adv, 2.0).tolist() == [[128, 153, 102, 255]]


def test_difference_of_colours_puts_channels_last():
    x = torch.zeros(3, 2, 5)
    x_adv = x.clone()
    x_adv[1, 0, 3] = 0.25
    pixels = difference(x, x_adv, 1.0)
    assert pixels.shape == (2, 5, 3)
    assert pixels[0, 3].tolist() == [128, 191, 128]


def test_difference_refuses_other_shapes():
    with pytest.raises(UserError, match="one shape expected"):
        difference(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)), 1.0)
    with pytest.raises(UserError, match="one shape expected"):
        difference(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), 1.0)
