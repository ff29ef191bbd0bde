"""A result says of which commit it is."""

import subprocess
from pathlib import Path

import pytest

from buttress.claims.reproduce import commit

HERE = ["git", "-C", str(Path(__file__).parent)]


@pytest.mark.skipif(
    bool(subprocess.run([*HERE, "rev-parse", "HEAD"], capture_output=True).returncode), reason="not a working copy"
)
def test_a_working_copy_is_known_by_its_commit():
    head = subprocess.run([*HERE, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert commit().removesuffix("-dirty") == head
