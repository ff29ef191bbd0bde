"""Whatever a user gives: one line, status 2, nothing of the user's changed, no waiting. All cases with --full."""

import json
import os

import pytest
from tests import forked
from tests.cli.conftest import FILE
from tests.cli.wrong_inputs.case import Answer, judge
from tests.cli.wrong_inputs.everything import answer_to, named

CASES = named()
SECONDS = 30  # a command of these takes one or two; the machine may be busy


def first_of_each_kind():
    seen, found = set(), []
    for name, case in CASES.items():
        if case.kind not in seen:
            seen.add(case.kind)
            found.append(name)
    return found


@pytest.fixture(scope="session")
def base(runs):
    """What every case finds in its working directory."""
    (runs / "mine.py").write_text(FILE)
    return runs


@pytest.mark.representatives(name=first_of_each_kind())
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_input_is_told_in_one_line(name, base, tmp_path):
    tmp_path.chmod(0o777)
    process = forked.start(answer_to, name, base, tmp_path)
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        pytest.fail(f"no end after {SECONDS} seconds")
    told = (tmp_path / "err").read_text(errors="replace") if (tmp_path / "err").exists() else ""
    assert process.exitcode == 0, f"the process ended with {process.exitcode}: {told}"
    answer = Answer(**json.loads((tmp_path / "answer.json").read_text()))
    assert not judge(CASES[name], answer), answer.err
    if answer.changed:
        os.sync()
