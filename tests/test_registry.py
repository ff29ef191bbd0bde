"""Names, discovery and a user's own members."""

import subprocess
import sys

import pytest

from buttress import attacks, registry
from buttress.errors import UserError
from buttress.registry import Registry, import_thing


def test_members_are_discovered_by_file():
    assert attacks.names() == registry.attack.names() == sorted(registry.attack.names())
    assert registry.attack.get("pgd") is attacks.PGD
    assert registry.attack.name_of(attacks.PGD) == "pgd"
    assert registry.attack.name_of(attacks.PGD(steps=3)) == "pgd"


def test_roles_have_their_registries():
    assert registry.ROLES["attacks"] is registry.attack
    roles = ["attack", "defence", "model", "audit", "dataset", "monitor", "task", "verifier"]
    assert [role.role for role in registry.ROLES.values()] == roles


def test_large_libraries_are_imported_where_they_are_used():
    """Neither by discovery of all members nor by what jobs, claims and reports are made of."""
    program = """
import sys
import buttress, buttress.jobs, buttress.claims.reproduce, buttress.report.stills.findings
from buttress import registry
assert all(role.names() for role in registry.ROLES.values())
libraries = ("scipy", "sklearn", "torchdiffeq", "tensorboard", "lightning_fabric", "PIL", "pooch", "timm", "onnx")
libraries += ("matplotlib", "plotly")
print([name for name in libraries if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("pdg", r"^there is no attack 'pdg'; did you mean '\w*pgd'\?$"),
        ("PGD", r"^there is no attack 'PGD'; did you mean 'pgd'\?$"),
        ("fgms", r"^there is no attack 'fgms'; did you mean '.*fgsm.*'\?$"),
        ("zzzzzzzz", r"^there is no attack 'zzzzzzzz'; known: .*bim.*pgd"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, line):
    with pytest.raises(UserError, match=line):
        registry.attack.get(name)


def test_an_attribute_that_is_no_member():
    with pytest.raises(AttributeError, match=r"module 'buttress\.attacks' has no attribute 'PDG'"):
        _ = attacks.PDG
    with pytest.raises(AttributeError):
        _ = attacks._private


def test_two_members_of_one_name_are_refused():
    own = Registry("attack", "buttress.attacks")
    own("x")(dict)
    own("x")(dict)
    with pytest.raises(ValueError, match="two attacks are called 'x'"):
        own("x")(list)


def test_things_by_module_and_by_file(tmp_path, monkeypatch):
    assert import_thing("collections:OrderedDict").__name__ == "OrderedDict"
    (tmp_path / "mine_by_module.py").write_text("class Mine:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    assert registry.attack.get("mine_by_module:Mine").__name__ == "Mine"
    assert registry.attack.name_of(registry.attack.get("mine_by_module:Mine")) == "mine_by_module:Mine"
    assert registry.attack.get("mine_by_module.py:Mine").__name__ == "Mine"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("no_such_module_here:Thing", r"there is no module 'no_such_module_here' on the path or in "),
        ("no_such_file.py:Thing", r"there is no file no_such_file\.py in /"),
        ("collections:OrderedDct", r"collections has no 'OrderedDct'; did you mean 'OrderedDict'\?$"),
    ],
)
def test_things_that_are_not_there(path, line):
    with pytest.raises(UserError, match=line):
        import_thing(path)


def test_errors_inside_a_users_file_are_told_as_they_are(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import no_such_module_inside\n")
    for _ in range(2):  # a file that failed is not taken for imported
        with pytest.raises(ModuleNotFoundError, match="no_such_module_inside"):
            import_thing(f"{file}:Thing")


def test_what_was_made_by_hand_has_a_name_too(monkeypatch):
    """As in a notebook, whose module has no file."""
    monkeypatch.delattr(sys.modules[__name__], "__file__", raising=False)
    made = type("Nudge", (), {"__module__": __name__})
    assert registry.attack.name_of(made()) == f"{__name__}:Nudge"
