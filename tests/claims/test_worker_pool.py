"""The worker processes of a reproduction."""

import os
import signal
import subprocess
import sys
import time

import pytest

from buttress.claims import worker_pool
from buttress.claims.work import Work
from buttress.claims.worker_pool import device_of, local_engine
from buttress.errors import ProcessLostError, UserError
from buttress.jobs.settings import Reporter

# A pool whose worker says who it is and then has long work; the pool's process waits for it.
PARENT = """
import os, sys, time
from concurrent.futures import wait
from buttress.claims.worker_pool import processes

if __name__ == "__main__":
    with processes(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        wait([pool.submit(time.sleep, 600)])
"""


def alive(pid):
    """Whether a process runs; one that has ended and was not yet asked for its status does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_end_when_the_process_that_has_them_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        worker = int(parent.stdout.readline())
        assert alive(worker)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        until = time.monotonic() + 60
        while alive(worker) and time.monotonic() < until:
            time.sleep(0.05)
        assert not alive(worker)
    finally:
        parent.kill()
        parent.stdout.close()
        parent.wait()


MINE = """
import os, signal
from buttress.defences.standard import Standard

class Wrong(Standard):
    def loss(self, model, batch, context):
        raise LookupError("nothing is known of this")

class Deadly(Standard):
    def loss(self, model, batch, context):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_mistake_in_a_worker_is_told_by_its_line_and_a_worker_that_is_killed_in_one_line(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    source = {"data": "moons", "data_args": {"samples": 16, "val": 4, "test": 4}}
    setup = {"source": source, "architecture": {"model": "mlp"}, "training": {"epochs": 1}}

    def job(name):
        return {"setup": setup, "defence": f"{tmp_path}/mine.py:{name}", "seed": 0, "split": "test"}

    with local_engine(None, 1) as engine:
        with pytest.raises(UserError, match=r"mine.py, line 7, in loss: LookupError: nothing is known of this"):
            list(engine.results({"wrong": job("Wrong")}))
        with pytest.raises(
            ProcessLostError, match=r"a worker process died, .*: go on with --resume and fewer --workers"
        ):
            list(engine.results({"deadly": job("Deadly")}))


def test_the_devices_that_ran_are_known_also_of_jobs_done_before(tmp_path, monkeypatch):
    results = [{"device": "GPU", "seconds": {}}, {"device": "CPU", "seconds": {}}, {"seconds": {}}]
    monkeypatch.setattr(worker_pool, "run_job", lambda job, *where: results[job["number"]])
    jobs = [{"number": number} for number in range(3)]
    with local_engine(None, 0) as engine:
        work = Work(tmp_path, engine, Reporter())
        work.run(jobs[:2], "first")
        assert work.devices == {"GPU", "CPU"}
        work = Work(tmp_path, engine, Reporter())
        work.run(jobs, "again")
        assert work.devices == {"GPU", "CPU", "not recorded"}


def test_workers_take_turns_on_the_devices_that_are_visible():
    assert [device_of(turn, 2, None) for turn in range(4)] == ["0", "1", "0", "1"]
    assert [device_of(turn, 2, "5,3,7") for turn in range(3)] == ["5", "3", "5"]
    assert device_of(3, 2, "GPU-a") == "GPU-a"
