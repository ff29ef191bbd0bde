"""All networks of this folder, by what they show."""

import importlib
from pathlib import Path

_MODULES = [
    importlib.import_module(f"{__package__}.{file.stem}") for file in sorted(Path(__file__).parent.glob("*.py"))
]
NETWORKS = {name: build for module in _MODULES for name, build in getattr(module, "NETWORKS", {}).items()}
