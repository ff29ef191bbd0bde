"""Recipes: how they are found, merged and filled, and that those of the package can be run."""

import inspect

import pytest
import torch
from torch import nn

from buttress import layers, registry
from buttress.attacks import Attack, Perturbation
from buttress.audits import Audit
from buttress.claims import find, recipes
from buttress.claims.experiment import Figure
from buttress.claims.figures import figure_audit
from buttress.claims.recipe import blanks, fill_blanks, from_mapping, merge
from buttress.claims.table import Table
from buttress.cli.listing import listing
from buttress.config.reading import build
from buttress.data import from_arrays
from buttress.defences.base.defence import Defence
from buttress.errors import UserError
from buttress.jobs.settings import Network, Source, Training

CLAIMS = {recipe.name: recipe.claim for recipe in recipes() if recipe.claim is not None}
SCALED = [(name, scale) for name, claim in CLAIMS.items() for scale in claim.scales]


def test_the_claims_of_the_paper_are_there_and_every_recipe_has_a_summary():
    assert {"lsa-table2-moon", "lsa-table3-mnist", "lsa-table4-cifar10", "lsa-abstract-gains", "lsa-profiles"} <= set(
        CLAIMS
    )
    assert all(recipe.summary for recipe in recipes())
    assert all("small" in claim.scales for claim in CLAIMS.values())
    assert all("full" in claim.scales for name, claim in CLAIMS.items() if name.startswith("lsa-"))


def test_published_rows_add_up_to_the_published_scores():
    published = CLAIMS["lsa-table2-moon"].published
    assert len(published) == 17
    scores = {"Normal": 466.17, "AT-FGSM-LR-L2": 498.52, "AT-FAST-LR-L1": 465.42, "AT-TRADES-LR-L2": 505.83}
    for name, score in scores.items():
        assert sum(published[name]) == pytest.approx(score, abs=0.011)
    assert sum(CLAIMS["lsa-table3-mnist"].published["AT-APGD-LR-L0"]) == pytest.approx(541.73, abs=0.011)
    assert sum(CLAIMS["lsa-table4-cifar10"].published["D AT-APGD"]) == pytest.approx(261.3, abs=0.011)


def tiny(setup):
    """A data set of the right shape for a setup."""
    shapes = {"moons": (2,), "mnist": (1, 28, 28), "cifar10": (3, 32, 32), "digits": (1, 8, 8)}
    x = torch.rand(24, *{**shapes, "fashion-mini": (1, 28, 28)}[setup["source"]["data"]])
    classes = 2 if x.dim() == 2 else 10
    pair = (x.numpy(), (torch.arange(24) % classes).numpy())
    return from_arrays("tiny", pair, pair, classes=list(map(str, range(classes))), box=None, provenance="")


@pytest.mark.parametrize(("name", "scale"), [(n, s) for n, s in SCALED if CLAIMS[n].kind == "table"])
def test_every_row_of_a_table_can_be_built(name, scale):
    claim = CLAIMS[name]
    settings, _ = claim.at_scale(scale)
    table = Table(claim, settings, 1, work=None)
    for entry in settings["attacks"]:
        if "sources" not in entry:  # a transfer, which `Table` has built
            build(Attack, entry["attack"])
    for setup in settings["setups"].values():
        setup = fill_blanks(setup, {"noise": 0.2})
        build(Training, setup["training"])
        assert build(Source, setup["source"]).data == setup["source"]["data"]
    first = {}
    for row in table.rows:
        tree = fill_blanks(fill_blanks(row.defence, first), {name: values[0] for name, values in row.choose.items()})
        assert not blanks(tree)
        built = build(Defence, tree)
        first[row.name] = tree
        twin = row.name.endswith("(centred)")
        if "-LR-" in row.name:
            assert built.measure == ("centred" if twin else "relative_error")
        assert twin or not claim.published or row.name in claim.published
    for row in table.rows:
        for figure in table.experiment.figures.values():
            spec = from_mapping(Figure, fill_blanks(figure, row.values), "figure")
            assert spec.history or isinstance(figure_audit(spec, lambda name: nn.Identity()), Audit)


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if claim.kind == "table"])
def test_the_layers_named_are_the_networks_activations_at_those_positions(name):
    settings, _ = CLAIMS[name].at_scale("small")
    table = Table(CLAIMS[name], settings, 1, work=None)
    for label, setup in settings["setups"].items():
        rows = [row for row in table.rows if (row.setup or next(iter(table.setups))) == label]
        named = {row.name: row.defence["layers"] for row in rows if "layers" in row.defence}
        if not named:
            continue
        data = tiny(setup)
        model = build(Network, setup["architecture"]).create(data, 0)
        names = layers.layer_names(model, data.test.take(torch.arange(2))[0])
        for row, wanted in named.items():
            assert set(wanted) <= set(names)
            if "-LR-L" in row:
                assert wanted == [names[int(row.partition("-LR-L")[2][0])]]


