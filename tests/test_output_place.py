"""Where a job writes: tried before the work, held during it, and given back; by real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from buttress.cli.commands import JOBS, job
from buttress.errors import UserError
from buttress.output_place import CLAIM, claimed, claimed_file, claims, entries, taken

HOLD = """
import sys, time
from pathlib import Path
from buttress import output_place
with getattr(output_place, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


class Holder:
    """Another process that holds a place until it is stopped."""

    def __init__(self, hold, place):
        words = [sys.executable, "-c", HOLD, hold, str(place)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "held\n"

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def holding():
    holders = []

    def hold(*words):
        holders.append(Holder(*words))
        return holders[-1]

    yield hold
    for holder in holders:
        if holder.process.poll() is None:
            holder.stop()


def test_a_held_folder_is_refused_with_who_holds_it_and_free_once_that_is_killed(holding, tmp_path):
    out = tmp_path / "new" / "out"
    other = holding("claimed", out)
    told = rf"another job writes to {out} \(process {other.process.pid} on .*, since 2.*\): wait for it"
    with pytest.raises(UserError, match=told), claimed(out):
        raise AssertionError
    assert entries(out) == set()
    other.stop(signal.SIGKILL)
    assert (out / CLAIM).exists()
    assert not taken(out)
    with claimed(out):
        assert f"process {os.getpid()} " in (out / CLAIM).read_text()
    assert not (out / CLAIM).exists()


def test_a_file_is_held_by_itself(holding, tmp_path):
    holding("claimed_file", tmp_path / "one.onnx")
    with claimed_file(tmp_path / "two.onnx"):
        pass
    with pytest.raises(UserError, match=r"another job writes to .*one.onnx"), claimed_file(tmp_path / "one.onnx"):
        pass


def test_a_folder_that_nothing_came_of_is_gone_and_one_that_was_there_stays(tmp_path):
    with claimed(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with claimed(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]
    with claimed(tmp_path / "a"):
        pass
    assert (tmp_path / "a" / "kept").exists()


def test_a_job_may_run_another_one_in_its_own_place(tmp_path):
    with claimed(tmp_path), claimed(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/inside", "file/deep/inside"])
def test_a_place_that_cannot_be_written_is_told(place, tmp_path):
    (tmp_path / "file").write_text("mine")
    told = f"nothing can be written to {tmp_path / place}: .*; choose another"
    with pytest.raises(UserError, match=told), claimed(tmp_path / place):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_of_many_that_want_a_place_at_once_one_gets_it(tmp_path):
    """Also while the one before lets go of it: the mark that it removes is another file than the next one's."""
    code = """
import sys, time
from pathlib import Path
from buttress.errors import UserError
from buttress.output_place import claimed
place, count = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(100):
    try:
        with claimed(place):
            with open(count, "x"): pass
            count.unlink()
    except UserError:
        pass
"""
    words = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "inside")]
    runs = [subprocess.Popen(words) for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]


def test_dry_runs_and_other_processes_of_a_job_hold_nothing(tmp_path, monkeypatch):
    @claims("out")
    def work(out=None, dry_run=False):
        return out is not None and Path(out).exists()

    assert work(tmp_path / "out")
    assert not work(out=tmp_path / "out", dry_run=True)
    assert not work()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1" if "RANK" in name else "2")
    assert not work(tmp_path / "out")


# What each command takes besides, none of which is looked at before its place.
WORDS = {
    "train": ["{out}"],
    "audit": ["nowhere", "--out", "{out}"],
    "harden": ["--out", "{out}"],
    "attack": ["nowhere", "--out", "{out}"],
    "compare": ["one", "two", "--out", "{out}"],
    "export": ["nowhere", "--onnx", "{out}/net.onnx"],
    "reproduce": ["lsa-table2-moon", "--scale", "small", "--work", "{out}", "--out", "{out}/results"],
}


@pytest.mark.parametrize("command", JOBS)
def test_every_command_is_refused_before_it_works_where_another_process_writes(command, holding, tmp_path, capsys):
    from buttress.cli import main

    out = tmp_path / "out"
    if command == "export":
        holding("claimed_file", out / "net.onnx")
    else:
        holding("claimed", out)
    assert main([command, *(word.replace("{out}", str(out)) for word in WORDS[command])]) == 2
    assert capsys.readouterr().err.startswith(f"buttress: another job writes to {out}")


@pytest.mark.parametrize("command", JOBS)
def test_every_command_tries_its_place_before_it_works(command, tmp_path, capsys):
    from buttress.cli import main

    (tmp_path / "file").write_text("mine")
    out = tmp_path / "file" / "out"
    assert main([command, *(word.replace("{out}", str(out)) for word in WORDS[command])]) == 2
    assert f"nothing can be written to {out}" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_jobs_keep_their_signatures():
    assert all(job(name).__wrapped__ for name in JOBS if name != "reproduce")
