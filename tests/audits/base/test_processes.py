"""Killed at any moment and resumed, and shared by two processes: an evaluation ends with the same result."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.evaluation import evaluate, processes
from buttress.audits.base.evaluation.groups import files_in, read_group
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

# Imports once and forks for every attempt; each attempt is killed so long after so many groups have been begun. Groups
# that were finished by then are noted: none of them may be begun again.
KILLED = """
import json, os, pathlib, random, signal, sys, time
import torch
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.evaluation import evaluate
from buttress.threat import Threat

torch.set_num_threads(1)
folder, draw = pathlib.Path(sys.argv[1]), random.Random(5)

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(40, 30), torch.nn.ReLU(), torch.nn.Linear(30, 3))

def batches():
    for k in range(15):
        random = torch.Generator().manual_seed(k)
        yield torch.rand(8, 40, generator=random), torch.randint(3, (8,), generator=random)

class Noted(PGD):
    def perturb(self, oracle, x, y, random):
        with open(folder / "begun", "a") as file:
            file.write(f"{int(random.ids[0]) // 6}\\n")
        return super().perturb(oracle, x, y, random)

def attempt(out, until=None):
    pid = os.fork()
    if pid == 0:
        try:
            evaluate(net(), batches(), Noted(threat=Threat(eps=0.05), steps=3), out=out, resume=True, group=6)
        finally:
            os._exit(0)
    if until is not None:
        while begun() < until and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0.0005)
        time.sleep(0.004 * draw.random())
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]

def begun():
    file = folder / "begun"
    return len(file.read_text().splitlines()) if file.exists() else 0

status, marks = [], []
for until in (0, 3, 7, 12, 17):
    status.append(attempt(folder / "killed", until))
    done = [int(path.stem[6:]) for path in (folder / "killed").glob("group-*.safetensors")]
    marks.append([begun(), done])
status.append(attempt(folder / "killed"))
order = [int(line) for line in (folder / "begun").read_text().splitlines()]
status.append(attempt(folder / "whole"))
print(json.dumps([status, marks, order]))
"""


def test_killed_at_five_moments_it_ends_the_same_and_attacks_no_finished_group_again(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=120, check=True
    )
    status, marks, order = json.loads(done.stdout)
    assert status == [9, 9, 9, 9, 9, 0, 0], done.stderr
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


SHARED = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import torch
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.evaluation import processes
from buttress.audits.base.evaluation import evaluate
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.jobs import attack

torch.set_num_threads(1)
folder = Path(sys.argv[1])
processes.start("cpu", 2)
rank, count = processes.rank_and_count()
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))
random = torch.Generator().manual_seed(1)
x, y = torch.rand(203, 12, generator=random), torch.randint(3, (203,), generator=random)
how = {"group": 17, "batch_size": 9}
found = [
    evaluate(model, Split(x, y, torch.arange(203)), PGD(threat=Threat(eps=0.1), steps=4, restarts=2), **how),
    evaluate(model, [(x[:100], y[:100]), (x[100:], y[100:])], PGD(threat=Threat(eps=0.1), steps=4, restarts=2),
             out=folder / "out", precision="auto", **how),
]
told = []
for change in ({"resume": False}, {"resume": True, "seed": 9}):
    try:
        evaluate(model, [(x, y)], PGD(), out=folder / "out", **how, **change)
    except UserError as error:
        told.append(str(error))
if rank == 1:
    torch.nn.init.zeros_(model[0].weight)
try:
    evaluate(model, [(x, y)], PGD(), **how)
except UserError as error:
    told.append(str(error))
attack(sys.argv[2], out=folder / "examples", inputs=50, group=16, devices=2)
(folder / f"{rank}.json").write_text(json.dumps([[asdict(one) for one in found], told, [rank, count]], default=str))
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on moons, for the command."""
    from buttress import fit, models
    from buttress.data.sets.moons import moons

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
    (folder / "script.py").write_text(SHARED)
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(folder / "script.py")]
    done = subprocess.run(
        [sys.executable, *words, str(folder), str(run)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("size", [1, 17, 256])
def test_two_processes_find_what_one_does(shared, size):
    """Counts and examples, for any batch size of the one process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.ReLU(), torch.nn.Linear(20, 3))
    random = torch.Generator().manual_seed(1)
    x, y = torch.rand(203, 12, generator=random), torch.randint(3, (203,), generator=random)
    parts = []
    attack = PGD(threat=Threat(eps=0.1), steps=4, restarts=2)
    alone = evaluate(model, Split(x, y, torch.arange(203)), attack, group=64, batch_size=size, each=parts.append)
    (first, second), told, place = json.loads((shared / "0.json").read_text())
    (other, _), others, place_of_other = json.loads((shared / "1.json").read_text())
    assert (place, place_of_other) == ([0, 2], [1, 2])
    assert {**other, "seconds": 0} == {**first, "seconds": 0}
    for name in ("inputs", "success", "wrong", "forwards", "backwards"):
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
    from buttress.jobs import attack

    attack(str(run), out=tmp_path / "alone", inputs=50)
    one, two = (load_file(folder / "examples.safetensors") for folder in (tmp_path / "alone", shared / "examples"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one.keys() - {"x_adv", "distance"})
    torch.testing.assert_close(one["x_adv"], two["x_adv"])
    assert sorted(path.name for path in (shared / "examples").iterdir()) == ["examples.json", "examples.safetensors"]


def test_alone_there_is_nobody_to_share_with():
    assert processes.rank_and_count() == (0, 1)
    assert processes.on_first_process(lambda: 3) == 3
    assert processes.gather("a") == ["a"]
    assert processes.start() == torch.device("cpu")


def test_processes_that_cannot_be_had_are_told():
    with pytest.raises(UserError, match="accelerator 'warp', devices 1 cannot be had"):
        processes.start("warp")
