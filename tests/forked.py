"""Processes of their own, forked from one that has imported everything: each costs its work alone."""

import multiprocessing
import os

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

IMPORTED = "buttress.cli buttress.jobs buttress.training lightning_fabric pytest sklearn.datasets torch._dynamo"
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([*IMPORTED.split(), "torch.utils.tensorboard"])


def start(target, *arguments):
    """A process that calls a module's function."""
    process = _SERVER.Process(target=_in_one_thread, args=(target, *arguments))
    process.start()
    return process


def run(target, *arguments):
    """Wait until such a process has returned."""
    process = start(target, *arguments)
    process.join(120)
    if process.is_alive():
        process.kill()
    process.join()
    assert process.exitcode == 0


def run_twice(target, *arguments):
    """As `run`, in two processes that know of each other as those of ``torchrun --standalone`` do."""
    run(_launch, target, *arguments)


def _in_one_thread(target, *arguments):
    torch.set_num_threads(1)
    target(*arguments)


def _launch(target, *arguments):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    rendezvous = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": str(os.getpid())}
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, start_method="fork", max_restarts=0, **rendezvous)
    elastic_launch(config, target)(*arguments)
