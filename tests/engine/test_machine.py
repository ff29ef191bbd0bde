"""Where a command computes: what is chosen, what is told, and what is refused in one line."""

import sys

import pytest
import torch

from buttress.claims.worker_pool import open_work
from buttress.cli import main
from buttress.engine import machine as file
from buttress.engine.fabric import start_fabric
from buttress.engine.machine import Machine, accelerators, device_name, told
from buttress.errors import UserError
from buttress.jobs.settings import Reporter


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


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/bin/buttress", "train", "--out", "a b"], "-m buttress train --out 'a b'"),
        (["mine.py"], "your_script.py"),
    ],
)
def test_several_devices_without_processes_are_told_the_command(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    for name in file._STARTED:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError) as refusal:
        start_fabric(Machine(accelerator="cpu", devices=2))
    assert str(refusal.value) == f"2 devices take a process each: torchrun --standalone --nproc-per-node 2 {command}"


def test_an_audit_takes_one_device(monkeypatch):
    line = "^audit computes on one device, in one process; got "
    with pytest.raises(UserError, match=f"{line}devices 3: leave that out"):
        Machine(devices=3).alone("audit")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=f"{line}2 processes of torchrun"):
        Machine().alone("audit")


def test_workers_of_a_reproduction_are_as_many_as_devices(tmp_path):
    line = "3 devices need as many workers; got 2: give --workers 3"
    with pytest.raises(UserError, match=line), open_work(tmp_path, None, 2, Reporter(), Machine(devices=3)):
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
