"""The stubs of the role packages: every registered class is in them, and a wheel holds them."""

import ast
import importlib
import inspect
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from buttress import registry

ROOT = Path(__file__).parent.parent
ROLES = ("attack", "defence", "audit", "monitor")
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"


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


def test_a_wheel_built_from_the_source_distribution_holds_the_stubs(stubs, tmp_path):
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyi", "*.egg-info", "embedded")
    for folder in ("src", "scripts"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    for file in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, tree)

    build(tree, "build_sdist", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    build(unpacked, "build_wheel", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        for role in ROLES:
            path = getattr(registry, role).package.replace(".", "/") + "/__init__.pyi"
            assert file.read(path).decode() == stubs["stub"](role)


def build(tree, what, out):
    done = subprocess.run(
        [sys.executable, "-c", BUILD, what, str(out)], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
