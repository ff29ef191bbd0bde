"""Expectation over transformation, and what attacks that hold another attack share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from buttress.attacks.gradient.pgd import PGD
from buttress.engine.attack import Attack
from buttress.engine.ledger import Rows
from buttress.engine.oracle import Inside, Oracle, Search
from buttress.engine.pass_count import PassCount
from buttress.engine.passes import Opened
from buttress.engine.runner import Precision, Question, Runner
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack
from buttress.validation import whole

Transform = Callable[[Tensor, Random], Tensor]


class Seen(Oracle):
    """An oracle that shows something else than the plain model."""

    @staticmethod
    def passes(of: PassCount) -> PassCount:
        """What an attack costs that asks this oracle: a forward for each gradient; see `gradients`."""
        return PassCount(max(of.forwards, of.backwards), of.backwards)


class WrapperAttack(Attack):
    """An attack that runs another one, its ``attack``, on a model seen differently.

    The threat and ``by_input`` are the other's; so are ``draws`` and ``exact`` where it has no such field of its own.
    """

    attack: Attack

    def __post_init__(self) -> None:
        """Refuse what is no attack."""
        if not isinstance(self.attack, Attack):
            raise UserError(f"attack must be an attack with a threat, such as PGD(); got {self.attack!r}")
        held = self.attack
        own = {"threat": held.threat, "by_input": held.by_input, "draws": held.draws, "exact": held.exact}
        for name in own.keys() - self.settings().keys():
            object.__setattr__(self, name, own[name])

    @property
    def inner(self) -> Attack:
        """The attack that this one runs."""
        return self.attack

    def with_innermost(self, attack: Attack) -> Attack:
        """A copy that runs ``attack`` in the place of the innermost one."""
        return cast(Attack, replace(cast(Any, self), attack=self.attack.with_innermost(attack)))

    def label(self) -> str:
        """The attack inside, too: "EoT of PGD-20"."""
        return f"{self._name()} of {self.attack.label()}"

    def search_passes(self, classes: int) -> PassCount | None:
        """Those of the attack inside."""
        return self.attack.search_passes(classes)

    def inside(self) -> Inside | None:
        """That of the attack inside."""
        return self.attack.inside()

    def crafted(self, oracle: Oracle, part: Oracle, rows: Tensor, random: Random) -> Tensor:
        """(N, ...) what the attack inside finds when it asks ``part`` about some inputs; the others stay.

        Args:
            oracle: of all N inputs; its counts grow by those of the part.
            part: sees the inputs at ``rows``.
            rows: (M,) indices, one at least.
            random: of all inputs.

        Raises:
            UserError: when ``oracle`` itself is that of a wrapper around this one, which the part would not ask.
        """
        if isinstance(oracle, Seen):
            name = type(self).__name__
            raise UserError(
                f"{name} asks the model itself, so it cannot run inside EoT with transforms or Ensemble: make the "
                "transformations, or the several models, a model of their own"
            )
        points = self.attack.points(part, part.x, part.y, random.only(rows))
        points = self.threat.project(points, part.x)
        if part.search == "first":  # the first adversarial examples are in its ledger
            points, _ = part.settle(points)
        oracle.ledger.add(part.ledger, rows)
        for stage in part.stages.values():
            oracle.ledger.add_stage(stage)
        whole = oracle.x.clone()
        whole[rows] = points
        return whole


@attack("eot")
@dataclass(frozen=True, kw_only=True)
class EoT(WrapperAttack):
    """Another attack on the mean over chance (Athalye et al., ICML 2018, "Synthesizing robust adversarial examples").

    For models that draw at random each answer, the verdict's included, is the mean of ``draws`` passes. With
    ``transforms`` it is the mean over that many transformed inputs instead, each passed once: the attack inside then
    looks for a point that is adversarial under transformations, and the verdict, which is about the point itself, is
    the mean of ``draws`` passes as before. For a verdict over the transformations make them part of the model.

    Cost per input: that of the attack inside times ``draws``.

    Args:
        attack: what asks the questions; its threat is this one's.
        draws: passes, or transformed inputs, whose mean answers one question.
        transforms: (x, random) -> x of the same shape, differentiable, each input by its own draws of ``random``.
    """

    attack: Attack = PGD()
    draws: int = 20
    transforms: Transform | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        super().__post_init__()
        whole("draws", self.draws)
        if self.transforms is not None and not callable(self.transforms):
            raise UserError(f"transforms must be a function (x, random) -> x; got {self.transforms!r}")

    def search_passes(self, classes: int) -> PassCount | None:
        """Those of the attack inside, in units of ``draws``, which are what a question is repeated."""
        passes = self.attack.search_passes(classes)
        if passes is None:
            return None
        if self.transforms is not None:
            return Seen.passes(passes)
        return passes * -(-self.attack.draws // self.draws)  # an EoT inside repeats by its own draws

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What the attack inside finds."""
        if self.transforms is None and oracle.runner.draws == self.draws:
            return self.attack.points(oracle, x, y, random)
        rows = oracle.alive.nonzero().squeeze(1)
        if not len(rows):
            return x
        ours = oracle.runner
        draws = self.draws if self.transforms is None else 1
        passes = Runner(ours.model, oracle.task, ours.precision, ours.batch_size, draws, exact=ours.exact)
        target = None if oracle.target is None else oracle.target[rows]
        if self.transforms is None:
            part = Oracle(passes, x[rows], y[rows], target)
        else:
            part = _Transformed(passes, x[rows], y[rows], target)
            part.see(self.transforms, self.draws, random.only(rows).fork("transforms"))
        x_adv = self.crafted(oracle, part, rows, random)
        ours.precision = passes.precision
        return x_adv


