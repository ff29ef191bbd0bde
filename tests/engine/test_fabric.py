"""Processes that Slurm started, as far as its environment says so: they find each other, and train together."""

import json
import os
import socket

import pytest
from tests import forked

from buttress import processes
from buttress.cli import main
from buttress.engine.fabric import start_processes
from buttress.engine.machine import Machine


def under_slurm(folder, rank, port):
    """One of two tasks of a step, as srun starts them."""
    slurm = {"STEP_NUM_TASKS": 2, "NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1, "NODEID": 0, "NODELIST": "localhost"}
    slurm |= {"PROCID": rank, "LOCALID": rank, "JOB_ID": 7, "JOB_NAME": "mine"}
    os.environ |= {f"SLURM_{name}": str(value) for name, value in slurm.items()}
    os.environ |= {"MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    words = ["train", str(folder / "run"), "--data", "moons", "--model", "mlp", "--epochs", "1"]
    status = main([*words, "--data-args", json.dumps({"samples": 60, "val": 20, "test": 4})])
    start_processes(Machine(accelerator="cpu"))
    (folder / f"{rank}.json").write_text(json.dumps([status, processes.gather(rank), os.environ["MASTER_ADDR"]]))
    processes.gather(None)  # the first holds the store of all


def test_tasks_of_slurm_train_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    tasks = [forked.start(under_slurm, tmp_path, rank, port) for rank in (0, 1)]
    for task in tasks:
        task.join(60)
    assert [task.exitcode for task in tasks] == [0, 0]
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == [0, [0, 1], "localhost"]
    assert (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(("value", "known"), [(RuntimeError("gloo: closed"), True), (RuntimeError("shape"), False)])
def test_a_lost_process_is_told_from_other_errors(value, known):
    assert processes.is_loss(value) == known
