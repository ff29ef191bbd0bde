import numpy as np
import pytest
from PIL import Image

from buttress.data.images.decode import broken_files, common_format, load_images
from buttress.errors import UserError


def picture(shape=(4, 6, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def read(*paths, **options):
    form = common_format(paths, options.pop("size", None), **options)
    return load_images(paths, form), form


# What is stored so that, turned as each EXIF orientation says, it is the picture: written down from the standard.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_images_are_upright_as_exif_says(tmp_path, orientation):
    wanted = picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](wanted))).save(path, exif=exif)
    x, form = read(path)
    assert np.array_equal(x[0].transpose(1, 2, 0), wanted)
    assert any("EXIF" in note for note in form.notes) == (orientation > 1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_the_orientation_is_found_in_every_format(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(picture((8, 4, 3))).save(path, exif=exif)
    assert read(path)[0].shape == (1, 3, 4, 8)


def test_metadata_behind_the_pixels_of_a_png_are_found(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(picture((8, 4, 3))).save(path, exif=exif)
    raw = path.read_bytes()
    start = raw.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(raw[start : start + 4], "big")
    last = raw.index(b"IEND") - 4
    path.write_bytes(raw[:start] + raw[end:last] + raw[start:end] + raw[last:])
    assert read(path)[0].shape == (1, 3, 4, 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_eight_bits_gives_the_same_white(tmp_path, mode):
    suffix = "tif" if mode in ("CMYK", "YCbCr") else "png"
    path, colour = tmp_path / f"a.{suffix}", tmp_path / "b.png"
    Image.new("RGB", (3, 3), (255, 255, 255)).convert(mode).save(path)
    Image.new("RGB", (3, 3), (255, 255, 255)).save(colour)
    x, form = read(path, colour)
    assert form.mode == "RGB"
    assert x.min() == 255


def test_what_is_converted_is_counted(tmp_path):
    paths = [tmp_path / name for name in ("grey.png", "clear.png", "cmyk.tif", "moving.gif", "plain.png")]
    Image.new("L", (3, 3)).save(paths[0])
    Image.new("RGBA", (3, 3), (1, 2, 3, 0)).save(paths[1])
    Image.new("CMYK", (3, 3)).save(paths[2])
    Image.new("RGB", (3, 3), "red").save(paths[3], save_all=True, append_images=[Image.new("RGB", (3, 3), "blue")])
    Image.new("RGB", (3, 3)).save(paths[4])
    x, form = read(*paths)
    assert x[1, :, 0, 0].tolist() == [1, 2, 3]  # what is transparent keeps its colour
    assert x[3, 0].min() > 200  # the first frame
    for what in ("1 are grey", "1 have transparency", "1 are CMYK", "1 have several frames"):
        assert any(f"of 5 images {what}" in note for note in form.notes), what


def test_resizing_keeps_proportions_only_when_asked_and_says_which(tmp_path):
    path = tmp_path / "wide.png"
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 255  # a white square in the middle
    Image.fromarray(wide).save(path)
    stretched, form = read(path, size=4)
    assert stretched.min() < 20
    assert "1 are resized to 4x4 (bicubic, proportions not kept)" in form.notes[0]
    cropped, form = read(path, size=4, crop=True)
    assert cropped.min() == 255
    assert "proportions kept" in form.notes[0]
    with pytest.raises(UserError, match="crop has no effect without a size"):
        read(path, crop=True)


def test_broken_files_are_found_by_decoding_them(tmp_path):
    whole, cut, wrong = (tmp_path / name for name in ("a.png", "b.png", "c.png"))
    Image.fromarray(picture((30, 30, 3))).save(whole)
    cut.write_bytes(whole.read_bytes()[:900])
    wrong.write_text("x")
    assert broken_files([whole, cut, wrong]) == [cut, wrong]
    with pytest.raises(UserError, match="skip_broken true"):
        read(whole, cut)
