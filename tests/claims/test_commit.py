"""A result says of which commit it is."""

import subprocess
from pathlib import Path

from buttress.claims.reproduce import commit


def test_a_working_copy_is_known_by_its_commit():
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    head = subprocess.run(git, check=False, capture_output=True, text=True).stdout.strip()
    assert commit().removesuffix("-dirty") == (head or "unknown")
