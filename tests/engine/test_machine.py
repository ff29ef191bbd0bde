"""Where a command computes: what is chosen, what is told, and what is refused in one line."""

import sys

import pytest
import torch

from buttress.claims.worker_pool import local_engine
from buttress.cli import main
from buttress.engine.fabric import start_fabric, start_processes
from buttress.engine.machine import Machine, accelerators, device_name, placed, told
from buttress.errors import UserError
from buttress.training import TrainingConfig


@pytest.fixture
def has(monkeypatch):
    """A machine with these accelerators."""

    def make(*there):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")

    return make


@pytest.mark.parametrize(
    ("there", "asked", "expected"),
    [
        ((), "auto", "cpu"),
        (("cuda",), "auto", "cuda:0"),
        (("mps",), "auto", "mps:0"),
        (("cuda", "mps"), "auto", "cuda:0"),
        (("cuda",), "cpu", "cpu"),
        (("mps",), "mps", "mps:0"),
    ],
)
def test_the_device_is_the_one_asked_for_and_else_the_best(has, there, asked, expected):
    has(*there)
    assert Machine(accelerator=asked).device == torch.device(expected)
    assert accelerators() == [*there, "cpu"]


def test_what_a_machine_lacks_is_refused_with_what_it_has(has):
    has("mps")
    line = r"^accelerator 'cuda' cannot be had: this torch finds mps and cpu on this machine; give mps or cpu, or auto$"
    with pytest.raises(UserError, match=line):
        _ = Machine(accelerator="cuda").device


def test_what_is_told_names_the_device(has):
    has("cuda")
    assert told(torch.device("cuda", 1)) == "on cuda: GPU 1"
    assert told(torch.device("cpu")) == f"on cpu, {torch.get_num_threads()} thread"
    assert told(torch.device("mps", 0)) == "on mps"
    assert device_name("cuda:1") == "GPU 1"
    assert device_name("cpu") == "CPU"


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"accelerator": "tpu"}, "accelerator must be one of auto, cpu, cuda, mps; got 'tpu'"),
        ({"devices": 0}, "devices must be a whole number of 1 or more; got 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, line):
    with pytest.raises(UserError, match=line):
        Machine(**settings)


TWO_HOSTS = "on each host, torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500"


@pytest.mark.parametrize(
    ("argv", "counts", "line"),
    [
        (
            ["/bin/buttress", "train", "--out", "a b"],
            {"devices": 2},
            "2 devices take a process each: torchrun --standalone --nproc-per-node 2 -m buttress train --out 'a b'",
        ),
        (
            ["mine.py"],
            {"devices": 4, "num_nodes": 2},
            f"8 devices take a process each: {TWO_HOSTS} --nproc-per-node 4 your_script.py",
        ),
        (
            ["mine.py"],
            {"num_nodes": 2},
            f"2 devices take a process each: {TWO_HOSTS} --nproc-per-node 1 your_script.py",
        ),
    ],
)
def test_several_devices_without_processes_are_told_the_command(monkeypatch, argv, counts, line):
    monkeypatch.setattr(sys, "argv", argv)
    for begin in (start_fabric, start_processes):
        with pytest.raises(UserError) as refusal:
            begin(Machine(accelerator="cpu", **counts))
        assert str(refusal.value) == line


@pytest.mark.parametrize("counts", [{"devices": 1}, {"devices": 3}, {"devices": 2, "num_nodes": 2}])
def test_other_counts_than_were_started_are_refused(monkeypatch, counts):
    torchrun = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    Machine(devices=2, num_nodes=1).check_processes()
    line = "must be [12], as torchrun has started the processes; got [123]: leave it out"
    with pytest.raises(UserError, match=line):
        start_processes(Machine(**counts))


def test_one_device_of_several_that_were_started_is_this_process_alone(monkeypatch):
    """As for a training in a script of a user's own that one process alone does, or each for itself."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1" if "RANK" in name else "2")
    fabric = start_fabric(Machine(accelerator="cpu", devices=1))
    assert (fabric.world_size, fabric.is_global_zero) == (1, True)


def test_each_process_has_a_device_of_its_own(has, monkeypatch):
    has("cuda")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1" if "RANK" in name else "2")
    assert Machine().device == torch.device("cuda:1")
    assert Machine(devices=1).device == torch.device("cuda:0")


def test_a_strategy_without_processes_is_refused():
    with pytest.raises(UserError, match="strategy ddp has no effect on one process: leave it out, or use torchrun"):
        start_processes(TrainingConfig(strategy="ddp"))


def test_workers_of_a_reproduction_are_as_many_as_devices():
    line = "3 devices need as many workers; got 2: give --workers 3"
    with pytest.raises(UserError, match=line), local_engine(None, 2, Machine(devices=3)):
        pass
    line = "workers run on one host; got num_nodes 2: leave --num-nodes out, or use --engine ray"
    with pytest.raises(UserError, match=line), local_engine(None, 2, Machine(num_nodes=2)):
        pass


COMMANDS = {
    "train": "train --data moons --model mlp --out new",
    "harden": "harden --data moons --model mlp --out new",
    "audit": "audit mlp --data moons --out new",
    "attack": "attack mlp --data moons --out new",
    "reproduce": "reproduce demo",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_that_computes_takes_an_accelerator(has, command, capsys, tmp_path, monkeypatch):
    has()
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--accelerator", "warp"]) == 2
    assert "--accelerator takes one of auto, cpu, cuda, mps; got 'warp'" in capsys.readouterr().err
    assert main([*command.split(), "--devices", "0"]) == 2
    assert "devices must be a whole number of 1 or more; got 0" in capsys.readouterr().err


@pytest.mark.parametrize("buffer", [False, True])
def test_a_float64_network_is_refused_where_there_is_no_float64(buffer):
    model = torch.nn.Linear(2, 2)
    if buffer:
        model.register_buffer("weight_mean", torch.zeros(2, dtype=torch.float64))
    else:
        model.double()
    with pytest.raises(
        UserError, match=r"mps has no float64, which the network's weight\w* is: give --accelerator cpu"
    ):
        placed(model, torch.device("mps"))
    assert placed(model, torch.device("cpu")) is model
