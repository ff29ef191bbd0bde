import json

import pytest

from buttress import registry
from buttress.errors import UserError
from buttress.workflows import listing


@pytest.mark.parametrize("role", sorted(registry.ROLES))
def test_every_member_is_there_in_plain_data(role):
    rows = listing(role)
    assert [row["name"] for row in rows] == registry.ROLES[role].names()
    assert json.loads(json.dumps(rows)) == rows
    assert all(row["summary"] and "\n" not in row["summary"] for row in rows)


def test_options_come_with_their_defaults():
    (moons,) = [row for row in listing("datasets") if row["name"] == "moons"]
    assert moons["options"]["samples"] == 1000
    assert moons["class"] == "buttress.data.moons.moons"
    (robustness,) = [row for row in listing("audits") if row["name"] == "robustness"]
    assert set(robustness["options"]) == {"attacks", "noises", "eps", "reuse"}
    assert robustness["options"]["eps"] is None


def test_defences_come_with_their_source_and_cost():
    rows = {row["name"]: row for row in listing("defences")}
    assert rows["standard"]["cost"] == 1
    assert rows["at"]["cost"] == 11  # ten steps and the update, each forward and backward
    assert rows["trades"]["cost"] == 12.5  # ten steps, a reference, and two passes of each kind
    assert rows["fast"]["paper"].startswith("Wong")
    assert all(row["paper"] for row in rows.values())


def test_recipes_are_listed_too():
    assert "demo" in [row["name"] for row in listing("recipes")]


def test_an_unknown_role_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="there is no role 'defense'; did you mean 'defences'"):
        listing("defense")
