"""What a worker of a Ray cluster does for one job."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from buttress.claims.jobs import Job
from buttress.engine.machine import Accelerator

if TYPE_CHECKING:
    from buttress.claims.answers import Answer

Environment = dict[str, str]
Task = Callable[[Environment, Job, "str | None", Accelerator, str], "Answer | str"]


def make_task() -> tuple[Task, Callable[[], Environment]]:
    """The function that runs a job in a worker, and that which says what is installed where it is called.

    They are made here, and import what they use, so that Ray sends them as they are: a host that has no buttress, or
    another one, answers all the same, also one that joins later.
    """

    def environment() -> Environment:
        """The versions that figures depend on; of buttress the digest of its files."""
        import hashlib
        import importlib.util
        import platform
        from importlib.metadata import version
        from pathlib import Path

        found = importlib.util.find_spec("buttress")
        if found is None or found.origin is None:
            return {}
        folder, digest = Path(found.origin).parent, hashlib.sha256()
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        own = f"{digest.hexdigest()[:12]} (a digest of its files)"
        return {"Python": platform.python_version(), "torch": version("torch"), "buttress": own}

    def task(mine: Environment, job: Job, data_dir: str | None, accelerator: Accelerator, folder: str) -> Answer | str:
        """The answer of a job; a line where this host cannot give it.

        Args:
            mine: the `environment` of who asks.
            job: as in `run_job`.
            data_dir: likewise.
            accelerator: likewise.
            folder: that relative paths are meant from.
        """
        import os
        import sys

        from ray.util import get_node_ip_address

        host, theirs = get_node_ip_address(), environment()
        if not theirs:
            return f"the host {host} has no buttress for {sys.executable}: install it on every host"
        for name, version in mine.items():
            if theirs[name] != version:
                return f"the host {host} has {name} {theirs[name]}, this one {version}: install the same on both"
        import torch

        from buttress.claims.answers import Answer, answer
        from buttress.started import forget

        torch.set_num_threads(1)
        forget()  # srun, which may have started this worker, did not start it to share a training
        if os.path.isdir(folder):
            os.chdir(folder)
        result = answer(job, data_dir, accelerator)
        return Answer(mistake=f"{result.mistake} (on the host {host})") if result.mistake else result

    return task, environment
