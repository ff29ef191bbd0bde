"""The stubs of the role packages: every registered class is in them."""

import ast
import importlib
import inspect
import runpy
import shutil
from pathlib import Path

import pytest

from buttress import registry

ROOT = Path(__file__).parent.parent
ROLES = ("attack", "defence", "audit", "monitor")


@pytest.fixture(scope="module")
def stubs():
    return runpy.run_path(str(ROOT / "scripts" / "write_stubs.py"))


@pytest.mark.parametrize("role", ROLES)
def test_every_registered_class_and_every_export_is_in_the_stub(stubs, role):
    members = getattr(registry, role)
    package = importlib.import_module(members.package)
    classes = [members.get(name) for name in members.names()]
    names = {c.__name__ for c in classes if inspect.isclass(c) and c.__module__.startswith("buttress.")}
    tree = ast.parse(stubs["stub"](role))
    listed = {alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert listed | functions >= names | set(package.__all__)
    assert all(hasattr(package, name) for name in listed | functions)


def test_a_new_file_in_a_nested_folder_is_in_the_stub(stubs, tmp_path):
    source = tmp_path / "src"
    folder = source / "buttress" / "attacks"
    (folder / "new").mkdir(parents=True)
    shutil.copy(ROOT / "src/buttress/attacks/__init__.py", folder)
    (folder / "new" / "shift.py").write_text('@attack("shift")\n@dataclass(frozen=True)\nclass Shift(Attack): ...\n')
    assert "from buttress.attacks.new.shift import Shift as Shift\n" in stubs["stub"]("attack", source)
