"""Multilayer perceptron of any depth."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from buttress.errors import UserError
from buttress.registry import model
from buttress.validation import one_of, whole

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}


class MLP(nn.Sequential):
    """Linear layers ``fc1``, ``fc2``, ... with activations ``act1``, ``act2``, ... between them.

    Takes inputs (N, features), or images with as many numbers each, and returns logits (N, classes).
    """

    def __init__(self, sizes: Sequence[int], activation: type[nn.Module]) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for k in range(1, len(sizes)):
            layers[f"fc{k}"] = nn.Linear(sizes[k - 1], sizes[k])
            if k + 1 < len(sizes):
                layers[f"act{k}"] = activation()
        super().__init__(layers)


@model("mlp")
def mlp(
    *, features: int = 2, hidden: Sequence[int] = (64, 64), classes: int = 2, activation: str = "relu"
) -> nn.Module:
    """A multilayer perceptron.

    Args:
        features: numbers per input; images are flattened.
        hidden: units of each hidden layer; none gives a linear classifier.
        classes: number of outputs: of classes, of labels, or of values; a single one is a logit or a value.
        activation: elu, gelu, leaky_relu, relu, sigmoid, silu, softplus or tanh.
    """
    one_of("activation", activation, ACTIVATIONS)
    if not isinstance(hidden, list | tuple):
        raise UserError(f"hidden must be a list of whole numbers; got {hidden!r}")
    units = [whole("hidden", units, 1) for units in hidden]
    sizes = [whole("features", features, 1), *units, whole("classes", classes, 1)]
    return MLP(sizes, ACTIVATIONS[activation])
