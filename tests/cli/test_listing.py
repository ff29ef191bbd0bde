import inspect
import json

import numpy as np
import pytest
from torch import nn

from buttress import registry
from buttress.claims import find
from buttress.cli.listing import documentation, listing
from buttress.data.arrays import from_arrays
from buttress.errors import UserError


@pytest.mark.parametrize("role", sorted(registry.ROLES))
def test_every_member_is_there_in_plain_data(role):
    rows = listing(role)
    assert [row["name"] for row in rows] == registry.ROLES[role].names()
    assert json.loads(json.dumps(rows)) == rows
    assert all(row["summary"] and "\n" not in row["summary"] for row in rows)


def test_options_come_with_their_defaults():
    (moons,) = [row for row in listing("datasets") if row["name"] == "moons"]
    assert moons["options"]["samples"] == 1000
    assert moons["class"] == "buttress.data.sets.moons.moons"
    (robustness,) = [row for row in listing("audits") if row["name"] == "robustness"]
    assert set(robustness["options"]) == {"attacks", "noises", "eps", "reuse", "verifier"}
    assert robustness["options"]["eps"] is None


def test_defences_come_with_their_source_and_cost():
    rows = {row["name"]: row for row in listing("defences")}
    assert rows["standard"]["cost"] == 1
    assert rows["at"]["cost"] == 11  # ten steps and the update, each forward and backward
    assert rows["trades"]["cost"] == 12.5  # ten steps, a reference, and two passes of each kind
    assert rows["fast"]["paper"].startswith("Wong")
    assert all(row["paper"] for row in rows.values())


def test_a_cost_that_the_data_decide_is_told_in_words():
    rows = {row["name"]: row for row in listing("defences")}
    assert [name for name, row in rows.items() if row["cost"] is None] == ["crown-ibp", "j-sigr"]
    assert [name for name, row in rows.items() if row["cost_hangs_on"]] == ["crown-ibp", "j-sigr"]
    method = registry.defence.get("j-sigr")()
    random = np.random.default_rng(0)
    parts = [(random.integers(0, 255, (n, 1, 28, 28), dtype=np.uint8), np.arange(n) % 10) for n in (30, 10)]
    classes = [str(c) for c in range(10)]
    data = from_arrays("d", *parts, classes=classes, box=(0.0, 1.0), provenance="made in this test.", val=10)
    method.prepare(nn.Linear(1, 1), data, 0)
    assert f"{method.cost.relative:.3g} x the passes of standard training at 28x28" in rows["j-sigr"]["cost_hangs_on"]


@pytest.mark.parametrize("role", sorted(registry.ROLES))
def test_every_member_tells_all_of_itself(role):
    for name in registry.ROLES[role].names():
        text, member = documentation(role, name), registry.ROLES[role].get(name)
        assert text.startswith(
            f"{name}: {member.__module__}.{member.__qualname__}\n\n{inspect.getdoc(member)}\n\nDefaults: "
        )


def test_one_member_has_its_options_meanings_and_defaults():
    text = documentation("models", "lt-node")
    assert "    speed: how many times as fast as the weights" in text
    assert "classes=10, " in text
    assert "speed=10.0" in text


@pytest.mark.parametrize("role", [*sorted(registry.ROLES), "recipes"])
def test_one_member_is_listed_as_among_all(role):
    rows = listing(role)
    assert listing(role, rows[-1]["name"]) == rows[-1:]


def test_a_recipe_is_told_by_its_text():
    assert documentation("recipes", "latent-time").splitlines() == find("latent-time").path.read_text().splitlines()


@pytest.mark.parametrize(
    ("role", "name", "told"),
    [
        ("models", "odenett", "there is no model 'odenett'; did you mean 'odenet'"),
        ("recipes", "latent-tim", "there is no recipe 'latent-tim'; did you mean 'latent-time'"),
        ("model", "odenet", "there is no role 'model'; did you mean 'models'"),
        ("models", "os:path", "'os:path' must be a class or a function; it is a module"),
        ("models", "builtins:dict", "'builtins:dict' does not tell which options it has"),
        ("models", "os:sep", "'os:sep' must be a class or a function; it is a str"),
    ],
)
def test_what_is_not_there_is_answered_with_the_nearest(role, name, told):
    with pytest.raises(UserError, match=told):
        documentation(role, name)


def test_a_defence_of_ones_own_must_be_one():
    with pytest.raises(UserError, match="'json:dumps' must be a Defence; it is <function dumps"):
        listing("defences", "json:dumps")


def test_recipes_are_listed_too():
    assert "demo" in [row["name"] for row in listing("recipes")]


def test_an_unknown_role_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="there is no role 'defense'; did you mean 'defences'"):
        listing("defense")


def test_wildcards_choose_some():
    names = [row["name"] for row in listing("attacks", "*fgsm*")]
    assert names == [name for name in registry.attack.names() if "fgsm" in name]
    assert len(names) > 3
    assert [row["name"] for row in listing("recipes", "lsa-table[23]-*")] == ["lsa-table2-moon", "lsa-table3-mnist"]
    with pytest.raises(UserError, match=r"none of the attacks matches '\*fgsn\*'; did you mean 'fgsm'"):
        listing("attacks", "*fgsn*")


def test_without_a_role_the_roles_are_counted(done):
    counts = json.loads(done("list --json"))
    assert counts == {role: len(members.names()) for role, members in registry.ROLES.items()} | {
        "recipes": len(listing("recipes"))
    }
    text = done("list")
    assert all(f"  {role:<12}  {count}\n" in text for role, count in counts.items())
    assert done("list attacks '*-fgsm'").startswith("di-fgsm  ")
