"""Domain invariant adversarial learning (DIAL)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress import losses
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Loss, StepContext
from buttress.engine.input_dtype import suited
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.capture import capture, layer_names
from buttress.layers.network_code import NetworkCode
from buttress.layers.rows import CHECKED, Layout, layout_of
from buttress.layers.select import user_module
from buttress.layers.told_apart import check_names
from buttress.model_call import call_model
from buttress.random import derive, own_draws
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import not_negative, one_name, one_of, whole

Variant = Literal["ce", "kl"]
Schedule = Literal["stepwise", "continuous"]
LAMD: dict[Variant, float] = {"ce": 0.1, "kl": 2.0}


@defence("dial")
class DIAL(CraftingDefence):
    """Adversarial training whose features do not tell clean from perturbed inputs (Levi et al., TMLR 2022).

    A small head learns to tell the two from the network's features; its gradient is reversed on the way into the
    network. The loss is the clean cross-entropy, plus ``beta`` times the perturbed one ("ce") or the KL divergence of
    perturbed from clean predictions ("kl", whose gradient flows through both), plus ``lamd`` times the head's
    cross-entropy on either domain. Clean and perturbed features pass through the head one after the other, so that
    its BatchNorm sees one domain at a time, as in the authors' code. The attack maximises the second term from
    x + 0.001 N(0, 1). With `AWP` around it this is DIAL-AWP but for the head, whose weights the authors move, too, and
    we do not.

    Released with 10 steps of 0.007 at eps 0.031 on CIFAR-10 and CIFAR-100, of 0.003 on SVHN, and 40 of 0.01 at 0.3 on
    MNIST (our default steps are 2.5 eps / steps). Cost: the attack's and 2 gradients of the weights per step.

    The reversal's strength is r = 2 / (1 + exp(-10 p)) - 1. In the authors' code p is the number of the epoch, from 1,
    over all epochs ("stepwise"); "continuous" lets it grow from 0 with each step.

    Args:
        threat: what the model is trained against.
        steps: steps of the attack.
        step_size: their length in input units; 2.5 eps / steps unless given.
        variant: "ce" or "kl".
        beta: weight of the robust term; 6 in most of the paper's settings, 8 for CIFAR-10.
        lamd: weight of the domain term, of the head's own loss and of the reversed gradient alike. Unless given 0.1
            with "ce" (the authors' for MNIST) and 2 with "kl" (for SVHN; 4 for CIFAR-100, 6 for CIFAR-10).
        schedule: of the reversal.
        reversal: factor on r; with 0 the head learns and the features do not change for it.
        layer: name of the layer whose output the head reads; unless given, what enters the last linear layer.
        head: units of the head's hidden layers; may be empty. (100,) for MNIST and wide ResNets in the paper.
        batch_norm: whether the head normalises after each hidden layer; not in the paper's heads for CIFAR-100.
    """

    paper = "Levi et al., TMLR 2022"
    trained = 4.0
    clean_pass = True

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        steps: int = 10,
        step_size: float | None = None,
        variant: Variant = "ce",
        beta: float = 6.0,
        lamd: float | None = None,
        schedule: Schedule = "stepwise",
        reversal: float = 1.0,
        layer: str | None = None,
        head: Sequence[int] = (100,),
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        for name, value, allowed in (("variant", variant, Variant), ("schedule", schedule, Schedule)):
            one_of(name, value, get_args(allowed))
        for name, weight in (("beta", beta), ("lamd", lamd or 0.0), ("reversal", reversal)):
            not_negative(name, weight)
        if not isinstance(head, list | tuple):
            raise UserError(f"head must be a list of whole numbers, the units of its hidden layers; got {head!r}")
        for units in head:
            whole("head", units)
        self.threat, self.steps, self.step_size = threat, steps, step_size
        self.variant, self.beta, self.lamd = variant, beta, lamd
        self.schedule, self.reversal = schedule, reversal
        self.layer = None if layer is None else one_name("layer", layer)
        self.head, self.batch_norm = tuple(head), batch_norm
        inner = "kl" if variant == "kl" else None
        self._attack = PGD(threat=threat, steps=steps, step_size=step_size, start="normal", loss=inner)
        self.domain_head: nn.Module | None = None
        self._layout: Layout | None = None
        self._last = ""  # name of the last linear layer

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Finds where the features are and makes the head for them, by a few passes over a few inputs.

        Raises:
            UserError: for a layer that the model does not have, that has no part for each input or that is another in
                training (see `check_names`), or when there is no linear one to find.
        """
        x = data.train.take(torch.arange(min(CHECKED, len(data.train))))[0]
        x = suited(model, x)
        if self.layer is None:
            self._last = last_linear(model, x)
        elif self.layer not in layer_names(model, x, [self.layer]):
            raise UserError(f"layer must be the name of one layer; {self.layer!r} is a pattern")
        check_names(model, x, [self.layer or self._last])
        what = f"the layer {self.layer!r}" if self.layer else f"what enters {self._last!r}"
        with preserved(model, "eval", seed, x.device), torch.no_grad():
            run = partial(call_model, model)
            self._layout = layout_of(lambda some: self._with_features(model, run, some)[1], x, what)
            features = self._rows(self._with_features(model, run, x)[1], len(x))
        with own_draws(derive(seed, "domain head")), torch.device("cpu"):
            head = domain_head(features.shape[1], self.head, self.batch_norm)
        self.domain_head = head.to(x)
        return data

    def strength(self, context: StepContext) -> float:
        """How strongly the gradient is reversed at a step."""
        p = context.progress
        epochs = context.epochs or (context.epoch / p if p else 0)
        if self.schedule == "stepwise" and epochs:
            p = min(1.0, (math.floor(context.epoch) + 1) / epochs)
        return self.reversal * (2 / (1 + math.exp(-10 * p)) - 1)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The clean, the robust and the domain term."""
        x_adv = context.craft(self.attack)
        clean, clean_features = self._with_features(model, context.clean, batch.x, context.code)
        adversarial, adversarial_features = self._with_features(model, context.adversarial, x_adv, context.code)
        natural = F.cross_entropy(clean, batch.y)
        divergence = self.variant == "kl"
        robust = losses.kl(adversarial, clean).mean() if divergence else F.cross_entropy(adversarial, batch.y)
        strength = self.strength(context)
        both = (self._rows(features, len(batch.x)) for features in (clean_features, adversarial_features))
        domains = [self._domain(features, label, strength) for label, features in enumerate(both)]
        domain = domains[0][0] + domains[1][0]
        logs = {
            "natural": natural.detach(),
            "boundary" if divergence else "adversarial": robust.detach(),
            "domain": domain.detach(),
            "domain accuracy": (domains[0][1] + domains[1][1]) / 2,
        }
        lamd = LAMD[self.variant] if self.lamd is None else self.lamd
        return Loss(natural + self.beta * robust + lamd * domain, logs)

    def _domain(self, features: Tensor, label: int, strength: float) -> tuple[Tensor, Tensor]:
        """The head's cross-entropy on features of one domain, and the share that it gets right."""
        if self.domain_head is None:
            raise UserError("DIAL makes its domain head in prepare(model, data, seed): call that first")
        logits = self.domain_head(reverse_gradient(features, strength))
        labels = torch.full((len(logits),), label, device=logits.device)
        return F.cross_entropy(logits, labels), (logits.argmax(1) == label).float().mean()

    def _with_features(
        self, model: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, code: NetworkCode | None = None
    ) -> tuple[Tensor, Tensor]:
        """The logits of ``run``, one pass of ``model``, and the features on the way as the network has them."""
        if self.layer is None:
            inputs: list[Tensor] = []
            linear = user_module(model).get_submodule(self._last)
            handle = linear.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
            try:
                output = run(x)
            finally:
                handle.remove()
            if not inputs:
                raise UserError(f"the layer {self._last!r} is not called for all inputs: name another")
            return output, inputs[-1]
        with capture(model, [self.layer], code=code) as activations:
            output = run(x)
        if self.layer not in activations:
            raise UserError(f"the layer {self.layer!r} is not called for all inputs: name another")
        return output, activations[self.layer]

    def _rows(self, features: Tensor, n: int) -> Tensor:
        """(n, D) the features of n inputs."""
        return (features if self._layout is None else self._layout.to_rows(features, n)).flatten(1)


def domain_head(features: int, hidden: Sequence[int], batch_norm: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between them, two logits at the end: 0 clean, 1 perturbed.

    Its BatchNorm always uses the batch at hand and keeps no statistics: the head is never used outside training.

    Args:
        features: numbers per input.
        hidden: units of each hidden layer.
        batch_norm: whether to normalise after each hidden linear layer.
    """
    layers: list[nn.Module] = []
    for inputs, units in pairwise((features, *hidden)):
        layers.append(nn.Linear(inputs, units))
        if batch_norm:
            layers.append(nn.BatchNorm1d(units, track_running_stats=False))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else features, 2))


def last_linear(model: nn.Module, x: Tensor) -> str:
    """The name of the linear layer that runs last, by one pass in eval mode that leaves no trace.

    Args:
        model: the network; the name is relative to the user's module inside of buttress's wrappers.
        x: (N, ...) inputs that it can read.

    Raises:
        UserError: when no linear layer runs.
    """
    ran: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda module, args, name=name: ran.append(name))
        for name, module in user_module(model).named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with preserved(model, "eval", 0, x.device), torch.no_grad():
            call_model(model, x)
    finally:
        for handle in handles:
            handle.remove()
    if not ran:
        raise UserError("the model has no linear layer whose input could be the features: name a layer")
    return ran[-1]


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient comes back multiplied by a negative number."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * grads[0], None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """``x`` itself, whose gradient is multiplied by ``-strength`` on the way back (Ganin et al., JMLR 2016).

    Args:
        x: any tensor.
        strength: 0 stops the gradient, 1 reverses it.
    """
    reversed_: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]  # torch's own
    return reversed_
