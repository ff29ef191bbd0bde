import importlib.util
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_fashion_mini.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_fashion_mini", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_first_of_each_class_are_taken_in_order(script):
    labels = np.array([3, 3, 0, 1, 0, 3, 0, 1, *range(10)], dtype=np.uint8)
    assert script.select(labels, 2).tolist() == [0, 1, 2, 3, 4, 7, 10, 12, 13, 14, 15, 16, 17]


def test_the_file_holds_the_arrays_and_nothing_of_the_time(script):
    arrays = {"x": np.arange(2000, dtype=np.uint8).reshape(2, 10, 100), "y": np.array([1, 2], dtype=np.uint8)}
    raw = script.pack(arrays)
    with np.load(io.BytesIO(raw), allow_pickle=False) as back:
        assert {name: back[name].tolist() for name in back.files} == {k: v.tolist() for k, v in arrays.items()}
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert raw == script.pack(arrays)


def test_another_source_is_refused(script, tmp_path):
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(bytes([0, 0, 8, 3, *[0, 0, 0, 1] * 3, 7]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 1, 0]))
    with pytest.raises(SystemExit, match="are not the published Fashion-MNIST"):
        script.make(tmp_path)
