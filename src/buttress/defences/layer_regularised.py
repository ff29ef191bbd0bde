"""Layer-wise regularised adversarial training (AT-LR)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, StepContext
from buttress.defences.base.wrapper import WrapperDefence
from buttress.engine.input_dtype import suited
from buttress.errors import UserError
from buttress.layers.measures import mean_defined
from buttress.layers.places import Place
from buttress.layers.regularisable import CONSTANT, NOT_RUN, RESIZED, compared_modes, names_in, sampled_rows
from buttress.layers.regularisers import LayerStep, Regulariser, resolve
from buttress.layers.rows import Layout
from buttress.layers.told_apart import another_meaning, refusal
from buttress.registry import defence
from buttress.validation import name_list, not_negative

_PERTURBED_WITH = {"CSA": "updates=1", "IBPTraining": "steps=8", "CROWNIBPTraining": "steps=8"}
_PATIENCE = 20  # steps from the first in which a layer may be skipped by either pass


@defence("layer-regularised")
class LayerRegularised(WrapperDefence):
    """AT-LR: any base plus gamma times the displacement of given layers between clean and perturbed inputs.

    Khalooei, Homayounpour and Amirmazlaghani (arXiv 2202.02626), algorithm 3. The activations are those of the base's
    own passes; a base without a clean pass gets one that leaves BatchNorm's buffers and the random state alone, so
    with gamma 0 every base keeps its bits. Cost over the base: that clean pass where it is missing, and one backward
    pass for a measure that asks for the margin's gradient.

    A layer that training skips at random (LayerDrop, stochastic depth) adds to the steps in which both passes run it,
    for nothing can be compared in others; the history says their share as ``steps with LAYER``. A layer whose name may
    mean another one in training is refused (see `buttress.layers.told_apart`).

    The paper has the relative error alone. A layer that is nearly constant has a small one, and at a large gamma
    training ends in a constant prediction; the monitor layer-collapse says when. `buttress.layers.regularisers` says
    what each measure is.

    Args:
        base: the training method underneath.
        layers: names of the layers, usually ``profile.mvl(eta)``; may be empty, which leaves the base alone.
        gamma: weight of the displacement, one for all layers or one for each.
        measure: how displacement is measured: "relative_error" as in the paper, "centred" and others of
            `buttress.layers.MEASURES`; or against what a constant layer lacks: "between_classes", "tolerance",
            "margin_direction".
        warmup: epochs over which gamma rises linearly from 0; no more than are trained.
    """

    paper = "Khalooei et al., arXiv 2202.02626"
    rises = ("warmup",)
    without_classes = "the measure centred or tolerance"

    def __init__(
        self,
        base: Defence | None = None,
        layers: Sequence[str] = (),
        gamma: float | Sequence[float] = 0.3,
        measure: str = "centred",
        warmup: float = 0.0,
    ) -> None:
        super().__init__(base)
        resolve(measure)
        layers = name_list("layers", layers)
        if isinstance(gamma, list | tuple):
            gammas = tuple(not_negative("gamma", value) for value in gamma)
        else:
            gammas = (not_negative("gamma", gamma),) * len(layers)
        if len(gammas) != len(layers):
            raise UserError(f"{len(layers)} layers need one gamma or as many; got {len(gammas)}")
        not_negative("warmup", warmup)
        self.layers, self.gamma, self.measure, self.warmup = layers, gammas, measure, warmup
        self._layouts: dict[str, Layout] = {}
        self._places: Mapping[str, Mapping[str, Place]] = {}  # of a pass in evaluation that runs the layer
        self._compared: set[str] = set()  # layers that some step so far has seen in both passes
        self._skipped: set[str] = set()  # layers that some training passes do not run
        self._missed: Counter[str] = Counter()  # steps in which a layer could not be compared

    @property
    def remark(self) -> str:
        """That nothing is regularised, and why; empty where something is."""
        if self.layers and any(self.gamma):
            return ""
        reason = "with gamma 0" if self.layers else "without layers, named as in --defence.layers NAME,NAME,"
        return f"{reason} layer-regularised regularises nothing: this is {self.base.label()} alone"

    @property
    def needs_classes(self) -> bool:
        """Whether the measure compares inputs of different classes."""
        return resolve(self.measure).needs_classes

    @property
    def cost(self) -> Cost | None:
        """The base's, the clean pass that a base with only a perturbed one lacks, and the margin's gradient."""
        base = self.base.cost
        if base is None or not any(self.gamma):
            return base
        more = 2 * (not self.base.clean_pass) + resolve(self.measure).needs_margin
        return Cost(base.crafting, base.training + more * base.objectives, base.objectives)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """As the base does; and a layer that the model does not have is found now, not when gamma has risen."""
        if self.layers and any(self.gamma):
            self._check_base()
        data = super().prepare(model, data, seed)
        if self.layers:
            self._look(model, [suited(model, data.train.take(rows)[0]) for rows in sampled_rows(len(data.train))])
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The base's loss plus the weighted mean displacement of each layer."""
        rise = 1.0 if self.warmup == 0 else min(1.0, context.epoch / self.warmup)
        weights = {layer: rise * gamma for layer, gamma in zip(self.layers, self.gamma, strict=True) if rise * gamma}
        if not weights:
            return self.base.loss(model, batch, context)
        self._check_base()
        if not self._layouts:
            self._look(model, [batch.x])
        context.watch(list(weights), self._layouts)
        base = self.base.loss(model, batch, context)
        regulariser = resolve(self.measure)
        both = [layer for layer in weights if self._in_both(layer, context)]
        steps = self._steps(both, regulariser, batch, context)
        value, logs = base.value, dict(base.logs)
        for layer in both:
            displacement = mean_defined(regulariser(steps[layer]))
            value = value + weights[layer] * displacement
            logs[f"displacement {layer}"] = displacement.detach()
        for layer in weights:
            if layer in self._skipped:
                logs[f"steps with {layer}"] = batch.x.new_tensor(float(layer in both))
        return Loss(value, logs)

    def _in_both(self, layer: str, context: StepContext) -> bool:
        """Whether both passes of this step run a layer, so that it can be compared.

        Raises:
            UserError: where one runs it for a part of the inputs, or where none has run it so far.
        """
        reasons: list[str] = []
        for one in (context.passes["adversarial"], context.clean_pass()):
            another = another_meaning(layer, self._places[layer], one.places)
            if another is not None:
                reasons.append(another)
            elif layer not in one.activations:
                reasons.append(NOT_RUN)
                if layer in one.places:
                    raise UserError(_refusal(layer, RESIZED))
        if not reasons:
            self._compared.add(layer)
            return True
        self._skipped.add(layer)
        self._missed[layer] += 1
        if layer not in self._compared and self._missed[layer] > _PATIENCE:
            raise UserError(_refusal(layer, reasons[0]))
        return False

    def _steps(
        self, layers: Sequence[str], regulariser: Regulariser, batch: Batch, context: StepContext
    ) -> dict[str, LayerStep]:
        """What the passes of this step show of each layer."""
        perturbed, clean = context.passes["adversarial"], context.clean_pass()
        for layer in layers:
            if layer not in perturbed.edges and torch.is_grad_enabled():
                raise UserError(_refusal(layer, CONSTANT))
        asked = regulariser.needs_margin and layers
        margin, gradients = self._margin(layers, batch, context) if asked else (None, {})
        return {
            layer: LayerStep(
                clean.activations[layer], perturbed.activations[layer], batch.y, margin, gradients.get(layer)
            )
            for layer in layers
        }

    def _margin(self, layers: Sequence[str], batch: Batch, context: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        """(N,) the margin of the unperturbed inputs; and its gradient (N, ...) at each layer."""
        clean = context.clean_pass()
        margin = -context.task.resolve("margin").value(clean.logits, batch.y)  # a loss: above 0 where wrong
        edges = [clean.edges[layer] for layer in layers if layer in clean.edges]
        found = iter(torch.autograd.grad(margin.sum(), edges, retain_graph=True, allow_unused=True))
        gradients: dict[str, Tensor] = {}
        for layer in layers:
            gradient = next(found) if layer in clean.edges else None
            if gradient is None:
                raise UserError(
                    f"layer {layer!r} cannot be regularised by {self.measure}, for the network's output does not "
                    "depend on it: leave it out, or use the measure centred"
                )
            gradients[layer] = self._layouts[layer].to_rows(gradient, len(batch.x))
        return margin.detach(), gradients

    def _check_base(self) -> None:
        """Refuse a base whose activations cannot be compared, before it has prepared anything."""
        name = type(self.base).__name__
        if not self.base.perturbed_pass:
            hint = f"; it makes one with {_PERTURBED_WITH[name]}" if name in _PERTURBED_WITH else ""
            raise UserError(f"{name} makes no perturbed pass in each update, which layer regularisation needs{hint}")
        if not self.base.paired:
            raise UserError(
                "the clean and the perturbed pass show different mixtures, whose activations mean nothing together: "
                "set independent=False of iat"
            )
        asked = resolve(self.measure)
        if (asked.needs_classes or asked.needs_margin) and not self.base.own_classes:
            raise UserError(
                f"{name} mixes inputs, whose classes say nothing of their activations, and {self.measure} asks for "
                "classes: use the measure centred"
            )

    def _look(self, model: nn.Module, batches: Sequence[Tensor]) -> None:
        """Find where the inputs are in each layer's value, and what its name means.

        Raises:
            UserError: for a layer that cannot be regularised.
        """
        names = names_in(model, batches, self.layers)
        for layer in self.layers:
            if layer not in names:
                raise UserError(f"layers are regularised by name; {layer!r} is a pattern, for {', '.join(names)}")
        found = compared_modes(model, batches, self.layers)
        for layer, reason in found.reasons.items():
            raise UserError(_refusal(layer, reason))
        self._layouts, self._places, self._skipped = found.layouts, found.places, found.skipped


def _refusal(layer: str, reason: str) -> str:
    return refusal(layer, reason, "regularised")
