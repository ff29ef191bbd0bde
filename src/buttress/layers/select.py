"""Which layers are selected, and what they are called."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.models.wrapping.wrappers import inner
from buttress.registry import close_names

LayerSelection = str | Sequence[str] | Callable[[str, nn.Module | None], bool]

GROUPS = ("activations", "learnable")

# Functions whose result is an activation, by the name they have in every namespace of torch.
ACTIVATIONS = frozenset(
    (
        *("celu", "elu", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
        *("log_sigmoid", "mish", "prelu", "relu", "relu6", "rrelu", "selu", "sigmoid", "silu", "softplus"),
        *("softshrink", "softsign", "tanh", "tanhshrink", "threshold"),
    )
)


def user_module(model: object) -> nn.Module:
    """The network that layer names are relative to: that inside its wrappers, and of a compiled one the original.

    Raises:
        UserError: for what is no module, and for a scripted or traced one, whose layers do not run as Python.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"looking at layers needs a torch.nn.Module; got a {type(model).__name__}")
    network = inner(model)
    network = getattr(network, "_orig_mod", network)
    if is_opaque(network):
        raise UserError("layers of a scripted or traced network cannot be seen: pass the module it was made from")
    return network


def activation_kind(function: str) -> str | None:
    """Which activation a function of this name computes, in its plain spelling; None for any other function."""
    kind = function.strip("_").removeprefix("special_")
    kind = "sigmoid" if kind == "expit" else kind
    return kind if kind in ACTIVATIONS else None


def is_activation(module: nn.Module) -> bool:
    """Whether the module runs one of torch's own around a single activation function, which it is or derives from."""
    forward = getattr(type(module), "forward", None)
    return not isinstance(module, nn.MultiheadAttention) and (
        getattr(forward, "__module__", None) == "torch.nn.modules.activation"
    )


def is_learnable(module: nn.Module) -> bool:
    """Whether the module owns a weight of two or more dimensions, reparametrised ones included."""
    own = [*module._parameters.values()]
    for weight in getattr(module, "parametrizations", {}).values():
        own += weight._parameters.values()
    return any(isinstance(p, Tensor) and p.dim() >= 2 for p in own)


def is_opaque(module: nn.Module) -> bool:
    """Whether what is inside of the module cannot be seen, as it does not run as Python: scripted or traced."""
    return isinstance(module, torch.jit.ScriptModule)


def followed_modules(root: nn.Module) -> dict[nn.Module, str]:
    """Module -> name, of all whose calls can be seen.

    Not what computes a weight (torch.nn.utils.parametrize), which is no layer, nor what is inside of an opaque module.
    What `torch.compile` has wrapped has the name of its wrapper.
    """
    followed: dict[nn.Module, str] = {}
    hidden: list[str] = []
    for path, module in root.named_modules():
        if "parametrizations" in path.split(".") or hasattr(module, "_orig_mod") or path.startswith(tuple(hidden)):
            continue
        followed[module] = ".".join(part for part in path.split(".") if part != "_orig_mod")
        if is_opaque(module):
            hidden.append(f"{path}.")
    return followed


def hidden_parts(model: nn.Module) -> dict[str, str]:
    """What of a network cannot be seen, and why."""
    opaque = [path for module, path in followed_modules(user_module(model)).items() if is_opaque(module)]
    return {f"{path}.*": "is scripted or traced, and what is inside does not run as Python" for path in opaque}


def chooses_steps(module: nn.Module) -> bool:
    """Whether the module calls its parts as often as its input asks for, as a solver with adaptive steps does."""
    return getattr(module, "chooses_steps", False) is True


def merge(names: list[str], called: Iterable[str]) -> bool:
    """Put the names of a pass that are new where they belong in the order of execution; whether there are any."""
    known = set(names)
    called = list(called)
    if all(name in known for name in called):
        return False
    at = 0
    for name in called:
        if name not in known:
            names.insert(at, name)
        at = names.index(name) + 1
    return True


class Seen(NamedTuple):
    """What there is to select from.

    Attributes:
        names: of the layers of a pass.
        missed: what may be an activation and is not seen as one; see `Paths`.
    """

    names: Sequence[str]
    missed: Sequence[str] = ()


