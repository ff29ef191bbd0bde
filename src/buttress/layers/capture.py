"""Activations of any network, read (and replaced) while it runs: in true order, functional ones too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from buttress.ambient_state import in_usual_state
from buttress.engine.call_checks import check_tensor
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.network_code import NetworkCode
from buttress.layers.places import Place
from buttress.layers.select import LayerSelection, Seen, user_module
from buttress.layers.watcher import LayerCallback, watch
from buttress.model_call import call_model
from buttress.validation import switch


@contextmanager
def capture(
    model: nn.Module,
    layers: LayerSelection = "activations",
    *,
    replace: LayerCallback | None = None,
    edges: dict[str, GradientEdge] | None = None,
    places: dict[str, Place] | None = None,
    code: NetworkCode | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Read the selected layers of every pass made inside the context.

    Names are relative to the user's module (`Normalized`, `Output` and `FromProbabilities` are looked through). An
    activation module has its own name, an activation function called in module ``layer1.0`` is ``layer1.0.relu``, one
    called at the root ``relu``. Where the code calls the same from several places, the second of them gets ``#1``, the
    third ``#2``, whether the others run or not; so does the second run of a single place, in a loop. The second run of
    the first of several places is ``#0.1``, of the second ``#1.1``. What is inside of a module that is called from two
    places has their numbers behind its own, and a module that lies in two others the name that it has in the one that
    calls it. Of a module that returns several values, the first tensor counts.

    Args:
        model: the network; its parts called on their own, outside a pass of the whole, are not seen.
        layers: which layers; see `Selection`.
        replace: gets a selected layer's name and value, and returns what the network shall go on with. What was
            computed in place is replaced in place; with the outputs of a recurrent layer, its last states. Activation
            checkpointing that is not reentrant computes nothing again then, but keeps what it has computed.
        edges: gets, by name, where each value is in the graph: for the gradient of what the network makes of it, also
            where it has overwritten the value since. Values without a gradient have none.
        places: gets, when the context closes, where every layer of the last pass was called, selected or not, in the
            order of execution.
        code: what has been read of the network's code, for whoever looks at it again and again; read anew unless given.

    Yields:
        name -> value, in order of execution, differentiable; cleared when a pass begins, so it holds the last one. As
        long as the context is open, a value about to be overwritten in place is kept as a copy; where gradients are
        disabled, every value is.

    Raises:
        UserError: when ``model`` is no module, or a scripted or traced one, and for other arguments of the wrong kind.
    """
    if replace is not None and not callable(replace):
        raise UserError(f"replace must be a function of a layer's name and value; got {replace!r}")
    for name, filled in (("edges", edges), ("places", places)):
        if filled is not None and not isinstance(filled, dict):
            raise UserError(f"{name} must be a dict, which is filled; got {filled!r}")
    values: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> Tensor:
        value = value if replace is None else replace(name, value)
        # Without a graph a copy is kept, for the network may fill the same memory again in a later pass.
        values[name] = value if torch.is_grad_enabled() else value.clone()
        if edges is not None and value.requires_grad:
            edges[name] = get_gradient_edge(value)
        return value

    with watch(model, layers, keep, values=values, replaces=replace is not None, code=code) as watcher:
        yield values
    if places is not None:
        places |= watcher.places


@in_usual_state
def layer_names(
    model: nn.Module,
    x: Tensor,
    layers: LayerSelection = "activations",
    *,
    check: bool = True,
    code: NetworkCode | None = None,
) -> list[str]:
    """The names of the selected layers in order of execution, by one pass in eval mode that leaves no trace.

    Args:
        model: the network.
        x: (N, ...) inputs that it can read.
        layers: which layers; see `Selection`.
        check: whether to refuse a selection that matches nothing.
        code: what has been read of the network's code; see `capture`.

    Raises:
        UserError: when nothing matches, or one entry of a list does not, with the nearest names there are; and for
            arguments of the wrong kind.
    """
    user_module(model)
    check_tensor(x)
    switch("check", check)
    names: list[str] = []

    def note(name: str, value: Tensor) -> Tensor:
        names.append(name)
        return value

    with preserved(model, "eval", 0, x.device), torch.no_grad(), watch(model, layers, note, code=code) as watcher:
        call_model(model, x)
    if check:
        watcher.selection.check(names, lambda: Seen(watcher.all_names))
    return names
