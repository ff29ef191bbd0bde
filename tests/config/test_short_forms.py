from dataclasses import fields

import pytest
from buttress.config.short_forms import average_path, class_path, fraction, is_own, member, own_path, spelt_out

from buttress import registry
from buttress.errors import UserError
from buttress.threat import Threat

PGD = "buttress.attacks.gradient.pgd.PGD"
THREAT = {"norm": "linf", "eps": 8 / 255, "box": [0.0, 1.0], "explicit": False}
OF_PGD = {"threat": THREAT, "steps": 10, "restarts": 1, "start": "uniform"}


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("8/255", repr(8 / 255)),
        (" 1 / 4 ", "0.25"),
        ("1.5/3", "0.5"),
        ("0.1", "0.1"),
        ("a/b", "a/b"),
        ("runs/1", "runs/1"),
    ],
)
def test_fractions_become_numbers_and_nothing_else_does(text, read):
    assert fraction(text) == read


def test_division_by_zero_is_told():
    with pytest.raises(UserError, match="8/0 divides by zero"):
        fraction("8/0")


def test_members_are_spelt_out_with_the_options_beside_their_name():
    tree = {
        "batch-size": 64,
        "threat": {"eps": "8/255", "box": None},
        "defence": {"name": "at", "attack": {"name": "pgd", "step-size": "1/4"}},
        "attacks": ["pgd", {"name": "fgsm"}],
        "data_args": {"name": "kept", "share": "1/2"},
    }
    assert spelt_out("", tree) == {
        "batch_size": 64,
        "threat": {"eps": 8 / 255, "box": None, "explicit": True},
        "defence": {
            "class_path": "buttress.defences.adversarial_training.AdversarialTraining",
            "init_args": {"mode": "eval", "attack": {"class_path": PGD, "init_args": {**OF_PGD, "step_size": 0.25}}},
        },
        "attacks": [
            {"class_path": PGD, "init_args": OF_PGD},
            {"class_path": "buttress.attacks.gradient.fgsm.FGSM", "init_args": {"threat": THREAT}},
        ],
        "data_args": {"name": "kept", "share": 0.5},
    }


@pytest.mark.parametrize("name", registry.attack.names())
def test_who_is_named_starts_from_defaults_of_its_own(name):
    """What is written out is what the class has by itself, and nothing that the parser kept of another member."""
    tree = member(registry.attack, name)
    cls = registry.attack.get(name)
    written = {f.name: f.default for f in fields(cls) if f.name in tree["init_args"]}
    threat = tree["init_args"].get("threat")
    assert threat is None or Threat(**threat) == written.pop("threat")
    assert {"steps", "restarts", "norm"} & {f.name for f in fields(cls)} <= set(tree["init_args"])
    plain = {key: value for key, value in tree["init_args"].items() if key != "threat"}
    assert plain == {key: list(v) if isinstance(v, tuple) else v for key, v in written.items()}


@pytest.mark.parametrize("name", ["swa", "SWA", "Swa"])
def test_averages_are_named(name):
    path = "buttress.training.averaging.SWA"
    assert average_path(name) == path
    assert spelt_out("average", {"name": name, "start": 0.25}) == {"class_path": path, "init_args": {"start": 0.25}}
    assert spelt_out("average", name) == {"class_path": path}
    assert spelt_out("average", 0.9) == 0.9
    assert spelt_out("average", "1/2") == 0.5
    with pytest.raises(UserError, match=r"no average 'swag' of the weights; did you mean 'swa'\?, or a number"):
        spelt_out("average", "swag")


def test_what_is_spelt_out_already_stays():
    tree = {"class_path": PGD, "init_args": {"steps": 3}}
    assert spelt_out("attack", tree) == tree


def test_things_of_the_users_are_found_at_any_depth_of_a_member(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("class Thing:\n    pass\n\ndef measure():\n    pass\n")
    tree = {"name": f"{file}:Thing", "how": f"{file}:measure", "part": {"name": f"{file}:Thing", "size": 3}}
    path = own_path(f"{file}:Thing")
    found = spelt_out("defence", tree)
    assert found["class_path"] == path
    assert found["init_args"]["how"] == path.replace("Thing", "measure")
    assert found["init_args"]["part"] == {"class_path": path, "init_args": {"size": 3}}
    assert spelt_out("", {"data": f"{file}:measure"}) == {"data": f"{file}:measure"}  # no member's option


@pytest.mark.parametrize(
    ("text", "own"),
    [("a.b:C", True), ("dir/a.py:C", True), ("C", False), ("http://x:80", False), ("a b:c", False), ("a:", False)],
)
def test_the_form_of_a_users_own_thing(text, own):
    assert is_own(text) is own


def test_a_function_is_no_member():
    with pytest.raises(UserError, match="'json:loads' is a function: attacks are classes"):
        class_path(registry.attack, "json:loads")
