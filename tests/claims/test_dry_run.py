"""A reproduction that is only planned says what it would run, and takes no time, whatever the recipe."""

import json
import time
from pathlib import Path

import pytest
from tests.reporters import Heard

from buttress.claims.dry_run import tell_earlier_cost
from buttress.claims.recipe import recipes
from buttress.claims.reproduce import reproduce

RESULTS = Path(__file__).parents[2] / "claims"


@pytest.mark.parametrize("name", [recipe.name for recipe in recipes() if recipe.claim is not None])
def test_every_claim_is_planned_without_running_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heard, start = Heard(), time.process_time()
    settings = {"dry_run": True, "out": RESULTS, "work": tmp_path / "work", "document": tmp_path / "page.md"}
    assert reproduce(name, **settings, reporter=heard) is None
    assert time.process_time() - start < 5
    assert list(tmp_path.iterdir()) == []
    device, _, first, _ = heard.lines
    assert device.startswith("on ")
    assert first.endswith(("0 of them done before; nothing is run", "it reads results of other claims"))


def test_the_time_is_in_proportion_to_seeds_and_workers(tmp_path):
    path, heard = tmp_path / "claim.json", Heard()
    tell_earlier_cost(path, "small", 5, 2, heard)
    result = {"recipe": "claim", "checks": [], "verdicts": {}, "scale": "small", "seeds": 3, "job_seconds": 1800}
    path.write_text(json.dumps(result))
    tell_earlier_cost(path, "full", 5, 2, heard)
    tell_earlier_cost(path, "small", 6, 2, heard)
    unknown = f"how long it takes is not known: there is no {path} with a result at scale"
    assert heard.lines == [
        f"{unknown} small",
        f"{unknown} full",
        f"about 30 min with 2 processes: 60 min of one thread for 6 seeds, by {path} (3 seeds, 30 min)",
    ]