def test_the_perturbations_of_the_profiles_can_be_built():
    for scale in ("small", "full"):
        settings, _ = CLAIMS["lsa-profiles"].at_scale(scale)
        for setup in settings["setups"].values():
            for tree in setup["perturbations"].values():
                assert isinstance(build(Perturbation, tree), Perturbation)


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if claim.kind == "layer effects"])
def test_layer_effects_are_of_layers_that_there_are(name):
    for scale in CLAIMS[name].scales:
        settings, _ = CLAIMS[name].at_scale(scale)
        for setup in settings["setups"].values():
            build(Training, setup["training"])
            audit = build(Audit, {"name": "layers", "layers": setup["layers"], **settings["audit"]})
            data = tiny(setup)
            model = build(Network, setup["architecture"]).create(data, 0)
            names = layers.layer_names(model, data.test.take(torch.arange(2))[0], audit.layers)
            assert set(setup["strengthened"]) <= set(names)
            for defence in settings["trainings"].values():
                assert isinstance(build(Defence, fill_blanks(defence, {"eps": setup["eps"]})), Defence)


def test_merging_goes_into_mappings_and_replaces_the_rest():
    tree = {"a": {"b": 1, "c": [1, 2]}, "d": 3}
    result = merge(tree, {"a": {"c": [9]}, "e": {"f": 1}, "d": {"g": 2}})
    assert result == {"a": {"b": 1, "c": [9]}, "d": {"g": 2}, "e": {"f": 1}}
    assert tree == {"a": {"b": 1, "c": [1, 2]}, "d": 3}


def test_blanks_are_whole_texts_that_begin_with_a_dollar():
    tree = {"base": "$AT", "layers": ["x", "$layer"], "gamma": "$g", "note": "costs 3$"}
    assert blanks(tree) == {"AT", "layer", "g"}
    assert fill_blanks(tree, {"AT": {"name": "at"}, "g": 0.5}) == {
        "base": {"name": "at"},
        "layers": ["x", "$layer"],
        "gamma": 0.5,
        "note": "costs 3$",
    }


def test_built_objects_are_typed_and_take_short_forms():
    built = build(Defence, {"name": "at", "attack": {"name": "pgd", "steps": 4, "threat": {"eps": "8/255"}}})
    assert type(built) is registry.defence.get("at")
    assert built.attack.steps == 4
    assert built.attack.threat.eps == 8 / 255
    with pytest.raises(UserError, match="steps"):
        build(Attack, {"name": "pgd", "steps": "many"})
    with pytest.raises(UserError, match="there is no attack 'pgdd'; did you mean 'pgd'"):
        build(Attack, "pgdd")


def test_equal_settings_give_objects_of_their_own():
    """What is done to one object must not be seen in the next."""
    defences = [build(Defence, {"name": "layer-regularised", "base": "at", "layers": ["a"]}) for _ in "ab"]
    assert defences[0] is not defences[1]
    assert defences[0].base is not defences[1].base
    tree = {"model": "mlp", "model_args": {"hidden": [4]}}
    build(Network, tree).model_args["hidden"].append(5)
    assert build(Network, tree).model_args == {"hidden": [4]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must map options"),
        ("claim: {source: a}", "missing"),
        ("claim: {source: a, statement: b, kind: tabel, checks: []}", "did you mean 'table'"),
        ("claim: {sourec: a}", "did you mean 'source'"),
        ("claim: 3", "a mapping of"),
        ("a: [", "cannot be read"),
        ("claim: {source: a, statement: b, kind: table, checks: [], silent: [{a: b}]}", "needs quotes around it"),
    ],
)
def test_a_wrong_recipe_is_answered_in_one_line(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        find(str(path))
    assert "\n" not in str(error.value)


def test_the_list_of_recipes_says_which_hold_a_claim():
    rows = {row["name"]: row for row in listing("recipes")}
    assert rows["lsa-profiles"]["claim"] is True
    assert rows["demo"]["claim"] is False
    assert rows["demo"]["summary"]


def test_unknown_names_and_scales_name_the_nearest():
    with pytest.raises(UserError, match="did you mean 'lsa-profiles'"):
        find("lsa-profile")
    with pytest.raises(UserError, match="did you mean 'small'"):
        CLAIMS["lsa-profiles"].at_scale("smal")


def test_every_public_option_of_reproduce_is_documented():
    from buttress.claims.reproduce import reproduce

    text = inspect.getdoc(reproduce)
    assert all(f"{name}:" in text for name in inspect.signature(reproduce).parameters)
