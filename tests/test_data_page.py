"""The examples of docs/data.md run as they are printed."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from buttress.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text()
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.S))


def commands(file):
    """Those of the page that use this file, as words."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, re.S)
    name = file.removesuffix(".py")
    return [shlex.split(line)[1:] for block in blocks for line in block.splitlines() if f"/{name} " in line]


def test_each_python_block_is_a_file():
    assert len(FILES) == PAGE.count("```python") == 3


@pytest.mark.parametrize("file", ["reviews.py", "tones.py"])
def test_training_and_audit(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path(file).write_text(FILES[file])
    train, audit = commands(file)
    assert main([*train, "--accelerator", "cpu"]) == 0, capsys.readouterr().err
    assert main([*audit, "--accelerator", "cpu", "--inputs", "16", "--audits", "robustness"]) == 0
    assert "robust accuracy is" in capsys.readouterr().out


def test_a_table(tmp_path, capsys):
    (tmp_path / "credit.py").write_text(FILES["credit.py"])
    runpy.run_path(str(tmp_path / "credit.py"))
    assert re.search(r"robust accuracy is \d", capsys.readouterr().out)
