"""Interpolated adversarial training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import CraftingDefence
from buttress.defences.base.defence import Batch, Loss, StepContext
from buttress.engine.input_dtype import suited
from buttress.engine.preserved_model import Mode
from buttress.errors import UserError
from buttress.layers.capture import capture, layer_names
from buttress.layers.network_code import NetworkCode
from buttress.layers.rows import CHECKED, PART, Layout, layouts, of_inputs
from buttress.layers.told_apart import check_names
from buttress.random import derive, generator
from buttress.registry import defence
from buttress.validation import name_list, not_negative, one_of

Variant = Literal["input", "manifold"]
ALPHA: dict[Variant, float] = {"input": 1.0, "manifold": 2.0}


@dataclass(frozen=True)
class Mixture:
    """How a batch is mixed with itself.

    Attributes:
        share: of each input's own part, in [0, 1].
        order: (N,) the input that each one is mixed with.
        layer: where it happens; None for the input.
        layout: where the inputs are in the layer's value; on the first axis unless given.
    """

    share: float
    order: Tensor
    layer: str | None = None
    layout: Layout | None = None

    def __call__(self, values: Tensor) -> Tensor:
        """(N, ...) each row mixed with its partner's."""
        return self.share * values + (1 - self.share) * values[self.order]

    def logits(
        self, model: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, code: NetworkCode | None = None
    ) -> Tensor:
        """(N, C) logits of ``run``, one pass of ``model``, for ``x`` when its layer's values are mixed on the way."""
        if self.layer is None:
            return run(self(x))
        with capture(model, [self.layer], replace=lambda name, value: self._mixed(value), code=code) as mixed:
            logits = run(x)
        if self.layer not in mixed:
            raise UserError(f"the layer {self.layer!r} is not called in every training pass: name another")
        return logits

    def _mixed(self, value: Tensor) -> Tensor:
        """A layer's value with each input's part mixed with its partner's."""
        if self.layout is None:
            return self(value)
        return self.layout.in_place_of(value, self(self.layout.to_rows(value, len(self.order))))

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy with both classes of each mixture, by their shares."""
        return self.share * F.cross_entropy(logits, y) + (1 - self.share) * F.cross_entropy(logits, y[self.order])


@defence("iat")
class IAT(CraftingDefence):
    """Half mixed clean inputs, half mixed perturbed ones (Lamb et al., AISec 2019).

    The attack sees the unmixed inputs and their labels. Then the clean batch and the perturbed batch are each mixed
    with a permutation of themselves, and so are the labels' cross-entropies; the loss is the mean over both halves.
    "input" is mixup (Zhang et al., ICLR 2018), "manifold" mixes, at each half and step, the values of one place drawn
    uniformly from the input and ``layers`` (Verma et al., ICML 2019, who use the input and the outputs of the first
    two residual stages). Mixing often raises the accuracy under PGD more than that under stronger attacks: evaluate
    with a margin loss, too. Cost: the attack's and 2 gradients of the weights per step.

    Args:
        attack: what perturbs the unmixed inputs; the published one has 7 steps of 2/255 under 8/255.
        variant: "input" or "manifold".
        alpha: both halves' shares are drawn from Beta(alpha, alpha), one for a batch; 1 for "input" and 2 for
            "manifold" unless given. 0 mixes nothing, which is training on clean and perturbed inputs alike.
        layers: names of the layers that "manifold" may mix at, beside the input.
        independent: whether the halves draw share, permutation and layer each for itself. Layer regularisation, which
            compares activations of the halves, needs them shared (False).
        mode: the model's mode while crafting. The authors released no code; the best known of others crafts in "train"
            and at eps 0.0314.
    """

    paper = "Lamb et al., AISec 2019"
    trained = 4.0
    clean_pass = True

    def __init__(
        self,
        attack: Perturbation = PGD(steps=7),
        variant: Variant = "input",
        alpha: float | None = None,
        layers: Sequence[str] = (),
        independent: bool = True,
        mode: Mode = "eval",
    ) -> None:
        super().__init__()
        one_of("variant", variant, get_args(Variant))
        layers = name_list("layers", layers)
        if (variant == "manifold") != bool(layers):
            raise UserError(f"layers are named for the variant manifold, and only there; got {variant} and {layers}")
        if alpha is not None:
            not_negative("alpha", alpha)
        self._attack, self.variant, self.alpha, self.layers = attack, variant, alpha, layers
        self.independent, self.mode = independent, mode
        self._layouts: dict[str, Layout] = {}

    @property
    def own_classes(self) -> bool:
        """Whether nothing is mixed."""
        return self.alpha == 0

    @property
    def paired(self) -> bool:
        """Whether both halves are mixed in the same way, or not at all."""
        return not self.independent or self.alpha == 0

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Finds the layers and where the inputs are in them, so that a wrong name is refused at once.

        Raises:
            UserError: for a name that the model does not have, a pattern in its place, or a layer that has no part for
                each input or is another in training (see `check_names`).
        """
        if self.layers:
            x = suited(model, data.train.take(torch.arange(min(CHECKED, len(data.train))))[0])
            names = layer_names(model, x, self.layers)
            for layer in self.layers:
                if layer not in names:
                    raise UserError(f"layers are mixed at by name; {layer!r} is a pattern, for {', '.join(names)}")
            check_names(model, x, self.layers)
            where = layouts(model, x, self.layers)
            self._layouts = {layer: of_inputs(f"the layer {layer!r}", where.get(layer, PART)) for layer in self.layers}
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean of both halves' mixed cross-entropies."""
        x_adv = context.craft(self.attack, mode=self.mode)
        halves = {}
        for name, run, x in (("natural", context.clean, batch.x), ("adversarial", context.adversarial, x_adv)):
            mixture = self.mixture(context, name if self.independent else "both")
            halves[name] = mixture.cross_entropy(mixture.logits(model, run, x, context.code), batch.y)
        value = 0.5 * halves["natural"] + 0.5 * halves["adversarial"]
        return Loss(value, {name: half.detach() for name, half in halves.items()})

    def mixture(self, context: StepContext, half: str) -> Mixture:
        """One half's draws of a step.

        Args:
            context: of the step.
            half: "natural", "adversarial", or "both" where they are not independent.
        """
        seed = derive(context.seed, "mixture", half)
        alpha = ALPHA[self.variant] if self.alpha is None else self.alpha
        share = float(np.random.default_rng(seed).beta(alpha, alpha)) if alpha else 1.0
        order = torch.randperm(len(context.batch.x), generator=generator(seed, "order")).to(context.batch.x.device)
        place = int(torch.randint(len(self.layers) + 1, (), generator=generator(seed, "place")))
        layer = (None, *self.layers)[place]
        return Mixture(share, order, layer, self._layouts.get(layer or ""))
