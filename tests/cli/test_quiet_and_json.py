"""Jobs for other programs: no lines at all, or findings as JSON."""

import json

import pytest

MOONS = "--data moons --data-args.samples 200 --data-args.test 60 --model mlp --epochs 1"


def test_quiet_jobs_write_nothing(here, runs, done):
    assert done(f"train run {MOONS} --quiet") == ""
    assert done(f"audit {runs}/moons --out a --audits robustness --attacks fgsm --inputs 20 --quiet") == ""
    assert done(f"attack --quiet {runs}/moons --out b --inputs 8") == ""
    assert done(f"compare {runs}/audit a --out c --quiet") == ""
    assert (here / "c" / "report.html").is_file()


def test_errors_are_written_all_the_same(here, run):
    result = run(f"train run {MOONS} --quiet --epochs 0")
    assert (result.status, result.out, result.err) == (
        2,
        "",
        "buttress: epochs must be a whole number of 1 or more; got 0\n",
    )


@pytest.mark.parametrize("quiet", ["", " --quiet"])
def test_findings_as_json_are_those_of_the_file(quiet, here, runs, run):
    for words in (
        f"audit {runs}/moons --out a --audits robustness --attacks fgsm --inputs 20",
        f"compare {runs}/audit a --out c",
    ):
        result = run(f"{words} --json{quiet}")
        assert result.status == 0
        folder = here / words.rpartition(" --out ")[2].split()[0]
        assert json.loads(result.out) == json.loads((folder / "findings.json").read_text())
        assert ("report: " in result.err) is (quiet == "")


def test_findings_below_a_gate_are_printed_too(here, runs, run):
    words = f"audit {runs}/moons --out a --audits robustness --attacks fgsm --inputs 20 --json --fail-under 100"
    result = run(words)
    assert result.status == 3
    assert json.loads(result.out)["networks"]
    assert result.err.endswith("is under the gate of 100%\n")


def test_a_dry_run_has_no_findings_to_print(here, runs, run):
    result = run(f"audit {runs}/moons --out a --json --dry-run --audits robustness --attacks fgsm")
    assert (result.status, result.out) == (0, "")
    assert "about " in result.err


def test_json_is_of_jobs_with_findings_only(here, run):
    assert run(f"train run {MOONS} --json").status == 2
