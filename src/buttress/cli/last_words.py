"""What a command says when it ends before it is done: one line, also where several processes end together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

LOST = "buttress: another process of this command has ended (killed, or out of memory?); go on with --resume\n"

# Set where several processes run the command: the status to end with where another has told why, None where this one is
# to tell.
settle: Callable[[int], int | None] | None = None


def tell(text: str, status: int, stream: TextIO | None = None) -> int:
    """Write why the command ends, unless another of its processes has; the exit status.

    Args:
        text: what to write.
        status: to end with; that of the process that has told, where it is another.
        stream: where to; standard error by default.
    """
    told = None if settle is None else settle(status)
    if told is not None:
        return told
    stream = stream or sys.stderr
    stream.write(text)
    stream.flush()
    return status
