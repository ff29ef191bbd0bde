"""Backward pass differentiable approximation: gradients for layers that give none, or useless ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from buttress.attacks.composed.eot import WrapperAttack
from buttress.attacks.gradient.pgd import PGD
from buttress.engine.attack import Attack
from buttress.engine.oracle import Oracle
from buttress.engine.runner import Runner
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack, nearest
from buttress.validation import name_list

StandIn = Callable[[Tensor], Tensor]


@attack("bpda")
@dataclass(frozen=True, kw_only=True)
class BPDA(WrapperAttack):
    """Another attack, with the gradients of some layers replaced (Athalye, Carlini and Wagner, ICML 2018).

    For layers that round, sort, look up or denoise. Forward passes are the model's own to the bit; backward, a layer
    passes on the gradient of its stand-in at the layer's input: unchanged (a straight-through layer), or that of
    ``backward``. Hooks do that, on the model only while the attack inside runs. A folded or bf16 copy of the model
    would not have them, so those precisions become fp32 and bf16.

    Cost per input: that of the attack inside, and what the stand-in costs.

    Args:
        attack: what asks the questions; its threat is this one's.
        layers: names of submodules of the attacked model, as in ``named_modules()``. Without them it is the attack
            inside, for ablations in Python; jobs ask for them.
        backward: a differentiable function (or module) of a layer's first argument, of the shape of the layer's
            output; the identity unless given.
    """

    attack: Attack = PGD()
    layers: Sequence[str] | str | None = None
    backward: StandIn | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        names = None if self.layers is None else name_list("layers", self.layers)  # "" would be the model itself
        if names == ():
            raise UserError("layers, whose gradients bpda replaces, must be names of one submodule at least; got none")
        if self.backward is not None and not callable(self.backward):
            raise UserError(f"backward must be a function of a layer's input; got {self.backward!r}")
        object.__setattr__(self, "layers", names)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What the attack inside finds."""
        ours = oracle.runner
        layers = [_layer(ours.model, name) for name in self.layers or ()]
        with ExitStack() as stack:
            for name, layer in layers:
                stack.enter_context(_replaced(name, layer, self.backward))
            # Passes of their own: a copy of the model that was made before has no hooks.
            oracle.runner = Runner(
                ours.model, oracle.task, ours.precision, ours.batch_size, ours.draws, exact=ours.exact
            )
            try:
                return self.attack.points(oracle, x, y, random)
            finally:
                ours.precision = oracle.runner.precision
                oracle.runner = ours


class _Straight(torch.autograd.Function):
    """The value of one tensor with the gradient of another."""

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, value: Tensor) -> Tensor:
        """The value."""
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """All of the gradient goes to the stand-in."""
        return grads[0], None


@contextmanager
def _replaced(name: str, layer: nn.Module, backward: StandIn | None) -> Iterator[None]:
    """Let the layer's gradient be its stand-in's, as long as the context lasts."""
    inputs: list[Tensor] = []  # of the calls under way

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not args or not isinstance(args[0], Tensor):
            raise UserError(f"BPDA needs layers whose first argument is a tensor; that of {name!r} is not")
        inputs.append(args[0])
        return (args[0].clone(), *args[1:])  # a layer that works in place would change what the stand-in gets

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
        if not isinstance(output, Tensor):
            raise UserError(f"BPDA needs layers that return a tensor; {name!r} returned a {type(output).__name__}")
        given = inputs.pop()
        if not given.requires_grad:  # nobody will ask for a gradient
            return None
        with torch.enable_grad():  # the model may call the layer without
            stand_in = given if backward is None else backward(given)
            if stand_in.shape != output.shape:
                shapes = f"{tuple(stand_in.shape)}, the layer's output {tuple(output.shape)}"
                raise UserError(
                    f"the stand-in for layer {name!r} has shape {shapes}: give a backward that has the same"
                )
            straight: Tensor = cast(Any, _Straight).apply(stand_in.to(output.dtype), output.detach())
        return straight

    with ExitStack() as stack:
        stack.callback(layer.register_forward_pre_hook(before).remove)
        stack.callback(layer.register_forward_hook(after).remove)
        yield


def _layer(model: object, name: str) -> tuple[str, nn.Module]:
    if not isinstance(model, nn.Module):
        raise UserError(f"BPDA replaces layers of a torch module; the model is a {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("BPDA hooks layers, and a scripted module takes no hooks: attack the module it was made from")
    known = dict(model.named_modules())
    if name not in known:
        raise UserError(f"the model has no layer {name!r}; {nearest(name, [n for n in known if n])}")
    return name, known[name]
