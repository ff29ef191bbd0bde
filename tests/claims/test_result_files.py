"""Any parser reads the files of claims, and nothing is lost on the way."""

import json
import math
from pathlib import Path

import pytest

from buttress.claims.result_files import from_text, to_text

CLAIMS = sorted((Path(__file__).parents[2] / "claims").glob("*.json"))


def refused(name):
    raise AssertionError(f"{name} is no JSON")


def test_what_is_no_finite_number_comes_back():
    result = {
        "mean": math.inf,
        "seeds": [1.5, -math.inf, 2],
        "texts": ["trustworthy"],
        "sd": None,
        "in": {"x": math.nan},
    }
    text = to_text(result)
    json.loads(text, parse_constant=refused)
    back = from_text(text)
    assert math.isnan(back["in"].pop("x"))
    assert back == {**result, "in": {}}


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
def test_kept_results_are_strict_json(path):
    json.loads(path.read_text(), parse_constant=refused)
