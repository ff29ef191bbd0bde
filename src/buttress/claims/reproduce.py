"""Reproduce a published claim."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from buttress.claims.announced_gains import run_gains
from buttress.claims.document import readable, write_document
from buttress.claims.dry_run import tell_earlier_cost, tell_first_jobs
from buttress.claims.engine import Engine
from buttress.claims.engine_choice import USUAL_WORKERS, EngineChoice
from buttress.claims.judge import judge_again, verdicts
from buttress.claims.layer_effects import run_layer_effects
from buttress.claims.pictures import refuse_foreign, write_pictures
from buttress.claims.profiles import run_profiles
from buttress.claims.recipe import Claim, find
from buttress.claims.result_files import read_result, to_text
from buttress.claims.table import Table
from buttress.claims.verified import described
from buttress.claims.work import Work
from buttress.engine.machine import Machine, told
from buttress.errors import UserError
from buttress.jobs.no_effect import refuse_given, refuse_without_effect
from buttress.jobs.settings import Reporter
from buttress.output_place import claimed, claimed_file, entries, taken
from buttress.safe_files import write_text
from buttress.training import versions
from buttress.validation import whole

_CLAIMS = Path("claims")
_RESULT = re.compile(r"[0-9a-f]{24}\.json")  # of one network, in the folder work


def reproduce(
    name: str,
    *,
    scale: str = "small",
    seeds: int = 5,
    data_dir: Path | None = None,
    workers: int | None = None,
    engine: EngineChoice = EngineChoice(),
    machine: Machine = Machine(),
    out: Path = _CLAIMS,
    work: Path | None = None,
    document: Path | None = None,
    resume: bool = False,
    judge: bool = False,
    dry_run: bool = False,
    reporter: Reporter = Reporter(),
) -> dict[str, Any] | None:
    """Run the experiment of a published claim, and say in numbers whether the claim holds.

    Args:
        name: a recipe with a claim (buttress list recipes), or the path of such a YAML file.
        scale: small (for two cores: minutes a claim, hours for all of them) or full (as published).
        seeds: networks trained for each row; differences are paired by seed.
        data_dir: folder with the original files of data sets.
        workers: networks trained at a time, in a process of one thread each, 2 by default; 0 trains in this process. On
            a cluster the most at a time, as many as it has CPUs (or GPUs) by default.
        engine: what runs the trainings; results are written here, wherever they ran.
        machine: on what; workers take turns on several devices.
        out: folder for NAME.json with the numbers and the verdict; an earlier result of the claim is replaced.
        work: folder for the results of single networks, so that an interrupted reproduction can go on.
        document: page that is written from all claims in the folder out; docs/claims.md for the folder claims, else
            claims.md in the folder out, by default.
        resume: continue with what is in the folder work.
        judge: measure nothing, but judge the table in NAME.json again, by the recipe's checks and texts as they are
            now; of the other options only out and document may be given then.
        dry_run: only print what would be run first, and about how long it takes by an earlier result in the folder out.
        reporter: receives messages and progress.

    Raises:
        UserError: for a recipe without a claim, for settings that its experiment refuses, and for a result that is of
            another experiment than the recipe has now.
        ProcessLostError: when a worker, or a cluster's head, was killed; what is done is kept.
    """
    recipe = find(name)
    if recipe.claim is None:
        raise UserError(f"the recipe {name!r} holds no claim: buttress list recipes names those that do")
    whole("seeds", seeds)
    claim, start = recipe.claim, time.perf_counter()
    document = document or (Path("docs/claims.md") if out == _CLAIMS else out / "claims.md")
    if not claim.checks:
        raise UserError("claim: checks: at least one is needed")
    if judge:
        unread = {"scale": scale, "seeds": seeds, "data_dir": data_dir, "workers": workers, "work": work}
        unread |= {"resume": resume, "dry_run": dry_run}
        measures_nothing = "with --judge, which measures nothing"
        refuse_given(reproduce, unread, measures_nothing)
        for group in (engine, machine):
            refuse_without_effect(group, (), measures_nothing.removeprefix("with "))
        readable(out, document)
        return _finish(_judge_stored(recipe.name, claim, out), out, document, reporter)
    if claim.kind == "gains":
        refuse_without_effect(engine, (), "a claim that reads results of others")
    if engine.engine == "local":  # a cluster says itself where it computes
        reporter.line(told(machine.device))
    settings, note = claim.at_scale(scale)
    folder = work or Path("runs") / "reproduce" / recipe.name
    if taken(folder) and not resume:
        raise UserError(f"{folder} is not empty: go on with what is in it (--resume), or choose another --work")
    if taken(folder) and not _holds_results(folder):
        raise UserError(f"{folder} holds no results of single networks: choose another --work")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file, and no folder for results: choose another --out")
    readable(out, document)  # now, not after an hour
    pictures = settings.get("pictures")
    refuse_foreign(pictures if isinstance(pictures, dict) else (), out, recipe.name)  # a table refuses all else
    if workers is not None:
        whole("workers", workers, 0)
    if dry_run:
        reporter.line(f"{recipe.name} at scale {scale}, {seeds} seeds" + f": {note}" * bool(note))
        tell_first_jobs(lambda planned: _run(claim, settings, seeds, planned, out), folder, reporter)
        tell_earlier_cost(out / f"{recipe.name}.json", scale, seeds, workers or USUAL_WORKERS, reporter)
        return None
    with claimed_file(out / f"{recipe.name}.json"):
        open_engine = partial(engine.open, workers, data_dir, machine, reporter)
        measurements = _measure(claim, settings, seeds, folder, open_engine, out, reporter)
    devices = measurements.pop("devices")
    if "pictures" in measurements:
        measurements["pictures"] = write_pictures(measurements["pictures"], out, recipe.name)
    result = {
        "recipe": recipe.name,
        "source": claim.source,
        "statement": claim.statement,
        "kind": claim.kind,
        **verdicts(claim, measurements["checks"]),
        "scale": scale,
        "seeds": seeds,
        "note": note,
        "silent": claim.silent,
        **measurements,
        # Without the folders of this machine, which mean nothing elsewhere.
        "command": f"buttress reproduce {recipe.name} --scale {scale} --seeds {seeds}",
        "commit": commit(),
        "versions": versions() | ({"device": ", ".join(devices)} if devices else {}),
        "cpus": os.cpu_count(),
        "date": _today(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    return _finish(result, out, document, reporter)


def _holds_results(folder: Path) -> bool:
    """Whether what is in a folder may be of an earlier reproduction: results by their keys, or hidden files alone."""
    names = entries(folder)
    return any(_RESULT.fullmatch(name) for name in names) or all(name.startswith(".") for name in names)


def _judge_stored(name: str, claim: Claim, out: Path) -> dict[str, Any]:
    path = out / f"{name}.json"
    if not path.is_file():
        raise UserError(f"there is no {path} to judge: leave --judge out to measure first")
    result = read_result(path)
    if result["recipe"] != name:
        raise UserError(f"{path} is a result of {result['recipe']}, not of {name}")
    return {**judge_again(result, claim), "judged": {"commit": commit(), "date": _today()}}


def _finish(result: dict[str, Any], out: Path, document: Path, reporter: Reporter) -> dict[str, Any]:
    path = out / f"{result['recipe']}.json"
    write_text(path, to_text(result))
    page = write_document(out, document)
    for label, verdict in result["verdicts"].items():
        reporter.line(f"{result['recipe']}, {described(label)}: {verdict}")
    reporter.line(f"numbers: {path}; page: {page}")
    return result


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")


def _measure(
    claim: Claim,
    settings: dict[str, Any],
    seeds: int,
    folder: Path,
    open_engine: Callable[[], AbstractContextManager[Engine]],
    out: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """What the experiment found, how many workers it had, and the devices that it ran on: none where nothing ran."""
    if claim.kind == "gains":  # without processes, which it does not need
        return {**run_gains(claim, out), "job_seconds": 0.0, "workers": 0, "devices": []}
    with claimed(folder), open_engine() as engine:
        work = Work(folder, engine, reporter)
        result = _run(claim, settings, seeds, work, out)
    spent = {"job_seconds": round(work.seconds, 1), "workers": engine.at_once, "devices": sorted(work.devices)}
    return {**result, **spent}


def _run(claim: Claim, settings: dict[str, Any], seeds: int, work: Work, out: Path) -> dict[str, Any]:
    """The experiment of the claim's kind; that of gains reads results in ``out`` and has no jobs."""
    if claim.kind == "gains":
        return run_gains(claim, out)
    if claim.kind == "profiles":
        return run_profiles(claim, settings, seeds, work)
    if claim.kind == "layer effects":
        return run_layer_effects(claim, settings, seeds, work)
    return Table(claim, settings, seeds, work).run()


def commit() -> str:
    """The commit of the source tree that runs, marked where the package differs from it; "unknown" outside of one."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        # An installed copy may lie inside another project's repository, which does not track it.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True).stdout.decode().strip()
        # Of the package alone: the results of the claim before this one change other tracked files.
        changed = subprocess.run([*git, "status", "--porcelain", ".."], check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + "-dirty" * bool(changed)
