"""Another value in a layer's place, and whether the rest of the network goes on with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from buttress.layers.network_code import NetworkCode
from buttress.layers.rows import Layout
from buttress.layers.tolerance_search import OutputFor, Rows
from buttress.layers.watcher import watch
from buttress.model_call import call_model
from buttress.random import generator
from buttress.tasks import Task

# What torch says of a gradient that is asked for beyond a replaced value.
_CUT_OFF = ("to not have been used in the graph", "does not require grad")
_UNCERTAIN = (
    "is not recognised when activation checkpointing computes it again, for it is called there outside of a module or "
    "several times: switch checkpointing off"
)


class CannotReplaceError(Exception):
    """Why a layer's value cannot be replaced, to follow the layer's name."""


@contextmanager
def gradients_of_its_own() -> Iterator[None]:
    """A pass with replaced values, of a network that may take gradients inside: these no longer reach what they are of.

    Raises:
        CannotReplaceError: where the network fails for that reason.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _CUT_OFF):
            raise
        reason = "is in a network that takes gradients of its own, which a replaced value cuts off from the input"
        raise CannotReplaceError(reason) from None


class Replacement:
    """Puts values in a layer's place.

    Args:
        model: the network.
        name: of the layer.
        layout: where the inputs are in its value; None for a layer that has a value only for one input alone.
        task: how to read the output.
        code: what has been read of the network's code.
    """

    def __init__(self, model: nn.Module, name: str, layout: Layout | None, task: Task, code: NetworkCode) -> None:
        self.model, self.name, self.layout, self.task, self.code = model, name, layout, task, code

    @contextmanager
    def of(self, x: Tensor) -> Iterator[OutputFor]:
        """The output as a function of the layer's value, (m, ...), for some of the inputs; everything before as it is.

        Gradients are to be taken while the context is open: what activation checkpointing computes again in the
        backward pass then has the same value in the layer's place.
        """
        value, called = x, False

        def put(_: str, before: Tensor) -> Tensor:
            nonlocal called
            called = True
            size = value.numel()
            if size != before.numel():
                raise CannotReplaceError("has another size in another pass")
            return value[0].clone() if self.layout is None else self.layout.in_place_of(before, value)

        with watch(self.model, [self.name], put, replaces=True, code=self.code) as watcher:

            def output_for(rows_value: Tensor, rows: Rows) -> Tensor:
                nonlocal value, called
                value, called = rows_value, False
                with gradients_of_its_own():
                    output = self.task.read(call_model(self.model, x[rows]))
                if not called:
                    raise CannotReplaceError("is not called in every pass")
                if self.name.partition("#")[0] in watcher.uncertain:
                    raise CannotReplaceError(_UNCERTAIN)
                return output

            yield output_for

    def reaches(self, output_for: OutputFor, clean: Tensor, perturbed: Tensor) -> bool:
        """Whether a gradient leads from the output to the layer's value.

        Args:
            output_for: of `of`.
            clean: (n, ...) the layer's value.
            perturbed: (n, ...) its value for perturbed inputs.

        Raises:
            CannotReplaceError: when the output moves neither with that nor with noise as large as the value.
        """
        noise = torch.randn(clean.shape, generator=generator(0, "reach"), dtype=clean.dtype).to(clean.device)
        size = clean.square().mean().sqrt()
        probe = (clean + noise * torch.where(size > 0, size, 1.0)).requires_grad_()
        everything = slice(None)
        with torch.enable_grad():
            output = output_for(probe, everything)
            gradient = None
            if output.requires_grad:
                weights = torch.randn(output.shape, generator=generator(0, "weights")).to(output)
                try:
                    (gradient,) = torch.autograd.grad((output * weights).sum(), probe, allow_unused=True)
                except RuntimeError as error:
                    if "checkpoint" not in str(error):
                        raise
                    raise CannotReplaceError(
                        "runs in a reentrant checkpoint: call it with use_reentrant=False"
                    ) from None
        if gradient is not None and bool(gradient.any()):
            return True
        with torch.no_grad():
            before = output_for(clean, everything)
            moved = not torch.equal(before, output) or not torch.equal(before, output_for(perturbed, everything))
        if not moved:
            raise CannotReplaceError("does not move the output: the network goes on without its value, or with a copy")
        return False
