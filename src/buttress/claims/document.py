"""The page on all claims, written from their JSON files alone: the same files give the same page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from buttress.claims.document_tables import checks, choices, errors, figures, pictures, profiles, rows, table
from buttress.claims.layer_effects_text import effects_summary, effects_tables
from buttress.claims.layer_findings import gain_summary, profile_summary, regularisation_summary
from buttress.claims.outcome_summary import outcome_summary
from buttress.claims.result_files import read_result
from buttress.claims.seed_statistics import CANNOT_FAIL, DIRECTION, REPRODUCED
from buttress.claims.verified import described
from buttress.errors import UserError
from buttress.safe_files import write_text

MARK = "<!-- Written by `buttress reproduce` from the results of all claims: changes by hand are lost. -->"

INTRODUCTION = """\
# Published claims, and what came of them

Each section is one recipe with a `claim:` block, run by `buttress reproduce NAME`. The numbers behind this page, seed
by seed, are in `claims/NAME.json`.

**How a check is judged.** A check says that A is better than B by some figure, under some attack. For each seed A and B
are trained on the same data from the same initial weights, and their difference is taken; the interval is the 95 %
interval of the mean difference by Student's t, paired by seed. Some checks are on one way of training: that a figure is
above a number, or how much more accuracy one attack leaves than another; the difference is then from that number. Where
a method is tried on several networks, a check may be on the mean of their differences, seed by seed.

- *reproduced*: the interval excludes 0 in the claimed direction, and the mean difference is at least half of the
  published one (where a number was published); where a check says by how much, the interval excludes that instead of 0;
- *direction only*: the mean alone has the claimed sign;
- *not reproduced*: anything else;
- *cannot fail*: not counted, since it holds whatever comes of the row: passes that are known without training, or a row
  that may lose more accuracy than the other one was measured to have. The rule is for what a claim cannot lose: a
  check that it cannot win, such as one on two rows that are both at 0, is counted and *not reproduced*.

A claim is *reproduced* if all of its checks are, *not reproduced* if at most half of them have even the direction, and
*direction only* in between. The verdict is that under the attack named; each check is repeated under the table's other
attacks, since much that was published under FGSM does not hold under stronger ones. A check on a figure of an audit
has nothing to do with these and is the same in each column. A check on *passes* is one on the cost of training, which
is known without training: the passes, forward and backward, of each input trained on over all epochs. R&G is the sum of
the accuracies, in percent, over the budgets of a table. Intervals are over training seeds alone, which share their test
inputs where a data set has few (the digits), and there is none where all seeds agree to the digit. They are not
corrected for the number of comparisons: of 20 differences that are really 0, the intervals of one or so will exclude
it. A check marked † was written once its rows had been measured.

**What "verified by" says.** The share of inputs that are right and of which a verifier has shown that no perturbation
of that size makes them wrong: no more than robust accuracy is, while what an attack leaves is no less.

