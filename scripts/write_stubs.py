"""Write the stubs of the role packages, so that editors and type checkers see members that are discovered by name.

    python scripts/write_stubs.py

`attacks.PGD` is looked up in the registry at run time; for a checker each role's ``__init__.pyi`` lists the same
classes. The stubs are not committed: every build (``setup.py``) and `make lint` write them from the decorators in the
sources, which are parsed and not imported, so that a build needs neither torch nor an installed package.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src"
ROLES = {
    "attack": "buttress.attacks",
    "defence": "buttress.defences",
    "audit": "buttress.audits",
    "monitor": "buttress.training.monitors",
}


def exports(package: Path) -> Iterator[tuple[str, str]]:
    """Module and name of what a package's ``__init__.py`` imports and does not rename to a private name."""
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("buttress."):
            yield from ((node.module, name.name) for name in node.names if not (name.asname or "").startswith("_"))


def registered(package: Path, role: str, source: Path) -> Iterator[tuple[str, str]]:
    """Module and name of every class below a package that has the decorator ``@role("name")``."""
    for file in sorted(package.rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(_registers(decorator, role) for decorator in node.decorator_list):
                yield ".".join(file.relative_to(source).with_suffix("").parts), node.name


def _registers(decorator: ast.expr, role: str) -> bool:
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == role


def stub(role: str, source: Path = SOURCE) -> str:
    """The text of a role's stub: what its ``__init__.py`` exports, and every registered class."""
    package = source / ROLES[role].replace(".", "/")
    imports = sorted({*exports(package), *registered(package, role, source)})
    lines = [f'"""Written by scripts/write_stubs.py: the registered {role}s."""', ""]
    lines += [f"from {module} import {name} as {name}" for module, name in imports]
    return "\n".join([*lines, "", "def names() -> list[str]: ...", ""])


def write_stubs(source: Path = SOURCE) -> None:
    """Write the stubs whose text has changed."""
    for role, package in ROLES.items():
        path = source / package.replace(".", "/") / "__init__.pyi"
        text = stub(role, source)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_stubs()
