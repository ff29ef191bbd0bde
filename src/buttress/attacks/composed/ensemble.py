"""One perturbation against several models at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from buttress import losses
from buttress.attacks.composed.eot import Seen, WrapperAttack
from buttress.attacks.composed.transfer import check_network, runner_for
from buttress.attacks.gradient.pgd import PGD
from buttress.engine.attack import Attack
from buttress.engine.call_checks import check_inputs
from buttress.engine.ledger import Rows
from buttress.engine.oracle import Distance, Inside, Oracle, Search
from buttress.engine.pass_count import PassCount
from buttress.engine.passes import Opened
from buttress.engine.preserved_model import preserved
from buttress.engine.runner import Precision, Runner
from buttress.errors import UserError
from buttress.random import Random
from buttress.registry import attack

T = TypeVar("T")


@attack("ensemble")
@dataclass(frozen=True, kw_only=True)
class Ensemble(WrapperAttack):
    """Another attack on the attacked model and others together (Liu et al., ICLR 2017).

    The loss is the mean of the models' losses, outputs are the means of their logits, and a point is a success
    where it fools all. `AttackResult.success` is about the attacked model alone; call the attack with each of the
    others as the model to know about those. Parts of a composed attack hand on what the attacked model withstands. (To
    attack the mean prediction of several networks, attack ``buttress.models.wrapping.mean_ensemble.Ensemble``.)

    Cost per input: that of the attack inside for each model, all counted, and 1 forward in a search for the first
    success. The others run in eval mode and come back as they were.

    Args:
        attack: what asks the questions; its threat is this one's.
        models: the others; they take the same inputs and have the same classes, in the same order. In a job, runs'
            folders.
    """

    attack: Attack = PGD()
    models: Sequence[nn.Module | str] = ()

    def __post_init__(self) -> None:
        """Refuse what are no models."""
        super().__post_init__()
        if isinstance(self.models, nn.Module | str):
            raise UserError(f"models must be a list of torch modules; got a single {_kind(self.models)}")
        for i, model in enumerate(self.models):
            check_network(f"models[{i}]", model)
        object.__setattr__(self, "models", tuple(self.models))

    def search_passes(self, classes: int) -> PassCount | None:
        """Those of the attack inside, on each model; their outputs for the input, and one at the end."""
        passes = self.attack.search_passes(classes)
        return None if passes is None else Seen.passes(passes + PassCount(1)) * (1 + len(self.models)) + PassCount(1)

    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """What the attack inside finds."""
        rows = oracle.alive.nonzero().squeeze(1)
        if not len(rows):
            return x
        with ExitStack() as stack:
            others = []
            for i, model in enumerate(self.models):
                if not isinstance(model, nn.Module):
                    raise UserError(f"models[{i}] must be a network here; got {model!r}: load it first")
                stack.enter_context(preserved(model, "eval", torch.initial_seed(), x.device))
                check_inputs(model, x[rows], y[rows], self.threat.box)
                others.append(_full(runner_for(model, oracle, self.draws), oracle, rows))
            return self.crafted(oracle, _together(oracle, rows, others, self.inside(), oracle.search), rows, random)


class _Together(Seen):
    """Answers with the means over several models; a point is a success where it fools all of them."""

    others: list[Oracle]

    def join(self, others: list[Oracle]) -> None:
        """Ask these, too; they are of the same inputs, which they count together."""
        self.others, own = others, self.inside
        self._others_fooled = torch.ones_like(self.alive)
        for other in others:
            other.ledger.share(self.ledger)

        def inside(points: Tensor, x: Tensor) -> Tensor:
            fooled = self.ledger.take(self._others_fooled)
            return fooled if own is None else fooled & own(points, x)

        self.inside = self.ledger.inside = inside

    def logits(self, x: Tensor) -> Tensor:
        """(N, C) the mean of the models' logits."""
        return _mean(self._ask_all(lambda model: model.logits(x), lambda: super(_Together, self).logits(x)))

    def loss(self, x: Tensor, loss: losses.LossLike | None = None, toward: Tensor | None = None) -> Tensor:
        """(N,) the mean of the models' losses."""

        def own() -> Tensor:
            rows = self.ledger.rows
            return self._loss_of(super(_Together, self).logits(x), rows, loss, toward).to(x.dtype)

        return _mean(self._ask_all(lambda model: model.loss(x, loss, toward), own))

    def loss_and_grad(
        self, x: Tensor, loss: losses.LossLike | None = None, toward: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(N,) the mean of the models' losses, and its gradient."""
        pairs = self._ask_all(
            lambda model: model.loss_and_grad(x, loss, toward),
            lambda: super(_Together, self).loss_and_grad(x, loss, toward),
        )
        return _mean([value for value, _ in pairs]), _mean([grad for _, grad in pairs])

    def gradients(self, x: Tensor, wanted: Iterable[losses.LossLike]) -> tuple[Tensor, ...]:
        """(N, ...) the mean of the models' gradients, for each of several losses."""
        several = list(wanted)
        answers = self._ask_all(
            lambda model: model.gradients(x, several), lambda: super(_Together, self).gradients(x, several)
        )
        return tuple(_mean(list(grads)) for grads in zip(*answers, strict=True))

    def nearest_face(self, x: Tensor, classes: Tensor, distance: Distance, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """The nearest face of the models' mean: their passes are held together, in batches of the attacked model's."""
        self._others_fooled = torch.ones_like(self.alive)
        for other in self.others:
            if other.runner.precision == "auto":
                other.settle_precision(gradient=True)
        answer = super().nearest_face(x, classes, distance, share)
        self.success &= self._others_fooled
        return answer

    def _open_all(self, x: Tensor, rows: Rows, precision: Precision) -> list[Opened]:
        others = [one for other in self.others for one in other._open_all(x, rows, other.runner.precision)]
        return super()._open_all(x, rows, precision) + others

    def _relax(self, error: Exception, precision: Precision) -> bool:
        others = (other.runner for other in self.others)
        return super()._relax(error, precision) or any(runner.relax(error, runner.precision) for runner in others)

    def _joint_output(self, outputs: list[Tensor], rows: Rows) -> tuple[Tensor, Tensor]:
        draws = len(outputs) // (1 + len(self.others))
        own, *others = (self.task.mean(outputs[k : k + draws]) for k in range(0, len(outputs), draws))
        for output in others:
            self._others_fooled[rows] &= self._verdict(output, rows)
        self.success[rows] = self._verdict(own, rows) & self._others_fooled[rows]
        return own, _mean([own, *others])

    def only(self, rows: Tensor, *, inside: Inside | None = None, search: Search = "first") -> Oracle:
        """A part that asks all models."""
        others = [_full(other.runner, self, rows) for other in self.others]
        return _together(self, rows, others, inside, search)

    def _ask_all(self, ask: Callable[[Oracle], T], own: Callable[[], T]) -> list[T]:
        """The others are asked first: whether a point is a success depends on them, and inputs leave after ours."""
        self._others_fooled = torch.ones_like(self.alive)
        answers = []
        for other in self.others:
            other.ledger.rows = self.ledger.rows
            answers.append(ask(other))
            self._others_fooled &= other.success
        mine = own()
        self.success &= self._others_fooled
        return [mine, *answers]


def _kind(model: nn.Module | str) -> str:
    return "name" if isinstance(model, str) else "module"


def _full(runner: Runner, whole: Oracle, rows: Tensor) -> Oracle:
    """One of the others, for some inputs; by itself it lets none go."""
    return Oracle(runner, whole.x[rows], whole.y[rows], None if whole.target is None else whole.target[rows])


def _together(whole: Oracle, rows: Tensor, others: list[Oracle], inside: Inside | None, search: Search) -> _Together:
    target = None if whole.target is None else whole.target[rows]
    part = _Together(
        whole.runner,
        whole.x[rows],
        whole.y[rows],
        target,
        search=search,
        inside=inside,
        read_every=whole.read_every,
    )
    if search == "first":  # computed already: what was misclassified unperturbed has left
        part._clean = whole.clean[rows]
    part.join(others)
    return part


def _mean(answers: list[Tensor]) -> Tensor:
    shapes = {tuple(answer.shape[1:]) for answer in answers}
    if len(shapes) > 1:
        text = " and ".join(str(shape) for shape in sorted(shapes))
        raise UserError(
            f"the models of an ensemble must have the same classes; outputs or gradients have shapes {text}"
        )
    return torch.stack(answers).mean(0)
