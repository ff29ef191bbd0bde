"""A job in another process: its result, or why there is none, as plain data that any process can read."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from buttress.claims.jobs import Job, Result, run_job
from buttress.engine.machine import Accelerator
from buttress.errors import UserError
from buttress.jobs.user_code_errors import users_mistake
from buttress.training import Interrupted


class FailedJobError(RuntimeError):
    """A job failed in another process, by our fault; its traceback is the message."""


@dataclass(frozen=True)
class Answer:
    """What became of a job.

    Attributes:
        result: None where there is none.
        mistake: the user's, in one line.
        fault: ours, with the traceback, which would not come over by itself.
    """

    result: Result | None = None
    mistake: str = ""
    fault: str = ""

    def unwrap(self) -> Result:
        """The result.

        Raises:
            UserError: where the job was the user's mistake.
            FailedJobError: where it failed by our fault.
        """
        if self.mistake:
            raise UserError(self.mistake)
        if self.result is None:
            raise FailedJobError(self.fault)
        return self.result


def answer(job: Job, data_dir: str | None, accelerator: Accelerator) -> Answer:
    """Run a job; see `run_job`. Whose code failed is told here, where the traceback still leads to it."""
    try:
        return Answer(run_job(job, data_dir, accelerator))
    except UserError as error:
        return Answer(mistake=str(error))
    except Interrupted:  # its process is asked to stop
        raise
    except Exception as error:
        mistake = users_mistake(error)
        return Answer(fault=traceback.format_exc()) if mistake is None else Answer(mistake=mistake)