class _Transformed(Seen):
    """Answers with the mean over transformed inputs. It keeps every input to the end: it never sees the points."""

    def see(self, transform: Transform, draws: int, random: Random) -> None:
        """Look through ``transform``, so many times for each question."""
        self._transform, self._times, self._random, self._questions = transform, draws, random, 0

    def only(self, rows: Tensor, *, inside: Inside | None = None, search: Search = "first") -> Oracle:
        """A part that looks through the same transformations; it keeps every input, too."""
        part = _Transformed(self.runner, self.x[rows], self.y[rows], self._target(rows))
        part.see(self._transform, self._times, self._random.only(rows).fork("part", self._questions))
        return part

    def _ask(self, x: Tensor, question: Question, *, gradient: bool = False, clean: bool = False) -> list[Tensor]:
        self._questions += 1
        return super()._ask(x, question, gradient=gradient, clean=clean)

    def _draws(self, precision: Precision | None) -> Sequence[int | None]:
        """One for each transformation; None for the plain model, which is asked in a precision of its own."""
        return range(self._times) if precision is None else [None] * self.runner.draws

    def _open(self, x: Tensor, rows: Rows, precision: Precision, draw: int | None, *, gradient: bool) -> Opened:
        """One pass, from which slopes are led back through the transformation, too."""
        if draw is None:
            return super()._open(x, rows, precision, draw, gradient=gradient)
        start = x.detach().clone().requires_grad_(gradient)
        moved = self._moved(start, rows, draw)
        if gradient and not moved.requires_grad:
            raise UserError("transforms must be differentiable: what it returns does not depend on x for autograd")
        output, pull = super()._open(moved.detach(), rows, precision, draw, gradient=gradient)
        return output, lambda slope, more: _led_back(moved, start, pull(slope, more), more)

    def _moved(self, x: Tensor, rows: Rows, draw: int) -> Tensor:
        with torch.set_grad_enabled(x.requires_grad):
            moved = self._transform(x, self._random.fork("question", self._questions, draw).only(rows))
        if not isinstance(moved, Tensor) or moved.shape != x.shape or moved.dtype != x.dtype:
            kind = f"{moved.dtype} {tuple(moved.shape)}" if isinstance(moved, Tensor) else type(moved).__name__
            raise UserError(f"transforms must return inputs like its own, {x.dtype} {tuple(x.shape)}; got {kind}")
        return moved


def _led_back(moved: Tensor, start: Tensor, grad: Tensor, keep: bool) -> Tensor:
    (back,) = torch.autograd.grad(moved, start, grad, retain_graph=keep, allow_unused=True)
    return torch.zeros_like(start) if back is None else back
