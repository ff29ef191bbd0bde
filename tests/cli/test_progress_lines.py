"""Plain lines of progress: how often, and how much time they say is left."""

import itertools

import pytest

from buttress.cli import progress_lines
from buttress.cli.progress_lines import ProgressLines
from buttress.cli.terminal import Terminal


@pytest.fixture(autouse=True)
def usual_pauses(no_progress, monkeypatch):
    monkeypatch.setattr(progress_lines, "_FIRST", 30.0)


def told(times, share=lambda second: second / 3600, figures=None):
    """The lines, with their seconds, of work that reports at these times."""
    now, lines = 0.0, []
    progress = ProgressLines("work", lambda line: lines.append((now, line)), lambda: now)
    for time in times:
        now = time
        progress(share(time), figures or {})
    return lines


def test_the_time_left_is_what_the_pace_amounts_to():
    [(_, line)] = told([0, 36, 40], figures={"clean": 0.5, "robust": 0.25, "loss": 3.0})
    assert line == "work: 1%, about 59 min left, clean 50.0%  robust 25.0%"


def test_resumed_work_counts_its_own_steps_alone():
    lines = told(range(0, 101, 20), share=lambda second: 0.9 + second / 1000)  # 0.1 in 100 seconds
    assert lines[0] == (40, "work: 94%, about 60 s left")


def test_every_piece_of_the_work_has_a_pace_of_its_own():
    lines = told([0, 40, 80, 180], share=dict(zip([0, 40, 80, 180], [0.5, 1.0, 0.5, 0.75], strict=True)).get)
    assert [line for _, line in lines] == [
        "work: 100%",
        "work: 50%, about 40 s left",  # begun when the piece before had ended
        "work: 75%, about 47 s left",
    ]


def test_lines_are_rare_yet_never_far_apart():
    lines = told([second / 4 for second in range(4 * 20_000)], share=lambda second: second / 20_000)
    times = [0.0, *(time for time, _ in lines)]
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert min(pauses) >= 30
    assert max(pauses) < 301
    assert len(lines) < 100


def test_short_work_is_told_by_its_result_alone():
    assert told([0, 3, 29.9]) == []


def test_without_a_terminal_lines_go_to_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(progress_lines, "_FIRST", 0.0)
    monkeypatch.setattr(progress_lines, "_SHARE", 0.0)
    Terminal().watch("audit")(0.5, {"PGD-20": 0.5})
    assert Terminal(quiet=True).watch("audit") is None
    assert capsys.readouterr() == ("", "audit: 50%, PGD-20\n")
