"""How smoothly the weights follow depth: their change from one step, or one layer, to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from torch import Tensor, nn

from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work
from buttress.models.architectures.snode import SNODE
from buttress.registry import audit


@audit("roughness")
@dataclass(frozen=True, kw_only=True)
class Roughness(Audit):
    """The sum over depth of the squared change of the weights from one step to the next.

    Of a network of the model ``snode`` it is that of W(t) over its steps (Jaroudi et al., arXiv 2205.13933: Sobolev
    gradients keep it small); of another one that of the kernels of neighbouring convolutions or linear layers of one
    shape, which means something where the layers are residual and nothing else. Relative: over the squared size
    of the weights, the mean of each two neighbours. Figures compare networks of one architecture; no input is needed.
    """

    topic: ClassVar[Topic] = "What happens inside"
    needs_classes = False

    def work(self, subject: Subject) -> Work:
        """No pass: the weights alone are read."""
        return Work()

    def ask(self, subject: Subject) -> Finding:
        """Add up the changes; 0 where no two neighbours have one shape."""
        pairs = [pair for stack in _stacks(subject.model) for pair in pairwise(stack) if pair[0].shape == pair[1].shape]
        changed = sum((b.double() - a.double()).square().sum().item() for a, b in pairs)
        size = sum((a.double().square().sum() + b.double().square().sum()).item() / 2 for a, b in pairs)
        data: dict[str, Any] = {"pairs": len(pairs), "roughness": float(changed)}
        data["relative"] = changed / size if size else 0.0
        verdict = (
            f"Over {len(pairs)} steps of depth the squared changes of the weights add up to {changed:.3g}, "
            f"{data['relative']:.3g} times their squared size."
        )
        if not pairs:
            verdict = "No two neighbouring layers have kernels of one shape."
        return Finding("roughness", "Roughness along depth", verdict, "info", data)


def _stacks(model: nn.Module) -> list[Sequence[Tensor]]:
    """W(t) of each standalone neural ODE, and the kernels of all layers in order."""
    modules = list(model.modules())
    kernels = [m.weight.detach() for m in modules if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
    return [*(m.weight.detach().unbind() for m in modules if isinstance(m, SNODE)), kernels]