class Selection:
    """Decides for each layer whether it is selected.

    Args:
        layers: a group, which is "activations" (results of activation functions) or "learnable" (outputs of modules
            that own a weight of two or more dimensions); a name, or a glob over names; a list of any of these, for what
            one of them selects; or a callable (name, module or None) -> bool. Names, globs and callables choose among
            all module outputs and activation functions. The two groups have the output of a module that
            `chooses_steps`, such as an ODE block with an adaptive solver, in the place of what is inside of it, which
            runs at other times for another input.
        network: the module that names are relative to; in a list the name of one of its parts means that part, also
            where a group is called so.

    Raises:
        UserError: for what is none of these, and for an empty name.
    """

    def __init__(self, layers: LayerSelection, network: nn.Module | None = None) -> None:
        self.layers = layers
        several: list[str] = []
        if isinstance(layers, str):
            several = [layers]
        elif not callable(layers):
            if not isinstance(layers, Collection) or isinstance(layers, Mapping):
                raise UserError(f"layers must be a list of names or globs, one of them, or a callable; got {layers!r}")
            several = list(layers)
        for one in several:
            if not isinstance(one, str):
                raise UserError(f"layers must be names or globs; got {one!r}")
            if not one.strip():
                raise UserError(f"layers must be names or globs, or {_groups()}; got an empty name: {layers!r}")
        parts = () if network is None or isinstance(layers, str) else _running_parts(network)
        self.groups = [one for one in several if one in GROUPS and one not in parts]
        self.patterns = [one for one in several if one not in self.groups]
        # Asked of every layer in every pass.
        self._exact = frozenset(self.patterns)
        self._globs = [pattern for pattern in self.patterns if set(pattern) & set("*?[")]

    def wants(self, name: str, module: nn.Module | None, *, function: bool, learnable: bool, inside: bool) -> bool:
        """Whether to look at ``name``: a module's output, or the result of an activation function.

        Args:
            name: of the layer.
            module: the module; None for a function called outside of an activation module.
            function: whether it is the result of an activation function.
            learnable: whether it is the output of a module that owns a weight.
            inside: whether it runs in a module that `chooses_steps` or `is_opaque`.
        """
        if callable(self.layers):
            return bool(self.layers(name, module))
        if name in self._exact or any(fnmatchcase(name, glob) for glob in self._globs):
            return True
        if self.groups and (inside or (module is not None and (chooses_steps(module) or is_opaque(module)))):
            return not inside
        return (function and "activations" in self.groups) or (learnable and "learnable" in self.groups)

    def names(self, name: str) -> bool:
        """Whether this layer is named in full."""
        return name in self._exact

    def check(self, selected: Sequence[str], available: Callable[[], Seen], pending: Container[str] = ()) -> None:
        """Refuse a selection that matches nothing, or a list of which one entry matches nothing.

        Args:
            selected: the names of the selected layers.
            available: gives all there is.
            pending: names that may still come, as of modules that other inputs call.

        Raises:
            UserError: with the nearest names there are.
        """
        for pattern in self.patterns:
            if pattern not in pending and not any(name == pattern or fnmatchcase(name, pattern) for name in selected):
                raise UserError(f"no layer is called or matches {pattern!r}; {_nearest(pattern, available())}")
        if not selected and not any(pattern in pending for pattern in self.patterns):
            what = "the callable" if callable(self.layers) else repr(self.layers)
            raise UserError(f"layers: {what} selects none of the network's layers; {_nearest('', available())}")


def _running_parts(network: nn.Module) -> list[str]:
    """Names of the parts that are called, as a list of modules is not."""
    return [name for name, part in network.named_children() if not isinstance(part, nn.ModuleList | nn.ModuleDict)]


def _groups() -> str:
    return " or ".join(GROUPS)


def check_given(layers: LayerSelection) -> None:
    """Refuse what no network has a layer for.

    Raises:
        UserError: as `Selection`, and for an empty list.
    """
    selection = Selection(layers)
    if not (callable(layers) or selection.groups or selection.patterns):
        raise UserError(f"layers must be names or globs, or {_groups()}; got none")


def _nearest(pattern: str, seen: Seen) -> str:
    """The end of an error line: the nearest names, or the first few and the groups, and what is not seen."""
    if not seen.names:
        return "its pass calls no layer that can be seen (nothing can inside torch.func.vmap)"
    if close := close_names(pattern.strip("*"), (*seen.names, *GROUPS), most=3):
        return f"did you mean {' or '.join(map(repr, close))}?"
    if pattern:
        return f"there are {_some(seen.names)}; or a group: {_groups()}"
    missed = f"; not seen as layers: {_some(seen.missed)}" if seen.missed else ""
    return f"there are {_some(seen.names)}{missed}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
