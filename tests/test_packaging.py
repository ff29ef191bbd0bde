"""A wheel made of the source distribution works away from the checkout, and declares what it needs."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import buttress
from buttress import models, registry

ROOT = Path(__file__).parent.parent
SOURCE = Path(buttress.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
# Where the name that is imported is not that of what is installed.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "lightning_fabric": "lightning-fabric",
    "mlflow": "mlflow-skinny",
    "pytorch_lightning": "lightning",  # the same library by its former name
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
NOT_IN_THE_REGISTRY = {"robustbench"}  # in a form that works; its line says where it is
# Only those who use these tools import these files, and so their packages.
INSIDE_OTHER_TOOLS = {"integrations/pytest_plugin.py", "integrations/lightning.py", "integrations/hugging_face.py"}


def run(*command, cwd, **options):
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution of a tree without anything that is generated."""
    folder = tmp_path_factory.mktemp("wheel")
    for part in ("src", "scripts"):
        shutil.copytree(
            ROOT / part, folder / "tree" / part, ignore=shutil.ignore_patterns("__pycache__", "*.pyi", "*.egg-info")
        )
    for file in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, folder / "tree")
    run(sys.executable, "-c", BUILD, "build_sdist", folder, cwd=folder / "tree")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    run(sys.executable, "-c", BUILD, "build_wheel", folder, cwd=unpacked)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_stubs_and_whatever_is_read_at_run_time(wheel):
    with zipfile.ZipFile(wheel) as file:
        held = {name.removeprefix("buttress/") for name in file.namelist() if name.startswith("buttress/")}
    stubs = {getattr(registry, role).package.removeprefix("buttress.") for role in ("attack", "defence", "audit")}
    assert {f"{package}/__init__.pyi" for package in stubs} <= held
    files = {str(file.relative_to(SOURCE)) for file in SOURCE.rglob("*") if file.is_file()}
    assert {name for name in files - held if "__pycache__" not in name} == set()


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The command of an environment with the wheel, which sees what is installed here beside it; and a folder."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    run(*pip, "install", "-q", "--no-compile", "--no-deps", "--no-index", wheel, cwd=folder)
    place = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    (Path(place) / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "buttress", folder


def test_the_command_works_away_from_the_checkout(installed, monkeypatch):
    command, folder = installed
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert run(command, "--version", cwd=folder).split()[-1] == PROJECT["version"]
    assert "fashion-mini" in run(command, "list", "datasets", cwd=folder)
    (folder / "mine.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    models.save_weights(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), folder / "mine.safetensors")
    words = [
        "--data",
        "fashion-mini",
        "--attacks",
        "fgsm",
        "--audits",
        "robustness",
        "--inputs",
        "20",
        "--out",
        "audit",
    ]
    run(command, "audit", "mine.py:net", "--weights", "mine.safetensors", *words, cwd=folder)
    assert (folder / "audit" / "report.html").exists()


def imports(tree, inside=False):
    """(name of the package, whether it is imported when the file is) of all imports but those for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], not inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0], not inside
        yield from imports(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def declared(requirements):
    """The names of what is required."""
    return {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in requirements}


CORE = declared(PROJECT["dependencies"])
EXTRAS = declared(part for extra in PROJECT["optional-dependencies"].values() for part in extra)
IMPORTED = [
    (str(file.relative_to(SOURCE)), DISTRIBUTIONS.get(name, name), at_once)
    for file in sorted(SOURCE.rglob("*.py"))
    for name, at_once in imports(ast.parse(file.read_text()))
    if name not in sys.stdlib_module_names and name != "buttress"
]


def test_every_import_is_of_a_declared_dependency():
    undeclared = {(file, name) for file, name, _ in IMPORTED if name not in CORE | EXTRAS | NOT_IN_THE_REGISTRY}
    assert undeclared == set()


def test_what_is_optional_is_imported_where_it_is_used_alone():
    early = {(file, name) for file, name, at_once in IMPORTED if at_once and name not in CORE}
    assert {(file, name) for file, name in early if file not in INSIDE_OTHER_TOOLS} == set()


def test_nothing_is_required_that_is_not_imported():
    used = {name for _, name, _ in IMPORTED} | {"tensorboard"}  # by torch.utils.tensorboard
    assert used >= CORE


def test_torch_is_the_version_that_is_asked_for():
    (asked,) = (part for part in PROJECT["dependencies"] if part.startswith("torch>"))
    lowest = tuple(map(int, asked.removeprefix("torch>=").split(".")))
    assert tuple(map(int, torch.__version__.split(".")[:2])) >= lowest
