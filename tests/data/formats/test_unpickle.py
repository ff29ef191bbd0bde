import collections
import os
import pickle

import numpy as np
import pytest

from buttress.data.formats.unpickle import read_pickle
from buttress.errors import UserError

X = np.arange(12, dtype=np.uint8).reshape(3, 4)
Y = [2, 0, 1]


def read(content, protocol=2):
    raw = content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
    return read_pickle(raw, "some/batch", "data", "labels")


class Calls:
    """Pickles to a call of any function, as an attacker's object does."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("labels", [Y, np.array(Y, dtype=np.uint8)])
def test_arrays_of_bytes_come_back(protocol, order, labels):
    x, y = read({"data": np.asarray(X, order=order), "labels": labels, "filenames": ["a", "b"]}, protocol)
    assert np.array_equal(x, X)
    assert (y.tolist(), y.dtype) == (Y, np.int64)


def test_what_python_2_wrote_comes_back():
    # Strings as bytes, the array's name in numpy.core, its bytes as a string: the opcodes of the published files.
    raw = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03K\x04\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x0c" + X.tobytes() + b"tb"
        b"U\x06labels](K\x02K\x00K\x01eu."
    )
    x, y = read(raw)
    assert np.array_equal(x, X)
    assert y.tolist() == Y


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_is_refused_by_name_and_not_run(tmp_path, protocol):
    mark = tmp_path / "was-here"
    for bad, name in (
        (Calls(os.mkdir, str(mark)), f"{os.mkdir.__module__}.mkdir"),
        (Calls(eval, f"__import__('os').mkdir({str(mark)!r})"), r"\w+\.eval"),
        (Calls(getattr, X, "tofile"), r"\w+\.getattr"),
        (collections.OrderedDict(), r"collections\.OrderedDict"),
    ):
        for content in (bad, {"data": X, "labels": bad}, {"data": X, "labels": Y, "extra": bad}):
            with pytest.raises(UserError, match=rf"some/batch: .* asks for {name}; refused"):
                read(content, protocol)
    assert not mark.exists()


def test_a_codec_is_not_imported_by_name():
    raw = b"\x80\x02}(X\x04\x00\x00\x00datac_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86Ru."
    with pytest.raises(UserError, match="the codec 'rot13'"):
        read(raw)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a pickle",
        pickle.dumps({"data": X, "labels": Y}, protocol=2)[:-20],
        [1, 2],
        {"data": X},
        {"data": X.astype(np.float32), "labels": Y},
        {"data": X.astype(object), "labels": Y},
        {"data": "text", "labels": Y},
        {"data": X, "labels": [0.5, 1.5, 2.5]},
        {"data": X, "labels": ["a", "b", "c"]},
    ],
)
def test_a_damaged_or_other_pickle_is_refused_in_one_line(content):
    with pytest.raises(UserError, match="some/batch: expected a pickled batch with 'data' and 'labels'") as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_an_array_shorter_than_its_shape_is_refused():
    raw = pickle.dumps({"data": X, "labels": Y}, protocol=2)
    with pytest.raises(UserError, match="some/batch: expected a pickled batch"):
        read(raw.replace(b"K\x03K\x04\x86", b"K\x03K\x05\x86"))