**What "masking" says.** The verdict of the audit of that name is on the figure of the one attack named there, on the
inputs that it was run on. It compares this attack with others at a level that few inputs make wide, so that a gap of
tens of points between PGD and AutoAttack, or Square with more queries, may appear beside "trustworthy": each claim
reports the least gap that it could show. Read the strongest attack of a table.
"""


def write_document(out: Path, document: Path) -> Path:
    """Write the page from every claim's file in ``out``.

    Raises:
        UserError: as `readable`.
    """
    claims = readable(out, document)
    folder = Path(os.path.relpath(out, document.parent)).as_posix()
    parts = [MARK, INTRODUCTION, _overview(claims), *(_section(claim, folder) for claim in claims)]
    write_text(document, "\n\n".join(part.strip() for part in parts if part) + "\n")
    return document


def readable(out: Path, document: Path) -> list[dict[str, Any]]:
    """The results of all claims in ``out``, by file name.

    Raises:
        UserError: when a JSON file there is no claim's result, or when ``document`` exists and is not such a page.
    """
    try:
        foreign = MARK not in document.read_text()
    except (FileNotFoundError, NotADirectoryError):  # there is none, and whether one can be written is told elsewhere
        foreign = False
    except (OSError, UnicodeDecodeError):
        foreign = True
    if foreign:
        raise UserError(f"{document} exists and is no page of claims: choose another --document")
    return [read_result(path) for path in sorted(out.glob("*.json"))]


def _overview(claims: list[dict[str, Any]]) -> str:
    lines = []
    for claim in claims:
        verdicts = {label: [c["under"][label]["verdict"] for c in claim["checks"]] for label in claim["verdicts"]}
        counts = "; ".join(f"{label}: {_counts(texts)}" for label, texts in verdicts.items())
        link = f"[{claim['recipe']}](#{claim['recipe']})"
        lines.append([link, claim["scale"], str(claim["seeds"]), f"**{claim['verdict']}**", counts])
    hours = sum(claim["job_seconds"] for claim in claims) / 3600
    hours_text = f"All of them took {hours:.1f} hours of one worker process, on the machines named below.\n\n"
    return "## All claims\n\n" + hours_text + table(["claim", "scale", "seeds", "verdict", "checks that hold"], lines)


def _counts(verdicts: list[str]) -> str:
    reproduced, in_direction, empty = (verdicts.count(kind) for kind in (REPRODUCED, DIRECTION, CANNOT_FAIL))
    text = f"{reproduced} of {len(verdicts) - empty} reproduced, {in_direction} in {DIRECTION}"
    return text + (f", {empty} that cannot fail" if empty else "")


def _section(claim: Mapping[str, Any], folder: str) -> str:
    main, verdicts = claim["verdict_under"], claim["verdicts"]
    others = [f"{described(label)}: {verdict}" for label, verdict in verdicts.items() if label != main]
    parts = [
        f"## {claim['recipe']}",
        f"{claim['source']}. *{claim['statement']}*",
        f"Verdict {described(main)}: **{claim['verdict']}**"
        + (f" ({'; '.join(others)})" if others else "")
        + f". Scale {claim['scale']}, {claim['seeds']} seeds.",
        claim["note"],
        *([outcome_summary(claim)] if claim["kind"] == "table" else []),
        *([regularisation_summary(claim)] if claim["kind"] == "table" else []),
        *([gain_summary(claim)] if claim["kind"] == "gains" else []),
        *([profile_summary(claim)] if claim["kind"] == "profiles" else []),
        *([effects_summary(claim)] if claim["kind"] == "layer effects" else []),
        "### Checks\n\n" + checks(claim),
        *([rows(claim)] if claim["kind"] == "table" else []),
        *([errors(claim)] if any("errors" in row for row in claim.get("rows", [])) else []),
        *([figures(claim)] if any(row.get("figures") for row in claim.get("rows", [])) else []),
        *([pictures(claim, folder)] if claim.get("pictures") else []),
        *([profiles(claim)] if claim["kind"] == "profiles" else []),
        *([effects_tables(claim)] if claim["kind"] == "layer effects" else []),
        *([choices(claim)] if claim.get("sweeps") else []),
        "### What the source leaves out, and what else to know\n\n" + "\n".join(f"- {line}" for line in claim["silent"])
        if claim["silent"]
        else "",
        _origin(claim),
    ]
    return "\n\n".join(part.strip() for part in parts if part)


def _origin(claim: Mapping[str, Any]) -> str:
    versions, judged = claim["versions"], claim.get("judged")
    again = f" Judged again on {judged['date']} by the recipe of commit {judged['commit']}." if judged else ""
    machine = versions["machine"].partition(",")[0]
    device = versions.get("device", "CPU")  # not told by earlier versions
    on = "" if device == "CPU" else f" and {device}"
    return (
        f"Made on {claim['date']} from commit {claim['commit']} with buttress {versions['buttress']}, "
        f"torch {versions['torch']}, Python {versions['python']} on {machine} with {claim['cpus']} CPUs{on}, "
        f"in {claim['job_seconds'] / 60:.0f} minutes of one worker process.{again}"
    )
