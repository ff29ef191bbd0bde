"""A cluster of Ray's as the engine of a reproduction; Ray's few calls are a fake's, in fake_ray/."""

import importlib
import importlib.util
import json
import multiprocessing
import signal
import socket
import sys
from pathlib import Path
from threading import Thread

import pytest
import yaml
from tests.claims.test_table import RECIPE
from tests.reporters import Heard

from buttress.claims import answers
from buttress.claims.engine_choice import EngineChoice
from buttress.claims.ray_driver import TRIES, Settings, serve
from buttress.claims.ray_engine import _Driver, ray_engine
from buttress.claims.ray_task import make_task
from buttress.cli import main
from buttress.engine.machine import Machine
from buttress.errors import ProcessLostError, UserError
from buttress.jobs.settings import Reporter

FAKE = Path(__file__).parent / "fake_ray"
JOBS = {"a": {"number": 1}, "b": {"number": 2}, "c": {"number": 3}}
RESULTS = {key: {"ran": job} for key, job in JOBS.items()}


@pytest.fixture
def ray(monkeypatch):
    monkeypatch.syspath_prepend(FAKE)
    for name in ("ray", "ray.util"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("ray")
    for name in ("ray", "ray.util"):
        sys.modules.pop(name, None)


@pytest.fixture
def connect(ray, monkeypatch):
    """Joins the fake cluster from a thread, as `drive` does from a process."""
    monkeypatch.setattr(answers, "run_job", lambda job, *where: {"ran": job})
    threads = []

    def joined(heard=None, **settings):
        ours, theirs = multiprocessing.Pipe()
        settings = Settings(
            **{"address": "head:1", "accelerator": "auto", "data_dir": None, "at_once": None} | settings
        )

        def served():
            try:
                serve(theirs, settings)
            except UserError as error:
                theirs.send(answers.Answer(mistake=str(error)))
            theirs.close()

        threads.append(Thread(target=served))
        threads[0].start()
        connections.append(ours)
        return _Driver(ours, "head:1", heard or Heard())

    connections = []
    yield joined
    connections[0].close()
    threads[0].join(10)
    assert not threads[0].is_alive()


def test_results_come_back_by_key_and_the_cluster_is_told_and_left(ray, connect):
    heard = Heard()
    driver = connect(heard)
    assert dict(driver.results(JOBS)) == RESULTS
    assert dict(driver.results({"d": {"number": 4}})) == {"d": {"ran": {"number": 4}}}
    assert heard.lines == ["on Ray's cluster at head:1: 2 nodes, 2 CPUs"]
    assert driver.at_once == 2
    assert ray.taken == {"max_retries": 0, "num_cpus": 1}


@pytest.mark.parametrize("at_once", [1, 2, None])
def test_a_job_whose_worker_goes_is_put_again_and_told(at_once, ray, connect):
    ray.plan[:] = [ray.WorkerCrashedError("gone"), None, ray.WorkerCrashedError("gone"), None]
    heard = Heard()
    assert dict(connect(heard, at_once=at_once).results(JOBS)) == RESULTS
    again = "the worker of a job has gone, which is put again (WorkerCrashedError: gone)"
    assert heard.lines[1:] == [again, again]


def test_a_job_is_put_again_a_few_times_only(ray, connect):
    ray.plan[:] = [ray.WorkerCrashedError("memory")] * TRIES
    with pytest.raises(UserError, match=rf"went {TRIES} times \(WorkerCrashedError: memory\).*go on with --resume"):
        list(connect().results({"a": JOBS["a"]}))


def test_without_a_part_in_the_cluster_nothing_more_comes_and_what_came_is_kept(ray, connect):
    ray.plan[:] = [None, ray.LocalRayletDiedError("raylet")]
    results = connect().results(JOBS)
    assert next(results) == ("a", RESULTS["a"])
    with pytest.raises(ProcessLostError, match=r"head:1 has gone .* what was done is kept: .* --resume"):
        next(results)


@pytest.mark.parametrize(
    ("refusal", "line"),
    [
        (ConnectionError("none"), "no Ray cluster is found at head:1: start one with ray start --head --port 1, and"),
        (
            RuntimeError("Version mismatch:\n  Ray: 2.1\n  Python: 3.9"),
            "cannot be joined: Version mismatch: Ray: 2.1 Py",
        ),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_told_in_one_line(refusal, line, ray, connect):
    ray.refusal = refusal
    with pytest.raises(UserError, match=line):
        connect()


def test_a_gpu_is_for_one_job(ray, connect):
    ray.resources = {"CPU": 16.0, "GPU": 3.0}
    heard = Heard()
    assert connect(heard).at_once == 3
    assert heard.lines == ["on Ray's cluster at head:1: 2 nodes, 16 CPUs, 3 GPUs"]
    assert ray.taken == {"max_retries": 0, "num_gpus": 1}


def test_a_cluster_without_gpus_is_asked_for_none(ray, connect):
    with pytest.raises(UserError, match="has no GPU: give --accelerator cpu, or auto"):
        connect(accelerator="cuda")


def test_a_mistake_names_the_host_and_a_fault_comes_with_its_traceback(ray, connect, monkeypatch):
    def wrong(job, *where):
        raise job["error"]

    monkeypatch.setattr(answers, "run_job", wrong)
    driver = connect()
    with pytest.raises(UserError, match=r"no such data \(on the host 10.0.0.7\)"):
        list(driver.results({"a": {"error": UserError("no such data")}}))
    with pytest.raises(UserError, match=r"test_ray_engine.py, line \d+, in wrong: LookupError: mine \(on the host"):
        list(driver.results({"a": {"error": LookupError("mine")}}))
    monkeypatch.setattr(answers, "users_mistake", lambda error: None)
    with pytest.raises(answers.FailedJobError, match=r"in wrong\n(.|\n)*LookupError: ours"):
        list(driver.results({"a": {"error": LookupError("ours")}}))


def test_a_host_with_another_or_no_buttress_is_refused(ray, monkeypatch):
    task, environment = make_task()
    mine = environment()
    assert set(mine) == {"Python", "torch", "buttress"}
    line = task(mine | {"torch": "1.0"}, {}, None, "auto", ".")
    assert line == f"the host 10.0.0.7 has torch {mine['torch']}, this one 1.0: install the same on both"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert f"10.0.0.7 has no buttress for {sys.executable}: install it" in task(mine, {}, None, "auto", ".")


def test_what_is_installed_differs_with_one_line_of_buttress(tmp_path, monkeypatch):
    environment = make_task()[1]
    folder = tmp_path / "buttress"
    (folder / "part").mkdir(parents=True)
    for name in ("__init__.py", "part/code.py"):
        (folder / name).write_text("x = 1\n")
    spec = importlib.util.spec_from_file_location("buttress", folder / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    before = environment()
    assert environment() == before
    (folder / "part" / "code.py").write_text("x = 2\n")
    assert environment()["buttress"] != before["buttress"]


def refused(address="auto", workers=None, machine=Machine()):
    with pytest.raises(UserError) as error, ray_engine(address, None, workers, machine, Reporter()):
        pass
    return str(error.value)


def test_what_cannot_be_is_refused_before_a_process_is_begun(ray, monkeypatch):
    for address in ("head", "head:many", ":6379", "head:70000"):
        assert refused(address) == f"address must be HOST:PORT of a Ray cluster's head, or auto; got {address!r}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        assert refused(address).startswith(f"no Ray cluster answers at {address} (Connection refused): start one with")
    assert "workers must be a whole number of 1 or more" in refused(workers=0)
    assert "--devices has no effect on a Ray cluster" in refused(machine=Machine(devices=2))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refused() == "--engine ray needs Ray: pip install 'buttress[ray]' on every host of the cluster"
    with pytest.raises(UserError, match="--address has no effect on --engine local: give --engine ray"):
        EngineChoice(address="head:1")
    with pytest.raises(UserError, match="engine must be one of local, ray; got 'spark'"):
        EngineChoice(engine="spark")


def test_a_head_that_is_killed_ends_the_command_in_one_line_and_the_next_run_does_what_is_missing(
    ray, tmp_path, monkeypatch, capsys
):
    """With the process of its own that talks to Ray, which ends as Ray ends it."""
    experiment = {key: RECIPE["claim"]["experiment"][key] for key in ("setups", "eps", "attacks", "rows")}
    experiment = json.loads(json.dumps(experiment).replace('"$noise"', "0.2"))
    experiment["rows"] = experiment["rows"][1:]
    experiment["setups"]["A"]["training"]["epochs"] = 1
    claim = RECIPE["claim"] | {
        "experiment": experiment,
        "checks": [{"row": "AT", "at": 0.2, "above": 1}],
        "published": {},
    }
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(RECIPE | {"claim": claim}))

    def command(name, *words):
        out = tmp_path / name
        return main(["reproduce", str(tmp_path / "few.yaml"), "--out", str(out), "--work", str(out / "work"), *words])

    def results(name):
        kept = {path.name: json.loads(path.read_text()) for path in (tmp_path / name / "work").glob("*.json")}
        for one in kept.values():
            del one["result"]["seconds"]
        return kept

    assert command("local", "--workers", "0", "--seeds", "2") == 0
    monkeypatch.setenv("FAKE_RAY_RESULTS", "1")
    assert command("far", "--engine", "ray", "--seeds", "2") == 128 + signal.SIGTERM
    told = capsys.readouterr()
    assert told.err.count("\n") == 1
    assert "the Ray cluster at auto has gone (was its head killed?); what was done is kept: start it again" in told.err
    assert len(results("far")) == 1
    assert command("far", "--workers", "0", "--seeds", "2", "--resume") == 0  # any engine goes on
    assert "the table: 2 jobs, 1 of them done before" in capsys.readouterr().out
    assert results("far") == results("local")
