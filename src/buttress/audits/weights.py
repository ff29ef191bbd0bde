"""Distribution of the weights: a few large ones among many close to 0, or all of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work
from buttress.defences.cost_sensitive.cse import SMALL, min_max_figures
from buttress.registry import audit

_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


@audit("weights")
@dataclass(frozen=True, kw_only=True)
class Weights(Audit):
    """The min-max property of each convolution and linear layer (Shen, Chen, Wang and Wang, arXiv 2101.12372).

    Adversarial and cost-sensitive training are reported to push most weights towards 0 while a few grow. Four figures
    describe it: kurtosis; the L1 norm over sqrt(n) times the L2 norm; the share of weights below 0.01 in size; the
    largest size. They compare networks of one architecture and are no measure of robustness. No input is used.
    """

    topic: ClassVar[Topic] = "What happens inside"
    needs_classes = False

    def work(self, subject: Subject) -> Work:
        """No pass: the weights alone are read."""
        return Work()

    def ask(self, subject: Subject) -> Finding:
        """Figures of every layer that has a kernel, in the network's order."""
        layers: list[dict[str, Any]] = []
        for name, module in subject.model.named_modules():
            weight = getattr(module, "weight", None)
            if isinstance(module, _LAYERS) and isinstance(weight, Tensor) and weight.numel():
                row = {"layer": name or "network", "kind": type(module).__name__, "weights": weight.numel()}
                layers.append({**row, **min_max_figures(weight)})
        if not layers:
            return Finding("weights", "Weights", "The network has no convolution or linear layer.", "info", {})
        peak = max(layers, key=lambda row: row["kurtosis"] if row["kurtosis"] == row["kurtosis"] else -1.0)
        total = sum(row["weights"] for row in layers)
        small = sum(row["small"] * row["weights"] for row in layers) / total
        verdict = (
            f"{small:.0%} of {total:,} weights are below {SMALL:g} in size; kurtosis is highest in {peak['layer']}, "
            f"{peak['kurtosis']:.3g} (a normal distribution has 3)."
        )
        return Finding("weights", "Weights", verdict, "info", {"layers": layers, "small": small, "weights": total})
