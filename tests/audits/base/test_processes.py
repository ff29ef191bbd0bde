"""Killed at any moment and resumed, and shared by two processes: an evaluation ends with the same result."""

import json
import os
import random
import signal
import time
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file
from tests import forked

from buttress import fit, jobs, models
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.evaluation import evaluate, processes
from buttress.audits.base.evaluation.groups import files_in, read_group
from buttress.data.dataset import Split
from buttress.data.sets.moons import moons
from buttress.engine.machine import Machine
from buttress.errors import UserError
from buttress.threat import Threat


def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.ReLU(), torch.nn.Linear(30, 3))


def batches():
    for k in range(15):
        random = torch.Generator().manual_seed(k)
        yield torch.rand(8, 40, generator=random), torch.randint(3, (8,), generator=random)


def killed_at_five_moments(folder):
    """Each attempt is killed so long after so many groups have been begun.

    Groups that were finished by then are noted: none of them may be begun again.
    """
    draw = random.Random(5)

    class Noted(PGD):
        def perturb(self, oracle, x, y, random):
            with open(folder / "begun", "a") as file:
                file.write(f"{int(random.ids[0]) // 6}\n")
            return super().perturb(oracle, x, y, random)

    def begun():
        file = folder / "begun"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def attempt(out, until=None):
        pid = os.fork()
        if pid == 0:
            try:
                evaluate(net(), batches(), Noted(threat=Threat(eps=0.05), steps=3), out=out, resume=True, group=6)
            finally:
                os._exit(0)
        if until is not None:
            while len(begun()) < until and os.waitpid(pid, os.WNOHANG) == (0, 0):
                time.sleep(0.0005)
            time.sleep(0.004 * draw.random())
            os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    status, marks = [], []
    for until in (0, 3, 7, 12, 17):
        status.append(attempt(folder / "killed", until))
        done = [int(path.stem[6:]) for path in (folder / "killed").glob("group-*.safetensors")]
        marks.append([len(begun()), done])
    status.append(attempt(folder / "killed"))
    order = begun()
    status.append(attempt(folder / "whole"))
    (folder / "noted.json").write_text(json.dumps([status, marks, order]))


def test_killed_at_five_moments_it_ends_the_same_and_attacks_no_finished_group_again(tmp_path):
    forked.run(killed_at_five_moments, tmp_path)
    status, marks, order = json.loads((tmp_path / "noted.json").read_text())
    assert status == [9, 9, 9, 9, 9, 0, 0]
    assert any(finished for _, finished in marks)
    for begun, finished in marks:
        assert not set(order[begun:]) & set(finished)
    assert set(order) == set(range(20))
    killed, whole = (files_in(tmp_path / name) for name in ("killed", "whole"))
    assert [path.name for path in killed] == [path.name for path in whole]
    assert len(whole) == 20
    for one, other in zip(killed, whole, strict=True):
        first, second = load_file(one), load_file(other)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert read_group(one).inputs == read_group(other).inputs
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [*(p.name for p in killed), "manifest.json"]


def shared_inputs():
    """A network, inputs and labels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))
    random = torch.Generator().manual_seed(1)
    return model, torch.rand(203, 12, generator=random), torch.randint(3, (203,), generator=random)


def evaluate_together(folder, run):
    """In each of two processes: what they found, what they were told, and which they are."""
    processes.start(Machine(accelerator="cpu", devices=2))
    rank, count = processes.rank_and_count()
    model, x, y = shared_inputs()
    attack, how = PGD(threat=Threat(eps=0.1), steps=4, restarts=2), {"group": 17, "batch_size": 9}
    halves = [(x[:100], y[:100]), (x[100:], y[100:])]
    found = [
        evaluate(model, Split(x, y, torch.arange(203)), attack, **how),
        evaluate(model, halves, attack, out=folder / "out", precision="auto", **how),
    ]
    told = []

    def refused(**options):
        with pytest.raises(UserError) as refusal:
            evaluate(model, [(x, y)], PGD(), **how, **options)
        told.append(str(refusal.value))

    refused(out=folder / "out", resume=False)
    refused(out=folder / "out", resume=True, seed=9)
    if rank == 1:
        torch.nn.init.zeros_(model[0].weight)
    refused()
    jobs.attack(str(run), out=folder / "examples", inputs=50, group=16, machine=Machine(devices=2))
    written = [[asdict(one) for one in found], told, [rank, count]]
    (folder / f"{rank}.json").write_text(json.dumps(written, default=str))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on moons, for the command."""
    folder = tmp_path_factory.mktemp("run") / "moons"
    source = {"data": "moons", "data_dir": None, "data_args": {"samples": 100, "val": 20, "test": 60}, "seed": 0}
    fit(
        models.create("mlp", hidden=[8], seed=0),
        moons(samples=100, val=20, test=60),
        epochs=1,
        out=folder,
        facts={"source": source},
    )
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory, run):
    """Where two processes have left what they found."""
    folder = tmp_path_factory.mktemp("shared")
    forked.run_twice(evaluate_together, folder, run)
    return folder


@pytest.mark.parametrize("size", [1, 17, 256])
def test_two_processes_find_what_one_does(shared, size):
    """Counts and examples, for any batch size of the one process."""
    model, x, y = shared_inputs()
    parts = []
    attack = PGD(threat=Threat(eps=0.1), steps=4, restarts=2)
    alone = evaluate(model, Split(x, y, torch.arange(203)), attack, group=64, batch_size=size, each=parts.append)
    (first, second), told, place = json.loads((shared / "0.json").read_text())
    (other, _), others, place_of_other = json.loads((shared / "1.json").read_text())
    assert (place, place_of_other) == ([0, 2], [1, 2])
    assert {**other, "seconds": 0} == {**first, "seconds": 0}
    for name in ("inputs", "successes", "wrong", "forwards", "backwards"):
        assert first[name] == getattr(alone, name)
    assert 0 < alone.wrong < alone.successes < 203
    assert (first["groups"], second["groups"]) == (12, 12)
    assert abs(second["successes"] - alone.successes) <= 1  # whichever precision was the fastest
    kept = [read_group(path).outcome for path in files_in(shared / "out")]
    assert len({outcome.precision for outcome in kept}) == 1
    assert told == others


def test_both_processes_are_told_why_the_first_refuses(shared):
    _, told, _ = json.loads((shared / "1.json").read_text())
    assert "holds an evaluation already" in told[0]
    assert "with " in told[1]
    assert "the processes hold different networks" in told[2]


def test_the_command_of_two_processes_writes_what_that_of_one_does(shared, run, tmp_path):
    jobs.attack(str(run), out=tmp_path / "alone", inputs=50)
    one, two = (load_file(folder / "examples.safetensors") for folder in (tmp_path / "alone", shared / "examples"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one.keys() - {"x_adv", "distance"})
    torch.testing.assert_close(one["x_adv"], two["x_adv"])
    assert sorted(path.name for path in (shared / "examples").iterdir()) == ["examples.json", "examples.safetensors"]


def test_alone_there_is_nobody_to_share_with():
    assert processes.rank_and_count() == (0, 1)
    assert processes.on_first_process(lambda: 3) == 3
    assert processes.gather("a") == ["a"]
    assert processes.start(Machine(accelerator="cpu")) == torch.device("cpu")
