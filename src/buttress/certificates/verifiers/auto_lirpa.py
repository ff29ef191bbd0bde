"""auto_LiRPA, where a user has it installed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.errors import UserError, one_line
from buttress.registry import verifier
from buttress.tensor_forms import copied_network
from buttress.validation import one_of, positive, whole

_NORMS = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}
_BOUNDS = ("IBP", "CROWN-IBP", "CROWN", "CROWN-Optimized", "Forward", "Forward+Backward")


@verifier("auto-lirpa")
@dataclass(frozen=True, kw_only=True)
class AutoLiRPA(Verifier):
    """Bounds by auto_LiRPA (Xu et al., NeurIPS 2020), of a copy of the network, to hold ours against.

    It is installed by the user, in an environment with a torch that it takes; the network is traced by auto_LiRPA
    itself, so that its layers are those that may be in it. In linf the box counts. In l2 and l1 auto_LiRPA knows none:
    there its bounds hold for the whole ball and may be lower than ours. A bound above the margin at the input itself,
    which no right one can be, is refused.

    Args:
        bounds: auto_LiRPA's own name of the method; CROWN-Optimized is alpha-CROWN.
        steps: of CROWN-Optimized.
        lr: its learning rate.
    """

    bounds: str = "CROWN"
    steps: int = 20
    lr: float = 0.1

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        one_of("bounds", self.bounds, _BOUNDS)
        whole("steps", self.steps)
        positive("lr", self.lr)

    def bound(self, problem: Problem) -> Answer:
        """Bounds of the margins, of inputs with the same budget at once.

        Raises:
            UserError: where auto_LiRPA is missing, cannot bound the network, or gives what is no bound.
        """
        lirpa = _library("auto_LiRPA")
        perturbations = _library("auto_LiRPA.perturbations")
        try:
            network = lirpa.BoundedModule(
                copied_network(problem.model), torch.empty_like(problem.x[:1]), device=problem.x.device
            )
            settings = {"iteration": self.steps, "lr_alpha": self.lr}
            network.set_bound_opts({"optimize_bound_args": settings})
            margins = self._margins(lirpa, perturbations, network, problem)
        except UserError:
            raise
        except Exception as error:  # it runs code of many kinds on the network, which may fail there in any way
            raise UserError(f"auto_LiRPA cannot bound this network: {one_line(error)}; use method='crown'") from error
        _check(margins, problem)
        return Answer(margins)

    def _margins(self, lirpa: Any, perturbations: Any, network: Any, problem: Problem) -> Tensor:
        """(K - 1, N) in the order of the problem's."""
        region = problem.region
        linf = region.threat.norm == "linf"
        count, classes = problem.logits.shape
        budgets = problem.x.new_zeros(count) if linf else region.budgets  # in linf the ends of the box say all
        lower = problem.logits.new_zeros(classes - 1, count)
        rows = _rows(problem)
        for budget in sorted(set(budgets.tolist())):
            places = (budgets == budget).nonzero().squeeze(1)
            box = {"x_L": region.low[places], "x_U": region.high[places]} if linf else {}
            around = perturbations.PerturbationLpNorm(norm=_NORMS[region.threat.norm], eps=budget, **box)
            x = lirpa.BoundedTensor(problem.x[places], around)
            with torch.enable_grad():  # CROWN-Optimized follows gradients
                found = network.compute_bounds(x=(x,), C=rows[places], method=self.bounds, bound_upper=False)[0]
            lower[:, places] = found.detach().to(lower.dtype).T
        return lower


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"method 'auto-lirpa' needs auto_LiRPA, which cannot be imported ({one_line(error)}): install it from "
            "its repository, in an environment with a torch that it takes (at least 2.0, below 2.9), or use "
            "method='crown'"
        ) from error


def _rows(problem: Problem) -> Tensor:
    """(N, K - 1, K) the true class less each other one, in the order of the classes."""
    count, classes = problem.logits.shape
    identity = torch.eye(classes, dtype=problem.x.dtype, device=problem.x.device)
    apart = identity[problem.y.long()][:, None] - identity
    others = torch.arange(classes, device=problem.y.device) != problem.y[:, None]
    return apart[others].view(count, classes - 1, classes)


def _check(margins: Tensor, problem: Problem) -> None:
    """Refuse lower bounds that are above what they bound, or no numbers."""
    at_inputs = torch.einsum("nsk,nk->sn", _rows(problem), problem.logits)
    if not bool((margins <= at_inputs + 10 * problem.rounding).all()):
        raise UserError(
            "auto_LiRPA gives lower bounds above the margins of the inputs themselves: it has read another network "
            "than this one; use method='crown'"
        )
