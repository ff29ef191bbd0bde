import gzip

import numpy as np
import pytest

from buttress.data.formats.idx import read_idx
from buttress.errors import UserError


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


ARRAY = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_reads_what_was_written_whatever_the_name_says(tmp_path, packed, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(idx(ARRAY)) if packed else idx(ARRAY))
    assert np.array_equal(read_idx(path, 3), ARRAY)


def test_labels_have_one_dimension(tmp_path):
    path = tmp_path / "labels"
    path.write_bytes(idx(ARRAY.ravel()))
    assert np.array_equal(read_idx(path, 1), ARRAY.ravel())


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        pytest.param(b"", "begins with 00000803, got no bytes", id="empty"),
        pytest.param(b"\x89PNG....", "begins with 00000803, got 89504e47", id="another format"),
        pytest.param(idx(ARRAY.ravel()), "begins with 00000803, got 00000801", id="labels"),
        pytest.param(idx(ARRAY)[:9], "a header of 16 bytes, got 9 bytes", id="half a header"),
        pytest.param(idx(ARRAY)[:-1], r"expected 40 bytes for the sizes \[2, 3, 4\], got 39", id="too short"),
        pytest.param(idx(ARRAY) + b"!", r"expected 40 bytes for the sizes \[2, 3, 4\], got 41", id="too long"),
        pytest.param(gzip.compress(idx(ARRAY))[:-12], "cannot be read", id="gzip cut off"),
        pytest.param(gzip.compress(idx(ARRAY))[:-8] + bytes(8), "cannot be read", id="gzip checksum"),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected(tmp_path, raw, text):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=text) as caught:
        read_idx(path, 3)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_idx(tmp_path / "nothing", 3)
