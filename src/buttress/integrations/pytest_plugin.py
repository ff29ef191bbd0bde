"""The fixture ``assert_robust``, which pytest finds by itself where buttress is installed.

What it needs is imported by the first test that asks for it: other test suites start as fast as before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(name="assert_robust", scope="session")
def _assert_robust() -> Callable[..., dict[str, Any]]:
    """`buttress.integrations.assert_robust`: fails a test whose network is less robust than it should be."""
    from buttress.integrations.assertion import assert_robust

    return assert_robust
