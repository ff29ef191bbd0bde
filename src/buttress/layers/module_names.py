"""The names of the modules that run, where one module is a part of several."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from buttress.layers.running import RunningModule
from buttress.layers.select import followed_modules


class ModuleNames:
    """What modules are called: by their place in the module that runs, and else by their first in the network.

    Attributes:
        paths: module -> its first name, of the modules followed.
    """

    def __init__(self, root: nn.Module) -> None:
        self.paths = followed_modules(root)
        self._shared = _shared(root)
        self._inside: dict[nn.Module, dict[nn.Module, str]] = {}  # of a module that runs, by name in it

    def of(self, module: nn.Module, running: Sequence[RunningModule]) -> str:
        """The name of a module called while these run, outermost first.

        A module that lies in two has two names: which of them it is called by does not depend on whether the other
        runs.
        """
        if module in self._shared:
            for above in reversed(running):
                if above.module not in self._inside:
                    self._inside[above.module] = {part: path for path, part in above.module.named_modules()}
                path = self._inside[above.module].get(module)
                if path is not None:
                    return ".".join(part for part in (*above.path.split("."), *path.split(".")) if _is_own(part))
        return self.paths[module]


def _is_own(part: str) -> bool:
    return part not in ("", "_orig_mod")


def _shared(root: nn.Module) -> frozenset[nn.Module]:
    """The modules that lie in several others, and all that is inside of them."""
    holders: dict[nn.Module, set[nn.Module]] = {}
    for holder in root.modules():
        for part in holder._modules.values():
            if part is not None:
                holders.setdefault(part, set()).add(holder)
    several = [module for module, found in holders.items() if len(found) > 1]
    return frozenset(part for module in several for part in module.modules())
