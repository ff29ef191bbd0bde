"""The few calls of Ray's that buttress makes, for tests: a task runs in this process, when its result is asked for.

A test sets what happens: ``refusal`` of joining, ``resources``, and ``plan``, of each result an exception or None. In a
process of its own, which reads the environment alone, FAKE_RAY_RESULTS is how many results come until the head is gone.
"""

import os
from types import SimpleNamespace


class RayError(Exception):
    pass


class WorkerCrashedError(RayError):
    pass


class LocalRayletDiedError(RayError):
    pass


exceptions = SimpleNamespace(
    RayError=RayError, WorkerCrashedError=WorkerCrashedError, LocalRayletDiedError=LocalRayletDiedError
)
refusal, resources, plan, taken = None, {"CPU": 2.0}, [], {}
_left = [int(os.environ.get("FAKE_RAY_RESULTS", "1000"))]


def init(address, **options):
    if refusal is not None:
        raise refusal


def shutdown():
    plan.append("left")


def cluster_resources():
    return resources


def nodes():
    return [{"Alive": True}, {"Alive": True}, {"Alive": False}]


def remote(**options):
    taken.update(options)
    return lambda task: SimpleNamespace(remote=lambda *arguments: _Reference(task, arguments))


class _Reference:
    def __init__(self, task, arguments):
        self.task, self.arguments = task, arguments


def wait(references, num_returns):
    return references[:num_returns], references[num_returns:]


def get(reference):
    if _left[0] == 0:
        os._exit(1)  # as Ray does without its head
    _left[0] -= 1
    error = plan.pop(0) if plan else None
    if error is not None:
        raise error
    return reference.task(*reference.arguments)
