"""Certifying inputs: a verifier's bounds, and what follows from them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.certificates.certificate import Certificate
from buttress.certificates.network.agreement import compare
from buttress.certificates.network.graph import Graph
from buttress.certificates.network.recording import record
from buttress.certificates.smoothing.within import SMOOTHING, certify_smoothed
from buttress.certificates.verifier import Answer, Problem, Verifier
from buttress.engine.call_checks import check_inputs
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.models import forward_checked
from buttress.near_names import nearest
from buttress.registry import verifier as registered_verifiers
from buttress.tasks import Task
from buttress.threat import Threat
from buttress.threat.row_threat import RowThreat
from buttress.validation import whole

_BATCH = 32


def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat = Threat(),
    method: str | Verifier = "crown",
    task: Task = tasks.classification,
    batch_size: int = _BATCH,
    seed: int = 0,
    ids: Tensor | None = None,
    **settings: Any,
) -> Certificate:
    """Show of each input that no allowed perturbation makes the network wrong, or that one does.

    Bounds are computed in the precision of the inputs. They are rounded as any sum of floating-point numbers is, for
    which the margin is lowered by 1e-5 of the largest logit; they are no formal proofs about floating-point arithmetic.

    Args:
        model: the network; it comes back as it was.
        x: (N, ...) inputs in the threat's box.
        y: (N,) their classes.
        threat: what is allowed.
        method: a verifier's name (see `names`), or a verifier; "smoothing" for a statement about the network under
            noise, see `certify_smoothed`.
        task: what the output is for; it must have classes.
        batch_size: inputs that are bounded at once; of smoothing noisy inputs.
        seed: of a verifier that draws.
        ids: (N,) what identifies each input, for draws; the inputs' places unless given.
        **settings: of the verifier that ``method`` names.

    Raises:
        UserError: for a network with a layer that cannot be bounded, naming it, or that computes with the batch or
            at random; for settings and inputs that do not fit.
    """
    whole("batch_size", batch_size)
    if method == SMOOTHING:
        return certify_smoothed(model, x, y, threat, settings, task=task, batch_size=batch_size, seed=seed, ids=ids)
    verifier = _verifier(method, settings)
    run = _Run(model, x, y, threat, task, batch_size, seed, ids)
    return run.certified(verifier)


def radius(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat = Threat(),
    method: str | Verifier = "crown",
    steps: int = 10,
    task: Task = tasks.classification,
    batch_size: int = _BATCH,
    seed: int = 0,
    ids: Tensor | None = None,
    **settings: Any,
) -> Tensor:
    """(N,) the largest eps that each input was verified for, by bisection between 0 and the threat's.

    Args:
        model: as in `certify`; so are all that are not named here.
        x: inputs.
        y: their classes.
        threat: its norm and box, and as its eps the largest that is tried.
        method: a verifier, or its name.
        steps: halvings: what comes is at most the threat's eps / 2^steps below the largest that could be verified.
        task: what the output is for.
        batch_size: inputs that are bounded at once.
        seed: of a verifier that draws.
        ids: what identifies each input.
        **settings: of the verifier that ``method`` names.

    Returns:
        Verified radii; 0 for an input that is misclassified, or verified for none of the eps tried.
    """
    whole("steps", steps)
    whole("batch_size", batch_size)
    if method == SMOOTHING:  # whose radius comes at once
        here = replace(threat, eps=0.0)
        found = certify_smoothed(model, x, y, here, settings, task=task, batch_size=batch_size, seed=seed, ids=ids)
        return found.margin.clamp(0, threat.eps)
    verifier = _verifier(method, settings)
    run = _Run(model, x, y, threat, task, batch_size, seed, ids)
    verified = run.certified(verifier).verified
    low, high = torch.zeros(len(x), dtype=torch.float64, device=x.device), torch.ones(len(x), device=x.device).double()
    low = torch.where(verified, high, low)
    for _ in range(steps):
        middle = (low + high) / 2
        within = run.certified(verifier, middle).verified
        low, high = torch.where(within, middle, low), torch.where(within, high, middle)
    return low * threat.eps


@dataclass
class _Run:
    """Inputs of one network that are certified, perhaps several times."""

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    task: Task
    batch_size: int
    seed: int
    ids: Tensor | None

    def __post_init__(self) -> None:
        """Refuse what cannot be certified."""
        check_inputs(self.model, self.x, self.y, self.threat.box)
        self.threat.check(self.x)
        if any(p.dtype in (torch.float16, torch.bfloat16) for p in self.model.parameters()):
            raise UserError("bounds in half precision would hold nothing: certify a copy in float32, model.float()")
        if not self.task.classes:
            raise UserError("certificates are for networks that classify: use task=tasks.classification")
        if not self.threat.bounded:
            raise UserError(f"a certificate needs a finite eps or a box; got {self.threat.text()} and no box")
        self.graph: Graph | None = None
        if self.ids is None:
            self.ids = torch.arange(len(self.x), device=self.x.device)

    def certified(self, verifier: Verifier, shares: Tensor | None = None) -> Certificate:
        """The certificate, perhaps for (N,) shares of the threat's eps."""
        started = time.perf_counter()
        parts = [self._part(verifier, places, shares) for places in self._places()]
        joined = [torch.cat(values) for values in zip(*parts, strict=True)] if parts else self._nothing()
        verified, falsified, margin, x_adv = joined
        seconds = time.perf_counter() - started
        return Certificate(verified, falsified, margin, verifier.label(), verifier.sound, seconds, x_adv)

    def _places(self) -> list[Tensor]:
        places = torch.arange(len(self.x), device=self.x.device)
        return list(torch.split(places, self.batch_size)) if len(places) else []

    def _nothing(self) -> list[Tensor]:
        none = self.x.new_zeros(0, dtype=torch.bool)
        return [none, none, self.x.new_zeros(0), self.x]

    def _part(self, verifier: Verifier, places: Tensor, shares: Tensor | None) -> tuple[Tensor, ...]:
        x, y = self.x[places], self.y[places]
        threat = self.threat if shares is None else RowThreat.of(self.threat, shares[places])
        assert self.ids is not None
        with preserved(self.model, "eval", self.seed, x.device), torch.no_grad():
            logits = self._logits(x)
            self.task.check(logits, y)
            graph = self._graph(x, logits)
            problem = Problem(self.model, x, y, threat, logits, graph, self.ids[places], self.seed)
            answer = verifier.bound(problem)
            margin = answer.margins.amin(0).nan_to_num(nan=-torch.inf) - problem.rounding
            x_adv, falsified = self._counterexamples(problem, answer)
        return (margin > 0) & ~falsified, falsified, margin, x_adv

    def _logits(self, x: Tensor) -> Tensor:
        return self.task.read(forward_checked(self.model, x))

    def _graph(self, x: Tensor, logits: Tensor) -> Graph:
        """The network's operations, once they were seen to compute what it does."""
        if self.graph is None:
            self.graph = record(self.model, x[:1], self.task.read).detached()
            moved = self.threat.cube(x)[1]
            compare(self.graph, x, logits, self._logits, self.threat.project(moved, x))
        return self.graph

    def _counterexamples(self, problem: Problem, answer: Answer) -> tuple[Tensor, Tensor]:
        """Inputs that the network gets wrong, of the clean ones and of the verifier's candidates."""
        found, wrong = problem.x, self.task.is_adversarial(problem.logits, problem.y)
        for candidate in () if answer.candidates is None else answer.candidates:
            beaten = self.task.is_adversarial(self._logits(candidate), problem.y)
            beaten &= problem.threat.contains(candidate, problem.x) & ~wrong
            found = torch.where(beaten.view(-1, *[1] * (found.dim() - 1)), candidate, found)
            wrong = wrong | beaten
        return found, wrong


def _verifier(method: str | Verifier, settings: dict[str, Any]) -> Verifier:
    """The verifier that is meant.

    Raises:
        UserError: for settings that it does not have, or beside a verifier that was made already.
    """
    if isinstance(method, Verifier):
        if settings:
            raise UserError(f"give settings where the verifier is made; got {', '.join(settings)} beside one")
        return method
    kind: Any = registered_verifiers.get(method)
    known = list(signature(kind).parameters)
    for name in settings:
        if name not in known:
            raise UserError(f"{method} has no setting {name!r}; {nearest(name, known)}")
    made: Verifier = kind(**settings)
    return made
