"""Write the stubs of the role packages, so that editors and type checkers know members that are found by name.

    python scripts/write_stubs.py

`attacks.PGD` is found at run time by discovery; for a checker each role's ``__init__.pyi`` says the same. The files are
made from the registry and never edited by hand; `make test` runs this first.
"""

import ast
import inspect
from pathlib import Path

from buttress import registry

SOURCE = Path(__file__).parent.parent / "src"


def stub(role: registry.Registry) -> str:
    """The text of a role's stub: what its ``__init__.py`` exports, and every registered class."""
    package = SOURCE / role.package.replace(".", "/") / "__init__.py"
    tree = ast.parse(package.read_text())
    lines = [f'"""Made by scripts/write_stubs.py from the registry: the {role.role}s."""', ""]
    wanted = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not any(alias.name == "Any" for alias in node.names):
            wanted += [(node.module, alias.name) for alias in node.names if not (alias.asname or "").startswith("_")]
    members = [role.get(name) for name in role.names()]
    wanted += [
        (m.__module__, m.__name__) for m in members if inspect.isclass(m) and m.__module__.startswith("buttress.")
    ]
    lines += [f"from {module} import {name} as {name}" for module, name in sorted(set(wanted))]
    lines += ["", "def names() -> list[str]: ...", ""]
    return "\n".join(lines)


def main() -> None:
    """Write the stubs whose text has changed."""
    for role in (registry.attack, registry.defence, registry.audit, registry.monitor):
        path = SOURCE / role.package.replace(".", "/") / "__init__.pyi"
        text = stub(role)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    main()
