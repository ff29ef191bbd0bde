"""Progress where somebody looks, signals, pipes: the installed command in a process of its own."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from buttress.cli.terminal import Terminal

COMMAND = [sys.executable, "-m", "buttress"]
MOONS = ["--data", "moons", "--data-args.samples", "400", "--model", "mlp", "--seed", "1"]
TRAIN = [*MOONS, "--defence", "at", "--defence.attack", "pgd"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "120"}


def test_a_terminal_shows_accuracies_and_time_left(tmp_path):
    leader, follower = pty.openpty()
    words = [*COMMAND, "train", "run", *TRAIN, "--defence.attack.steps", "3", "--epochs", "3"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=follower, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        os.close(follower)
        shown = b""
        while True:
            ready, _, _ = select.select([leader], [], [], 60)
            try:
                part = os.read(leader, 65536) if ready else b""
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
        out = process.stdout.read().decode()
    os.close(leader)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"training by at .* \d+% \d:\d\d:\d\d clean \d+\.\d%  robust \d+\.\d%", text)
    assert out.splitlines()[1].startswith("mlp on moons (400 inputs)")
    assert "best epoch" in out
    assert "%|" not in out


def test_nobody_is_shown_a_bar_in_a_pipe(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done(["train", "run", *TRAIN, "--epochs", "1"])  # fails when anything is on standard error


@pytest.mark.full  # as tests/training/test_kill.py, once more under a terminal
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_run_and_resuming_gives_the_same_weights(tmp_path, number, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["train", "run", *TRAIN, "--epochs", "15"]
    with subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "run").glob("checkpoints/step-*")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        out, err = (part.decode() for part in process.communicate(timeout=60))
    assert process.returncode == 128 + number
    assert err == ""
    assert re.search(r"\nstopped after step \d+; everything is saved, go on with --resume\n", out)
    assert not (tmp_path / "run" / "model.safetensors").exists()
    if number == signal.SIGINT:
        return
    for more in (["train", "run", *words[2:], "--resume"], ["train", "whole", *words[2:]]):
        assert run(more).status == 0
    one, other = (load_file(tmp_path / name / "last.safetensors") for name in ("run", "whole"))
    assert all(other[name].equal(value) for name, value in one.items())


def test_a_reader_who_has_seen_enough_is_no_fault(tmp_path):
    with subprocess.Popen(
        [*COMMAND, "list", "attacks"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert process.wait() == 128 + signal.SIGPIPE
    assert err == b""


def test_the_bar_keeps_to_its_pace_and_ends_with_the_next_sentence(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    terminal = Terminal()
    progress = terminal.watch("work")
    progress(0.5, {"clean": 0.25, "robust": 0.125, "loss": 3.0})
    progress(0.6, {"clean": 0.5})  # too soon to be shown
    assert terminal._bar.tasks[0].completed == 0.5
    assert terminal._bar.tasks[0].fields["figures"] == "clean 25.0%  robust 12.5%"
    progress(1.0, {"PGD-20": 1.0})
    assert terminal._bar.tasks[0].fields["figures"] == "PGD-20"
    terminal.line("done")
    assert terminal._bar is None
    progress(1.0, {})  # late, and harmless
    assert capsys.readouterr().out == "done\n"
