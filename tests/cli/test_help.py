"""Help is whole, readable, and read off the signatures."""

import re
import shlex

import pytest

from buttress import registry
from buttress.attacks import Attack
from buttress.cli.commands import JOBS, job
from buttress.cli.examples import EXAMPLES
from buttress.cli.static.options import job_options
from buttress.config.parsing import parse


@pytest.mark.parametrize("name", JOBS)
def test_every_option_is_there_with_its_meaning(name, done):
    text = done(f"{name} --help")
    plain = " ".join(text.split())
    for option in job_options(name):
        head = option.name.upper() if option.positional else option.flag
        assert f"\n  {head}" in text, option
        assert option.text, option
        assert " ".join(option.text.rstrip(".").split()) in plain
    for internal in ("<class", "typing", "Union", "CONFIG", "NoneType", "class_path", "--say"):
        assert internal not in text, internal
    assert not re.search(r"--[\w.-]*_", text)
    assert all(len(line) <= 120 for line in text.splitlines())
    assert f"usage: buttress {name} " in text


@pytest.mark.parametrize("columns", [20, 80, 300])
def test_lines_fit_the_terminal(columns, done, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    longest = max(len(line) for line in done("audit --help").splitlines()[2:])
    assert longest <= max(60, min(columns, 120))


def test_usage_tells_positions_and_what_is_needed(done):
    assert done("audit -h").startswith("usage: buttress audit NETWORK --out PATH [options]\n")
    assert done("harden -h").startswith("usage: buttress harden [NETWORK] --out PATH [options]\n")
    assert done("compare -h").startswith("usage: buttress compare FOLDERS ... --out PATH [options]\n")
    assert done("train -h").startswith("usage: buttress train OUT [options]\n")


def test_names_defaults_and_choices_are_told(done):
    text = " ".join(done("audit --help").split())
    assert f"(one of {', '.join(registry.audit.names())})" in text
    attacks = [name for name in registry.attack.names() if issubclass(registry.attack.get(name), Attack)]
    assert f"(one of {', '.join(attacks)})" in text  # noises have no budget
    assert "--threat.norm linf|l2|l1" in text
    assert "(default 8/255)" in text
    assert "(default 1000)" in text
    assert "--model " not in text  # the network itself is given
    assert f"(one of {', '.join(registry.model.names())}" in " ".join(done("train --help").split())


def test_options_come_from_the_source():
    options = {option.name: option for option in job_options("train")}
    assert (options["out"].positional, options["out"].required) == (True, True)
    assert (options["threat.eps"].kind.value, options["threat.eps"].default) == ("X", "8/255")
    meaning = "What the network is trained against, for every attack and defence without a threat of its own"
    assert options["threat.eps"].group == meaning
    assert options["limit"].kind.value == "N"
    assert options["schedule.name"].default == "cosine"
    assert options["schedule.milestones"].kind.several
    assert options["data_dir"].flag == "--data-dir"
    assert "reporter" not in options


def test_the_help_of_one_member(done):
    text = done("train --defence.help at")
    assert "--defence.mode" in text


@pytest.mark.parametrize("name", JOBS)
def test_help_shows_lines_that_can_be_typed(name, done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = done(f"{name} --help").replace(" \\\n    ", " ")
    for line in EXAMPLES[name]:
        assert f"  {line}\n" in shown
        first, command, *words = shlex.split(line)
        assert (first, command) == ("buttress", name)
        parse(job(name), words)
