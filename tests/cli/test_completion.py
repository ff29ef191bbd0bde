"""Scripts by which a shell completes commands, options and names."""

import shutil
import subprocess

import pytest

from buttress import registry
from buttress.cli.commands import JOBS


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_script_names_every_command(shell, done):
    script = done(f"--print-completion {shell}")
    assert all(name in script for name in [*JOBS, "list"])
    assert "--threat.eps" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("buttress ha", ["harden"]),
        ("buttress train --defence tr", ["trades"]),
        ("buttress audit --attacks nonsense-at-all", []),
        ("buttress list att", ["attacks"]),
        ("buttress train --threat.no", ["--threat.norm"]),
        ("buttress train --threat.norm lin", ["linf"]),
        ("buttress train --model lt", [name for name in registry.model.names() if name.startswith("lt")]),
    ],
)
def test_bash_offers_what_fits(words, offered, done, tmp_path):
    (tmp_path / "script").write_text(done("--print-completion bash"))
    typed = words.split()
    code = (
        f"source {tmp_path}/script; COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; "
        f"_shtab_buttress buttress {typed[-1]} {typed[-2]}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    reply = subprocess.run(["bash", "-c", code], capture_output=True, text=True)
    assert reply.stdout.split() == offered


def test_what_is_missing_or_unknown_is_named(run, monkeypatch):
    assert run("--print-completion fish").err.startswith("buttress: --print-completion takes one shell; ")
    monkeypatch.setattr("buttress.cli.completion.find_spec", lambda name: None)
    result = run("--print-completion bash")
    assert (result.status, result.out) == (2, "")
    assert result.err == "buttress: shell completion needs shtab: pip install 'buttress[completion]'\n"
