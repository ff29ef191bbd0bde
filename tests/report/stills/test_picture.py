"""The file of a still picture: self-contained, valid, and the same for the same data."""

import matplotlib
import numpy as np
import torch

from buttress.audits.base.png import png
from buttress.report.stills.picture import show_image, style, to_svg


def test_nothing_is_fetched_and_nothing_is_markup(figure, parse, texts):
    axes = figure.subplots()
    show_image(axes, "https://example.org/x.png")
    axes.set_title("</text><script>alert(1)</script>\x07 $x$")
    root = parse(to_svg(figure, "a\x00<b>"))
    assert root[0].text == "a<b>"
    assert texts(root) == ["</text><script>alert(1)</script> $x$"]
    assert not axes.images


def test_an_embedded_image_keeps_its_pixels(figure):
    axes = figure.subplots()
    show_image(axes, png(torch.tensor([[0, 255], [10, 20]], dtype=torch.uint8)))
    (image,) = axes.images
    np.testing.assert_array_equal(np.asarray(image.get_array())[..., 0], [[0, 255], [10, 20]])
    assert image.get_interpolation() == "none"


def test_names_in_other_scripts_are_drawn_without_a_warning(figure, parse, texts):
    figure.text(0.5, 0.5, "对抗训练")
    assert texts(parse(to_svg(figure, "t"))) == ["对抗训练"]


def test_the_users_own_settings_neither_count_nor_change():
    with matplotlib.rc_context({"font.size": 33.0, "text.usetex": True}):
        with style():
            assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["text.usetex"]) == (9.0, False)
        assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["text.usetex"]) == (33.0, True)
