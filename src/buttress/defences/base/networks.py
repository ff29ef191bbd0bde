"""Other networks that a method uses: made like the model with weights of their own, loaded, frozen."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from buttress.errors import UserError
from buttress.models import create, from_spec, load_weights, spec_of
from buttress.plain_data import read_json
from buttress.random import own_draws
from buttress.tensor_forms import copied_network


def new_network(model: nn.Module, seed: int) -> nn.Module:
    """A network of the model's architecture with weights of its own, on the same device.

    One that buttress created is created again; of another a copy is made, whose layers draw their weights again
    (``reset_parameters``), while weights that belong to no such layer stay as they are.

    Args:
        model: the pattern; left as it is.
        seed: of the weights; torch's global random state is left as it was.
    """
    like, spec = next(model.parameters(), torch.zeros(())), spec_of(model)
    if spec is not None:
        rest = {key: value for key, value in spec.items() if key not in ("name", "options")}
        return create(spec["name"], seed=seed, **rest, **spec["options"]).to(like)
    network = copied_network(model).cpu()
    with own_draws(seed):
        for module in network.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return network.to(like)


def load_network(network: str | Path | nn.Module) -> nn.Module:
    """A copy of a network, or the network of a finished run's folder.

    Raises:
        UserError: when the folder holds no trained network that buttress can make again.
    """
    if isinstance(network, nn.Module):
        return copied_network(network)
    try:
        spec = read_json((Path(network) / "model.json").read_text())["model"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{network} is no folder of a finished run: give one, or the module itself") from None
    if spec is None:
        raise UserError(f"the network in {network} was not made by models.create: give the module itself")
    model = from_spec(spec)
    load_weights(model, Path(network) / "model.safetensors")
    return model


def freeze(network: nn.Module) -> nn.Module:
    """The same network in eval mode, its weights out of reach of any gradient."""
    network.zero_grad()  # what training left behind
    return network.eval().requires_grad_(False)
