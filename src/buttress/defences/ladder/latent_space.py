"""Fitting a latent space of a classifier: which layer is read, the decoder, and the directions between classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.attacks.unrestricted.latent_step import LatentSpace
from buttress.data.dataset import Split
from buttress.defences.base.memory import Rows
from buttress.defences.base.pretraining import descend
from buttress.defences.ladder.directions import Direction, fit_directions
from buttress.defences.ladder.support_vector_machines import SVMSettings
from buttress.engine.input_dtype import suited
from buttress.errors import UserError
from buttress.layers.capture import layer_names
from buttress.layers.rows import Layout, layout_of
from buttress.layers.select import user_module
from buttress.model_call import call_model
from buttress.models.blocks.decoder import Decoder
from buttress.random import derive, generator, own_draws
from buttress.tensor_forms import copied_network

_INPUT = ":input"


class Encoder(nn.Module):
    """A frozen copy of a network up to one layer.

    Args:
        model: the network; copied.
        layer: name of a module whose output is the latent vector, or with ":input" at its end, whose input is.

    Raises:
        UserError: when the network has no such module.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        self.model, self.layer = copied_network(model), layer
        self._layout: Layout | None = None
        name = layer.removesuffix(_INPUT)
        modules = dict(user_module(self.model).named_modules(remove_duplicate=False))
        if not name or name not in modules:
            names = ", ".join(list(modules)[1:13])
            raise UserError(f"the latent layer must be a module of the network, such as {names}; got {layer!r}")
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, d) flattened values of the layer, in float32 at least; a module that runs several times gives its last.

        Raises:
            UserError: when the layer does not run, gives no tensor, or one without a part for each input.
        """
        if self._layout is None:
            with torch.no_grad():
                self._layout = layout_of(self._value, x, f"the latent layer {self.layer!r}")
        value = self._layout.to_rows(self._value(x), len(x)).flatten(1)
        return value.to(torch.promote_types(value.dtype, torch.float32))

    def _value(self, x: Tensor) -> Tensor:
        """The layer's value as the network has it."""
        outputs: list[Any] = []
        part = user_module(self.model).get_submodule(self.layer.removesuffix(_INPUT))
        if self.layer.endswith(_INPUT):
            handle = part.register_forward_pre_hook(lambda module, args: outputs.extend(map(_kept, args[:1])))
        else:
            handle = part.register_forward_hook(lambda module, args, output: outputs.append(_kept(output)))
        try:
            call_model(self.model, x)
        finally:
            handle.remove()
        if not outputs or not isinstance(outputs[-1], Tensor):
            raise UserError(f"layer {self.layer!r} gives no tensor in a pass of the network: name another one")
        value: Tensor = outputs[-1]
        return value

    def get_extra_state(self) -> dict[str, str]:
        """The layer, which is part of what the encoder is."""
        return {"layer": self.layer}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """The layer, from a state."""
        self.layer = state["layer"]


def _kept(value: Any) -> Any:
    """A tensor as a copy: what comes after the layer may write over it, as an in-place ReLU does."""
    return value.clone() if isinstance(value, Tensor) else value


def latent_layer(model: nn.Module, x: Tensor) -> str:
    """The layer before the last linear one: its values before the activation where a linear layer makes them.

    That is the paper's for MNIST (the output of the linear layer before the last) and for residual networks (the pooled
    features, which are the last linear layer's input).

    Args:
        model: the network.
        x: (N, ...) inputs that it can read.

    Raises:
        UserError: when the network has no linear layer.
    """
    modules = dict(user_module(model).named_modules(remove_duplicate=False))
    names = [name.split("#")[0] for name in layer_names(model, x, "learnable")]
    names = [name for name in names if name in modules]
    last = max((i for i, name in enumerate(names) if isinstance(modules[name], nn.Linear)), default=None)
    if last is None:
        raise UserError("the network has no linear layer whose input could be its latent vector: name a layer")
    head, before = modules[names[last]], modules[names[last - 1]] if last else None
    if isinstance(before, nn.Linear) and isinstance(head, nn.Linear) and before.out_features == head.in_features:
        return names[last - 1]
    return names[last] + _INPUT


@dataclass(frozen=True)
class Fitted:
    """A latent space and how well it fits.

    Attributes:
        space: what moves inputs.
        mse: mean square error of the decoder on what it was fitted on, over its last epoch; None without any epoch.
        accuracy: of the machines on vectors held out; None where the directions have no machine.
    """

    space: LatentSpace
    mse: float | None
    accuracy: float | None


