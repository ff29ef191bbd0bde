"""Model A of the LSA paper: a small multilayer perceptron for two-dimensional data."""

from __future__ import annotations

from torch import Tensor, nn

from buttress.registry import model
from buttress.validation import whole


class LSAA(nn.Module):
    """Linear ELU Linear ELU Linear ELU Linear, with one logit z that is read as the two logits (0, z).

    Khalooei et al., arXiv 2202.02626, model A ("MLP, Moon").
    """

    def __init__(self, features: int, width: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, width)
        self.elu1 = nn.ELU()
        self.fc2 = nn.Linear(width, width)
        self.elu2 = nn.ELU()
        self.fc3 = nn.Linear(width, width)
        self.elu3 = nn.ELU()
        self.fc4 = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of inputs (N, features)."""
        h = self.elu1(self.fc1(x.flatten(1)))
        h = self.elu2(self.fc2(h))
        logits: Tensor = self.fc4(self.elu3(self.fc3(h)))
        return logits


@model("lsa-a")
def lsa_a(*, features: int = 2, width: int = 100, classes: int = 1) -> nn.Module:
    """Model A of the LSA paper, an MLP for Moon.

    Args:
        features: numbers per input.
        width: units of each of the three hidden layers.
        classes: outputs; 1 is the paper's binary model with one logit z, read as the two logits (0, z).
    """
    return LSAA(whole("features", features, 1), whole("width", width, 1), whole("classes", classes, 1))
