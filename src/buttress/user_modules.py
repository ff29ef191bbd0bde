"""Code of the user's by reference, ``package.module:Thing`` or ``path/to/file.py:Thing``: found and imported."""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import logging
import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from buttress.errors import UserError
from buttress.near_names import nearest

log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_files: dict[Path, ModuleType] = {}  # that were named by their paths
_told: set[str] = set()  # places that are gone, of which a line was logged
_folders: set[Path] = set()  # which these were imported from
_installed: set[Path] = set()  # installed modules and packages that were named


def import_thing(reference: str) -> Any:
    """Import ``package.module:Thing`` or ``path/to/file.py:Thing``; the working directory is searched too.

    A file sees its neighbours, as a script does, and of a package it is a part, so that its relative imports work.

    Raises:
        UserError: when the module or the thing in it cannot be found, and for a file that ends the program.
    """
    where, _, what = reference.partition(":")
    if not where or not what or where.startswith("."):
        raise UserError(f"{reference!r}: package.module:name or file.py:name was expected")
    try:
        with same_working_directory():
            module = _from_file(where, reference) if where.endswith(".py") else _from_path(where, reference)
    except SyntaxError as error:
        if error.filename is not None:
            raise
        raise UserError(f"{reference!r}: {where} is no Python: {error.msg}") from None  # binary, with NUL in it
    except SystemExit:
        raise UserError(
            f"{reference!r} ends the program as it is imported: put what it runs under if __name__ == '__main__':"
        ) from None
    try:
        thing = getattr(module, what)
    except AttributeError:
        names = [n for n in vars(module) if not n.startswith("_")]
        raise UserError(f"{reference!r}: {where} has no {what!r}; {nearest(what, names)}") from None
    if inspect.iscoroutinefunction(thing):
        raise UserError(f"{reference!r} is an async function: a plain one was expected")
    return thing


def absolute(reference: str) -> str:
    """A reference that means the same in every working directory, once it was imported; anything else as it is."""
    where, sign, what = reference.partition(":")
    if sign and where.endswith(".py"):
        return f"{_found(where) or where}:{what}"
    module = sys.modules.get(where) if sign else None
    file = getattr(module, "__file__", None)
    return f"{Path(file).resolve()}:{what}" if file and is_users(file) and not _is_installed(Path(file)) else reference


def short(reference: str) -> str:
    """A reference without the folder of its file, for people."""
    where, sign, what = reference.partition(":")
    return f"{Path(where).name}{sign}{what}" if where.endswith(".py") else reference


def place_of(thing: Any) -> str:
    """Where a class or function can be imported from: its module, or the file that the user named."""
    where = str(thing.__module__)
    file = next((file for file, module in _files.items() if module.__name__ == where), None)
    return where if file is None else str(file)


def is_users(filename: str) -> bool:
    """Whether this is a file of the user's: outside of this package and what is installed, or in what was named."""
    path = Path(filename)
    if not path.is_file():  # "<frozen importlib>", "<string>"
        return False
    path = path.resolve()
    return not path.is_relative_to(_PACKAGE) and (not _is_installed(path) or any(map(path.is_relative_to, _installed)))


def users_modules() -> list[ModuleType]:
    """The modules that were imported from files of the user's."""
    modules = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    return [module for module in modules if (file := getattr(module, "__file__", None)) and is_users(file)]


def remember_installed(module: ModuleType) -> None:
    """What an installed module of the user's raises is theirs, too."""
    root = module.__name__.partition(".")[0]
    file = getattr(sys.modules.get(root), "__file__", None)
    if root in sys.stdlib_module_names:
        return
    if file is not None and not Path(file).resolve().is_relative_to(_PACKAGE):
        path = Path(file).resolve()
        _installed.add(path.parent if path.stem == "__init__" else path)


def _is_installed(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in _INSTALLED)


def _from_path(where: str, reference: str) -> ModuleType:
    _search(Path.cwd())
    try:
        module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not where.startswith(error.name):
            raise
        raise UserError(f"{reference!r}: there is no module {error.name!r} on the path or in {Path.cwd()}") from None
    remember_installed(module)
    return module


def _from_file(where: str, reference: str) -> ModuleType:
    file = _found(where)
    if file is None:
        place = "" if Path(where).is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"{reference!r}: there is no file {where}{place}")
    if file not in _files:
        root, name = _place_in_package(file)
        with _apart_from_others(root):
            _search(root)
            _files[file] = _imported(file, name)
    return _files[file]


def _imported(file: Path, name: str | None) -> ModuleType:
    if name is not None:
        module = importlib.import_module(name)
        if Path(module.__file__ or "").resolve() != file:
            raise UserError(f"{file} would be imported as {name}, which is {module.__file__}: rename its folder")
        return module
    name = f"buttress_user_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _found(where: str) -> Path | None:
    """The file; where it is gone from the place that a run recorded, its like below the working directory."""
    path = Path(where)
    if path.is_file():
        return path.resolve()
    tails = [Path(*path.parts[k:]) for k in range(1, len(path.parts))] if path.is_absolute() else []
    instead = next((tail.resolve() for tail in tails if tail.is_file()), None)
    if instead is not None and where not in _told:
        _told.add(where)
        log.warning("%s is gone; %s is used", where, instead)
    return instead


def _place_in_package(file: Path) -> tuple[Path, str | None]:
    """The folder to search and the name of a file's module in its package; None where it is in none.

    A package is what has an ``__init__.py``, and where the file's relative imports say so.
    """
    try:
        tree = ast.walk(ast.parse(file.read_bytes()))
        levels = max((node.level for node in tree if isinstance(node, ast.ImportFrom)), default=0)
    except (SyntaxError, ValueError):  # told when it is imported
        levels = 0
    names, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file() or len(names) <= levels:
        if not folder.name.isidentifier():
            return file.parent, None
        names.insert(0, folder.name)
        folder = folder.parent
    return (folder, ".".join(names)) if len(names) > 1 else (folder, None)


@contextmanager
def same_working_directory() -> Iterator[None]:
    """Code of the user's may go elsewhere; relative paths of the job, that of its output above all, stay true."""
    before = Path.cwd()
    try:
        yield
    finally:
        os.chdir(before)


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    _folders.add(folder)


@contextmanager
def _apart_from_others(folder: Path) -> Iterator[None]:
    """Modules of other folders under names that this folder has as well are not taken for its own.

    Raises:
        UserError: where both are imported, since there can be one module of a name only.
    """
    own = {path.stem if path.suffix == ".py" else path.name for path in folder.iterdir()}
    others = {
        name: module
        for name, module in list(sys.modules.items())
        if (top := name.partition(".")[0]) in own
        and (file := getattr(sys.modules.get(top), "__file__", None))
        and not Path(file).resolve().is_relative_to(folder)
        and any(Path(file).resolve().is_relative_to(other) for other in _folders)
    }
    for name in others:
        del sys.modules[name]
    try:
        yield
        both = [name for name in others if name in sys.modules]
    finally:
        sys.modules.update(others)
    if both:
        raise UserError(
            f"{others[both[0]].__file__} and its like in {folder} are both imported as {both[0]!r}: rename one of them"
        )
