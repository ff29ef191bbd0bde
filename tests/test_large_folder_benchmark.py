"""The benchmark of a large folder in a tiny form: images are made once, both loops see them, memory is measured."""

import importlib
import os

import pytest
from PIL import Image
from tests.test_gpu_benchmark import BENCHMARKS


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("large_folder")


def test_images_are_made_once_and_both_loops_read_them(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "BATCH", 4)
    benchmark.write_images(tmp_path, 20)
    files = sorted(tmp_path.rglob("*.jpg"))
    made = {file: file.stat().st_mtime_ns for file in files}
    benchmark.write_images(tmp_path, 30)
    assert len(list(tmp_path.rglob("*.jpg"))) == 30
    assert {file: file.stat().st_mtime_ns for file in files} == made
    with Image.open(files[0]) as image:
        assert image.size == (224, 224)
    benchmark.compare_speed(tmp_path, 2, 2, 1)
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told[:2]] == ["turn 1", "turn 2"]
    assert told[2].startswith("ours is ")


def test_the_memory_of_a_session_is_that_of_its_processes(benchmark):
    assert 1e7 < benchmark.memory_of_session(os.getsid(0)) < 1e12
    assert benchmark.memory_of_session(2**22 + 1) == 0
