"""Text is replaced whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from buttress import safe_files as files
from buttress.errors import UserError


def refuse(number):
    def raising(*_, **__):
        raise OSError(number, os.strerror(number))

    return raising


def test_text_comes_back_in_utf_8(tmp_path):
    file = tmp_path / "new" / "folder" / "facts.json"
    files.write_text(file, "ε ≤ 8/255 – µs")
    assert file.read_bytes() == "ε ≤ 8/255 – µs".encode()
    files.write_text(file, "two")
    assert [p.name for p in file.parent.iterdir()] == ["facts.json"]
    assert file.read_text() == "two"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("place", [(Path, "write_text"), (os, "fsync"), (os, "replace")])
def test_a_full_disk_leaves_the_old_text_and_no_rubbish(monkeypatch, tmp_path, place, number):
    file = tmp_path / "facts.json"
    files.write_text(file, "one")
    with monkeypatch.context() as patch:
        patch.setattr(*place, refuse(number))
        with pytest.raises(UserError, match=r"no space left to write .*facts.json; what was there before is intact"):
            files.write_text(file, "two")
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]
    assert file.read_text() == "one"


def test_other_errors_pass():
    with pytest.raises(PermissionError), files.full_disk_reported(Path("here")):
        refuse(errno.EACCES)()
    with pytest.raises(SafetensorError), files.full_disk_reported(Path("here")):
        raise SafetensorError("header too large")


def test_safetensors_own_word_for_a_full_disk_is_understood():
    with pytest.raises(UserError, match="no space left to write here"), files.full_disk_reported(Path("here")):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
