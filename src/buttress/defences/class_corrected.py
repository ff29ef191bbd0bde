"""A correction of the finished network in favour of its weakest class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from buttress import tasks
from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Dataset, Split
from buttress.defences.base.defence import Defence
from buttress.defences.base.verdicts import judge
from buttress.defences.base.wrapper import WrapperDefence
from buttress.engine.input_dtype import suited
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.random import derive
from buttress.registry import defence
from buttress.tasks import Task
from buttress.validation import not_negative, one_of, positive, whole

Correction = Literal["bias", "norm"]
Rank = tuple[float, float]


def last_linear(model: nn.Module, x: Tensor, task: Task = tasks.classification) -> nn.Linear:
    """The linear layer whose output for ``x`` (N, ...) is what the network answers with.

    Raises:
        UserError: when the logits are no linear layer's own output.
    """
    x = suited(model, x)
    outputs: dict[nn.Linear, Tensor] = {}

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, nn.Linear) and isinstance(output, Tensor):
            outputs[module] = output.detach()

    hooks = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        with preserved(model, "eval", 0, x.device), torch.no_grad():
            logits = task.read(call_model(model, x))
    finally:
        for hook in hooks:
            hook.remove()
    for layer, output in reversed(outputs.items()):
        if output.shape == logits.shape and torch.equal(output.to(logits.dtype), logits):
            return layer
    raise UserError(
        "the network's logits are not the output of a linear layer, so no class of it can be corrected there: "
        "train without class-corrected"
    )


@defence("class-corrected")
class ClassCorrected(WrapperDefence):
    """Any base whose finished network is corrected so that its worst class is as robust as the correction can make it.

    In the last linear layer either each class's bias is moved ("bias"), or each class's weights are divided by their
    norm to the power tau ("norm"); both are tuned on the validation split for the lowest robust accuracy of any class
    under an attack through the corrected network, and for the mean over classes where that is equal. A correction
    that does not raise the one or the other is not made. For tau all of ``taus`` are tried. Biases are found by
    raising that of the worst class, by a step that is halved whenever another class would be worse off; with two
    classes that is a search by bisection, with more it may stop short of the best.

    A class's accuracy is known to about 1 / sqrt(n) from n validation inputs: with a dozen of a class what is tuned is
    chance, and a hundred or more are wanted. The mean over classes may fall by what the worst class gains.

    The idea that robustness by class goes with the norm of its weights, and that inference may be corrected for it,
    is in Tian, Kuang, Jiang, Wu and Wang (KDD 2021). Costs nothing in training; after it, ``rounds`` or as many as
    ``taus`` attacks on the validation inputs.

    Args:
        base: the training method underneath.
        kind: what is corrected.
        judge_with: the attack that judges corrections; PGD-10 in the threat of the base's attack unless given, and
            nothing, so that accuracy is corrected, for a base that attacks nothing.
        rounds: corrections of the biases that are tried, at most.
        first_step: how far a bias is moved at first, as a multiple of the standard deviation of the logits.
        taus: powers that are tried.
        validate_on: validation inputs that are attacked, at most, stratified.
    """

    needs_classes = True
    paper = "after Tian et al., KDD 2021"
    reconstruction = "the correction and its search"

    def __init__(
        self,
        base: Defence | None = None,
        kind: Correction = "bias",
        judge_with: Perturbation | None = None,
        rounds: int = 24,
        first_step: float = 1.0,
        taus: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
        validate_on: int = 1000,
    ) -> None:
        super().__init__(base)
        one_of("kind", kind, get_args(Correction))
        whole("rounds", rounds)
        whole("validate_on", validate_on)
        positive("first_step", first_step)
        if not taus:
            raise UserError("taus must be numbers of 0 or more, at least one; got none")
        self.kind, self.judge_with, self.rounds, self.first_step = kind, judge_with, rounds, first_step
        self.taus, self.validate_on = tuple(not_negative("taus", tau) for tau in taus), validate_on

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """As the base does; a network that cannot be corrected is found now, not after its training.

        Raises:
            UserError: when it has no last linear layer, or one without the bias that is to be moved.
        """
        data = super().prepare(model, data, seed)
        self._layer(model, data)
        return data

    def finish(self, model: nn.Module, data: Dataset, seed: int) -> None:
        """As the base does, then tune and make the correction, in place."""
        super().finish(model, data, seed)
        layer, seed = self._layer(model, data), derive(seed, "class-corrected")
        split = data.val.stratified(self.validate_on, seed)
        attack = self._judge()

        def by_class() -> Tensor:
            verdicts = judge(model, split, attack, seed, self.task)
            share, seen = verdicts.share(verdicts.robust, len(data.classes))
            return torch.where(seen, share, torch.inf)  # a class without inputs is never the worst

        with torch.no_grad():
            if self.kind == "norm":
                tune_norms(layer, self.taus, by_class)
            else:
                tune_biases(layer, self.first_step * _spread(model, split, self.task), self.rounds, by_class)

    def _layer(self, model: nn.Module, data: Dataset) -> nn.Linear:
        layer = last_linear(model, data.val.take(torch.arange(min(4, len(data.val))))[0], self.task)
        if self.kind == "bias" and layer.bias is None:
            raise UserError('the last linear layer has no bias to correct: use the kind "norm"')
        return layer

    def _judge(self) -> Perturbation | None:
        if self.judge_with is not None:
            return self.judge_with
        threat = None if self.base.attack is None else self.base.attack.within().threat
        return None if threat is None else PGD(threat=threat, steps=10)


def tune_norms(layer: nn.Linear, taus: tuple[float, ...], by_class: Callable[[], Tensor]) -> None:
    """Divide each class's weights by their norm to the power among ``taus`` that ranks highest, the first of equals.

    Args:
        layer: the last one, changed in place.
        taus: powers; the weights as they are rank with them, and first.
        by_class: (C,) robust accuracy of the network as it is, infinite where there is none.
    """
    before = layer.weight.detach().clone()
    size = before.norm(dim=1, keepdim=True).clamp(min=1e-12)
    best, best_rank = before, _rank(by_class())
    for tau in taus:
        layer.weight.copy_(before / size**tau)
        if (rank := _rank(by_class())) > best_rank:
            best, best_rank = layer.weight.detach().clone(), rank
    layer.weight.copy_(best)


def tune_biases(layer: nn.Linear, step: float, rounds: int, by_class: Callable[[], Tensor]) -> None:
    """Raise the bias of the worst class until another one would be worse off, then by half of the step, and so on.

    A step that changes nothing for the worst class is taken, too, as its gain may lie behind; of all places that were
    tried the one of the highest rank is kept, the first of equals.

    Args:
        layer: the last one, changed in place.
        step: the first step, in logits.
        rounds: trials.
        by_class: (C,) robust accuracy of the network as it is, infinite where there is none.
    """
    here, accuracies = layer.bias.detach().clone(), by_class()
    best, best_rank = here, _rank(accuracies)
    for _ in range(rounds):
        worst = int(accuracies.argmin())
        layer.bias.copy_(here)
        layer.bias[worst] += step
        trial = by_class()
        rank = _rank(trial)
        if rank > best_rank:
            best, best_rank = layer.bias.detach().clone(), rank
        still = int(trial.argmin()) == worst and bool(trial[worst] >= accuracies[worst])
        if still or rank > _rank(accuracies):
            here, accuracies = layer.bias.detach().clone(), trial
        else:
            step /= 2
    layer.bias.copy_(best)


def _rank(accuracies: Tensor) -> Rank:
    finite = accuracies[accuracies.isfinite()].double()
    return float(finite.min()), float(finite.mean())


def _spread(model: nn.Module, split: Split, task: Task) -> float:
    """The standard deviation of the logits on a split's first inputs, in eval mode."""
    x = suited(model, split.take(torch.arange(min(256, len(split))))[0])
    with preserved(model, "eval", 0, x.device), torch.no_grad():
        return float(task.read(call_model(model, x)).std())