def encoded(encoder: nn.Module, split: Split) -> Tensor:
    """(N, d) latent vectors of a split, on the CPU."""
    with torch.no_grad():
        return torch.cat([encoder(suited(encoder, x)).cpu() for x, _ in split])


def fit_decoder(
    encoder: nn.Module,
    split: Split,
    *,
    epochs: int,
    seed: int,
    width: int = 32,
    lr: float = 1e-3,
    batch_size: int = 256,
    box: tuple[float, float] | None = (0.0, 1.0),
) -> tuple[Decoder, float | None]:
    """A decoder of a frozen encoder: mean square error by Adam (stage 2). The same seed gives the same bits.

    Cost: one pass of the encoder over the split, and ``epochs`` times a forward and a backward pass of the decoder.

    Args:
        encoder: (N, ...) inputs -> (N, d) vectors; on the device that the decoder shall be on.
        split: the inputs.
        epochs: passes over them.
        seed: of the weights and the order.
        width: see `Decoder`.
        lr: Adam's learning rate.
        batch_size: inputs per step.
        box: range of the inputs, or None.

    Returns:
        The decoder, frozen, and the mean square error over the last epoch.
    """
    like = suited(encoder, split.take(torch.arange(1))[0])
    z, rows = encoded(encoder, split), Rows(split)
    with own_draws(derive(seed, "decoder"), {like.device}):
        decoder = Decoder(z.shape[1], split.x.shape[1:], width, box).to(like)

        def objective(x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
            latent = z[rows(ids.cpu())].to(like)
            return F.mse_loss(decoder(latent), x.to(like))

        history = descend(
            decoder.parameters(),
            objective,
            split,
            epochs=epochs,
            seed=derive(seed, "decoding"),
            batch_size=batch_size,
            lr=lr,
            device=like.device,
        )
    return decoder.eval().requires_grad_(False), history[-1] if history else None


def fit_space(
    model: nn.Module,
    split: Split,
    classes: int,
    *,
    seed: int = 0,
    layer: str | None = None,
    direction: Direction = "attention",
    svm: SVMSettings = SVMSettings(),
    normalize: bool = False,
    per_class: int = 200,
    decoder_epochs: int = 100,
    decoder_width: int = 32,
    box: tuple[float, float] | None = (0.0, 1.0),
) -> Fitted:
    """Stages 2 and 3 of LADDER: a decoder of the network's latent layer and directions between its classes.

    The network is copied and left as it is. Deterministic in the seed.

    Args:
        model: the classifier.
        split: what decoder and directions are fitted on.
        classes: how many classes there are, 2 or more.
        seed: of all draws.
        layer: the latent layer, see `Encoder`; `latent_layer` finds one unless given.
        direction: see `fit_directions`.
        svm: of the attention machines.
        normalize: whether directions are scaled to length 1.
        per_class: latent vectors of each class that the directions learn from, at most.
        decoder_epochs: passes over the split.
        decoder_width: see `Decoder`.
        box: range of the inputs, or None.

    Raises:
        UserError: for fewer than 2 classes, a layer that is none, a class with fewer than 2 inputs.
    """
    if classes < 2:
        raise UserError(f"directions between classes need 2 or more of them; got {classes}")
    like = suited(model, split.take(torch.arange(1))[0])
    name = layer if layer is not None else latent_layer(model, like)
    encoder = Encoder(model, name)
    decoder, mse = fit_decoder(encoder, split, epochs=decoder_epochs, seed=seed, width=decoder_width, box=box)
    sample = split.subset(some_of_each(split.y, classes, per_class, derive(seed, "latents")))
    settings: dict[str, Any] = {"seed": derive(seed, "directions"), "svm": svm, "normalize": normalize}
    directions, accuracy = fit_directions(
        direction, encoded(encoder, sample).to(like.device), sample.y, classes, **settings
    )
    space = LatentSpace(encoder, decoder, directions, classes).to(like.device)
    return Fitted(space, mse, accuracy)


def some_of_each(y: Tensor, classes: int, count: int | None, seed: int) -> Tensor:
    """Positions of at most ``count`` inputs of each class, all of them for None; drawn, and in the order they had."""
    parts = []
    for label in range(classes):
        rows = (y == label).nonzero().squeeze(1)
        order = torch.randperm(len(rows), generator=generator(seed, "some", label))
        parts.append(rows[order[: len(rows) if count is None else count]])
    return torch.cat(parts).sort().values
