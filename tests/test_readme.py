"""What the README tells a newcomer to type is understood."""

import re
import shlex
from pathlib import Path

import pytest

from buttress.cli import main
from buttress.cli.commands import JOBS, job
from buttress.config.parsing import parse

README = (Path(__file__).parent.parent / "README.md").read_text()
COMMANDS = [
    line.partition("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("buttress ")
]


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page}.md" for page in ("architecture", "attacks", "data"))]


def test_there_are_commands_to_try():
    assert {line.split()[1] for line in COMMANDS} == {*JOBS, "list"}


@pytest.mark.parametrize("line", COMMANDS)
def test_each_command_of_the_readme_is_understood(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(line)[1:]
    if name == "list":
        assert main([name, *words]) == 0
        return
    assert parse(job(name), words) is not None


def test_the_python_example_is_fifteen_lines_and_compiles():
    (code,) = re.findall(r"## From Python\n\n```python\n(.*?)```", README, re.S)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 15
    compile(code, "README.md", "exec")


def test_the_method_of_the_readme_attacks(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n# mine.py\n(.*?)```", README, re.S)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    import torch
    from torch import nn

    from buttress.registry import attack

    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(5, 1, 2, 2)
    nudge = attack.get("mine.py:Nudge")().within()
    result = nudge(model, x, torch.zeros(5, dtype=torch.int64))
    assert nudge.threat.contains(result.x_adv, x).all()
    assert result.distance.max() > nudge.threat.eps / 3


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    file = Path(__file__).parent.parent / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", file.read_text())
    assert [link for link in links if not (file.parent / link).exists()] == []
