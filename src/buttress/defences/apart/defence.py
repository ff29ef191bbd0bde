"""APART: the perturbation of training is learned along with the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress import losses
from buttress.attacks import Perturbation
from buttress.attacks.gradient.fgsm import FGSM
from buttress.data.dataset import Dataset
from buttress.defences.apart.start_memory import Memory, Sizes, Storage, check_storage
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, Step, StepContext
from buttress.engine.input_dtype import suited
from buttress.engine.preserved_model import Mode, preserved
from buttress.errors import UserError
from buttress.layers.capture import capture, layer_names
from buttress.layers.rows import CHECKED, PART, layouts, of_inputs
from buttress.layers.select import user_module
from buttress.layers.told_apart import check_names
from buttress.model_call import call_model
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import name_list, not_negative, number, one_of

Parametrisation = Literal["scaled", "paper"]

_USUAL = {"scaled": (2.5e-3, 0.4, 1e-3), "paper": (5e-8, 400.0, 1e-4)}  # rate, weight decay, first value
_TINY = 1e-7  # added to alpha_omega where it divides


@dataclass
class _Pending:
    """What a loss leaves for the end of its step: leaves whose gradients its backward pass fills, and the start."""

    sizes: Tensor
    x_adv: Tensor
    start: Tensor


@defence("apart")
class APART(Defence):
    """Cross-entropy at inputs perturbed by learned starts, step sizes and, if wanted, steps inside the network.

    Li et al., arXiv 2010.08034. Each training image has a start omega in [-1, 1]; a step goes from
    clip(alpha_omega omega) by alpha along the sign of the gradient there, both within eps, and the loss is that of the
    point reached. Weights descend; the scalars alpha, alpha_omega (and one for each layer) climb the same loss by an
    SGD of their own; omega moves by alpha / alpha_omega along the sign of the gradient at the point reached. Starts
    move along with the augmentation. What is learned is saved with each checkpoint and left out of the exported model;
    the starts take 2 bytes ("float16") for each value of the padded training data.

    BatchNorm's buffers see the second pass only; in the authors' code they see both. Cost: 1 gradient of the inputs and
    1 of the weights per step.

    Args:
        threat: what the model is trained against: linf with a finite eps.
        parametrisation: "scaled" keeps alpha and alpha_omega in units of eps and a layer's alpha in units of its
            activation's standard deviation, so that the settings do not hang on the data; "paper" keeps them in the
            units of what they are added to.
        lr: highest rate of the scalars; it rises from 0 to this at half of the training and falls to 0 again. 2.5e-3
            (scaled) or 5e-8 (paper) unless given.
        decay: weight decay of the scalars; 0.4 (scaled) or 400 (paper) unless given.
        first: first value of alpha and alpha_omega; 1e-3 (scaled) or 1e-4 (paper) unless given.
        momentum: of the scalars' SGD.
        layers: activations that are perturbed too, by name; "blocks" for the first activation of each residual block
            (modules whose class is called Block or Bottleneck), as in the paper; none unless given.
        layer_cap: largest perturbation of an activation, in units of its standard deviation; without a bound (None)
            these terms can ruin clean accuracy.
        storage: how starts are kept: "float16", "int8" or "float32".
        mode: the model's mode in the pass for the sign.
    """

    paper = "Li et al., arXiv 2010.08034"

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        parametrisation: Parametrisation = "scaled",
        lr: float | None = None,
        decay: float | None = None,
        first: float | None = None,
        momentum: float = 0.9,
        layers: Sequence[str] | Literal["blocks"] = (),
        layer_cap: float | None = 0.02,
        storage: Storage = "float16",
        mode: Mode = "train",
    ) -> None:
        super().__init__()
        self.threat = threat
        norm, eps = self.threat.norm, self.threat.eps
        if norm != "linf" or not 0 < eps < math.inf:
            raise UserError(f"apart needs a linf threat with a positive, finite eps; got {norm}, {eps}")
        one_of("parametrisation", parametrisation, get_args(Parametrisation))
        for name, value in (("lr", lr), ("decay", decay), ("first", first), ("layer_cap", layer_cap)):
            if value is not None:
                not_negative(name, value)
        number("momentum", momentum, "[0, 1)")
        check_storage(storage)
        self.parametrisation, self.lr, self.decay, self.first = parametrisation, lr, decay, first
        self.momentum, self.layer_cap, self.storage, self.mode = momentum, layer_cap, storage, mode
        names = name_list("layers", layers)
        self.layers: Sequence[str] = "blocks" if names == ("blocks",) else names
        self.names: list[str] = []  # of the layers, once the model is known
        self.memory: Memory | None = None
        self.sizes: Sizes | None = None
        self._pending: _Pending | None = None

    @property
    def attack(self) -> Perturbation:
        """FGSM, which the perturbation is before anything has been learned."""
        return FGSM(threat=self.threat)

    @property
    def cost(self) -> Cost:
        """Two passes of each kind."""
        return Cost(2, 2)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Find the layers, and make room for what is learned.

        Raises:
            UserError: for layers that the model does not have or that are others in training (see `check_names`), and
                in a training of several processes, each of which would learn starts of its own.
        """
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            processes = torch.distributed.get_world_size()
            if processes > 1:
                raise UserError(f"apart learns a start for each image in 1 process; got {processes}: set devices to 1")
        x = suited(model, data.train.take(torch.arange(min(CHECKED, len(data.train))))[0])
        self.names = _layer_names(model, x, self.layers)
        check_names(model, x, self.names, always=False)  # one that is skipped has no perturbation
        where = layouts(model, x, self.names) if self.names else {}
        for name in self.names:  # what is the same for all inputs has no perturbation for each
            of_inputs(f"the layer {name!r}", where.get(name, PART))
        usual = zip((self.lr, self.decay, self.first), _USUAL[self.parametrisation], strict=True)
        lr, decay, first = (own if value is None else value for value, own in usual)
        self.memory = Memory(data, seed, self.storage)
        self.sizes = Sizes([first, first] + [0.0] * len(self.names), lr, self.momentum, decay)
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean cross-entropy at the perturbed points."""
        memory, step_sizes = self._learned()
        x, unit = context.batch.x, context.scale * self._unit
        eps = context.scale * self.threat.eps * self.threat.shared(torch.ones_like(x))
        sizes = step_sizes.values.detach().to(x.dtype, copy=True).requires_grad_()
        start = memory.read(batch.ids, int(context.epoch)).to(x.dtype)
        first = (unit * sizes[1] * start).clamp(-eps, eps)
        place = self.threat.clip(x + first.detach(), x)
        slope, inner = context.once("apart", lambda: self._slopes(model, place, batch.y, context))
        x_adv = self.threat.clip(x + (first + unit * sizes[0] * slope.sign()).clamp(-eps, eps), x)
        if x_adv.requires_grad:  # not where gradients are off
            x_adv.retain_grad()
        with self._perturbed(model, inner, sizes, context):
            logits = context.adversarial(x_adv)
        self._pending = _Pending(sizes, x_adv, start)
        return Loss(F.cross_entropy(logits, batch.y), self._figures(sizes.detach()))

    def step(self, step: Step) -> None:
        """One update of the weights, then of what is learned beside them."""
        step.update(step.loss())
        pending, self._pending = self._pending, None
        if pending is None or pending.x_adv.grad is None or pending.sizes.grad is None:
            return  # whoever wrapped the step took the gradient elsewhere
        memory, step_sizes = self._learned()
        alpha, alpha_omega = (self._unit * pending.sizes.detach()[:2]).unbind()
        ratio = (alpha / (alpha_omega + _TINY)).nan_to_num(0.0).clamp(-2, 2)  # omega spans 2: further is no further
        memory.write(
            step.batch.ids, int(step.context.epoch), (pending.start + ratio * pending.x_adv.grad.sign()).clamp(-1, 1)
        )
        step_sizes.climb(pending.sizes.grad, step.context.progress)

    @property
    def _unit(self) -> float:
        return self.threat.eps if self.parametrisation == "scaled" else 1.0

    def _learned(self) -> tuple[Memory, Sizes]:
        if self.memory is None or self.sizes is None:
            raise UserError("apart learns a start for each training image: call prepare with the data first")
        return self.memory, self.sizes

    def _figures(self, sizes: Tensor) -> dict[str, Tensor]:
        """Alpha and alpha_omega in units of eps; of each layer's, where scaled, what the cap leaves."""
        alpha, alpha_omega = self._unit * sizes[:2] / self.threat.eps
        capped = self.layer_cap if self.parametrisation == "scaled" and self.layer_cap is not None else math.inf
        inner = sizes[2:].clamp(-capped, capped)
        layers = {f"alpha {name}": size for name, size in zip(self.names, inner, strict=True)}
        return {"alpha": alpha, "alpha_omega": alpha_omega, **layers}

    def _slopes(self, model: nn.Module, x: Tensor, y: Tensor, context: StepContext) -> tuple[Tensor, dict[str, Tensor]]:
        """Gradients of the loss at ``x`` for the inputs and for the layers; the model is left as it was."""
        points, offsets = x.detach().clone().requires_grad_(), dict[str, Tensor]()

        def see(name: str, value: Tensor) -> Tensor:
            offsets[name] = torch.zeros_like(value, requires_grad=True)
            return value + offsets[name]

        with preserved(model, self.mode, context.seed, x.device), self._seen(model, see, context):
            output = context.task.read(call_model(model, points)).double()  # a saturated softmax keeps its gradient
            value = losses.cross_entropy(output, y).sum()
            slope, *inner = torch.autograd.grad(value, [points, *offsets.values()], materialize_grads=True)
        return slope, dict(zip(offsets, inner, strict=True))

    def _perturbed(
        self, model: nn.Module, slopes: dict[str, Tensor], sizes: Tensor, context: StepContext
    ) -> AbstractContextManager[Any]:
        """The model with each layer moved along the sign of its gradient."""
        own = dict(zip(self.names, sizes[2:], strict=True))

        def move(name: str, value: Tensor) -> Tensor:
            if name not in slopes:
                return value
            spread = value.detach().to(own[name]).std()
            size = own[name] * spread if self.parametrisation == "scaled" else own[name]
            if self.layer_cap is not None:
                size = size.clamp(-self.layer_cap * spread, self.layer_cap * spread)
            moved: Tensor = value + (size * slopes[name].sign()).to(value.dtype)
            return moved

        return self._seen(model, move, context)

    def _seen(self, model: nn.Module, see: Any, context: StepContext) -> AbstractContextManager[Any]:
        return capture(model, self.names, replace=see, code=context.code) if self.names else nullcontext()


def _layer_names(model: nn.Module, x: Tensor, layers: Sequence[str] | str) -> list[str]:
    """The layers' names in order of execution."""
    if layers != "blocks":
        return layer_names(model, x, list(layers)) if layers else []
    activations = layer_names(model, x)
    kinds = {path: type(module).__name__.lower() for path, module in user_module(model).named_modules() if path}
    blocks = [path for path, kind in kinds.items() if kind.endswith(("block", "bottleneck"))]
    first = [next((name for name in activations if name.startswith(f"{path}.")), None) for path in blocks]
    names = [name for name in activations if name in first]
    if not names:
        raise UserError("layers: blocks finds no class called Block or Bottleneck; name the activations instead")
    return names
