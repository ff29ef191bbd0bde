"""Processes that are killed and asked to stop: nothing is lost, nothing is different afterwards."""

import json
import mmap
import os
import random
import signal
import struct
import sys
import time

import pytest
import torch
from tests import forked

from buttress import fit, models
from buttress.attacks.gradient.pgd import PGD
from buttress.cli import main
from buttress.data.sets.moons import moons
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.threat import Threat
from buttress.training import FAWA, SWA, Optimiser, Schedule, checkpoint, load
from buttress.training.monitors import CatastrophicOverfitting, EarlyStopping

OPTIONS = {
    "moving average": {"average": 0.9},
    "ends of epochs": {
        "average": SWA(start=0.25),
        "monitors": [CatastrophicOverfitting(every=3, then="rollback", fall=0.9, shrink=0.01)],
    },
    "fair": {"average": FAWA(start=0.0, threshold=0.0), "monitors": [EarlyStopping(patience=3)]},
}
TOTAL = 4 * 5


def killed_at_ten_moments(folder, options):
    """The steps done are told through shared memory, so that a kill can be aimed at any moment of the run."""
    data, steps, draw = moons(samples=60, val=20, test=4), mmap.mmap(-1, 8), random.Random(7)
    attack = PGD(threat=Threat(eps=0.1, box=None), steps=2)

    def train(out):
        how = {"epochs": 4, "batch_size": 12, "seed": 3, "optimiser": Optimiser(name="sgd", lr=0.05)}
        how |= {"schedule": Schedule(name="cyclic"), "validate_with": attack, "checkpoint_seconds": 0.0, "resume": True}

        def progress(done, figures):
            steps[:] = struct.pack("q", round(done * TOTAL))

        model = models.create("mlp", hidden=[8], seed=0)
        fit(model, data, AdversarialTraining(attack), out=out, progress=progress, **how, **OPTIONS[options])

    def attempt(out, until=None):
        """The exit status of a process that trains; with ``until`` it is killed a little after so many steps."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                train(out)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        if until is not None:
            while struct.unpack("q", steps[:])[0] < until:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return status
                time.sleep(0.0002)
            time.sleep(0.02 * draw.random())
            os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    found = [attempt(folder / "whole")]
    steps[:] = struct.pack("q", 0)
    found += [attempt(folder / "killed", until) for until in sorted(draw.sample(range(TOTAL - 1), 10))]
    found.append(attempt(folder / "killed"))
    (folder / "found.json").write_text(json.dumps(found))


def stopped_command(words, folder):
    """The command line's answer, written where the test can read it."""
    for number, name in ((1, "out"), (2, "error")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), number)
    sys.exit(main(words))


@pytest.mark.representatives(options=["ends of epochs"])
@pytest.mark.parametrize("options", ["moving average", "ends of epochs", "fair"])
def test_killed_at_ten_random_moments_the_run_ends_with_the_same_bits(options, tmp_path, same):
    """A checkpoint after every step, so that many of the kills strike while one is written."""
    forked.run(killed_at_ten_moments, tmp_path, options)
    whole, *killed, last = json.loads((tmp_path / "found.json").read_text())
    assert (whole, last) == (0, 0)
    assert killed == [signal.SIGKILL] * 10
    for file in ("last.safetensors", "model.safetensors", "history.json", "metrics.csv", "model.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    ends = [checkpoint.load(checkpoint.latest(tmp_path / name / "checkpoints")) for name in ("killed", "whole")]
    same(*ends)


def test_a_command_that_is_asked_to_stop_saves_and_says_so_and_goes_on(tmp_path, capsys):
    def words(out):
        options = "--data moons --model mlp --epochs 8 --batch-size 8 --seed 1 --optimiser.lr 0.01"
        return ["train", str(out), *options.split(), "--data-args", '{"samples": 400, "val": 40, "test": 10}']

    run = tmp_path / "run"
    process = forked.start(stopped_command, words(run), tmp_path)
    deadline = time.monotonic() + 60
    while not (run / "metrics.csv").exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.terminate()
    process.join(60)
    out, error = ((tmp_path / name).read_text() for name in ("out", "error"))
    assert process.exitcode == 128 + signal.SIGTERM, error
    assert "everything is saved, go on with --resume" in out
    assert error == ""
    stopped = checkpoint.load(checkpoint.latest(run / "checkpoints"))[2]["index"]
    assert 0 < stopped < 8 * 50
    assert main([*words(run), "--resume=true"]) == 0
    assert main(words(tmp_path / "whole")) == 0
    assert (run / "last.safetensors").read_bytes() == (tmp_path / "whole" / "last.safetensors").read_bytes()
    assert not load(run).training
    assert main(words(run)) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_asked_to_stop_while_it_learns_a_set_does_so_at_once_and_goes_on(
    number, tmp_path, capsys, monkeypatch
):
    def words(out):
        options = "--data moons --model mlp --epochs 2 --seed 1 --defence adv-kip --defence.points 6"
        options += " --defence.steps 8 --defence.attack.steps 1"
        return ["train", str(out), *options.split(), "--data-args", '{"samples": 60, "val": 20, "test": 10}']

    made = []

    def stops(self, *args, own=torch.optim.Adam.step, **options):
        made.append(self)
        if len(made) == 3:
            os.kill(os.getpid(), number)
        return own(self, *args, **options)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", stops)
        assert main(words(run)) == 128 + number
    assert len(made) == 3
    told = capsys.readouterr()
    assert "stopped while preparing, which is then begun anew; everything is saved, go on with --resume" in told.out
    assert told.err == ""
    assert main([*words(run), "--resume"]) == 0
    assert main(words(tmp_path / "whole")) == 0
    for file in ("last.safetensors", "dataset.safetensors", "metrics.csv"):
        assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert os.environ["OMP_NUM_THREADS"] == "1"
