"""J-SIGR: a small Jacobian, and input gradients that keep to what the answer hangs on."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.data.augment import Augment, Geometry, draws
from buttress.data.dataset import Dataset
from buttress.data.memory import require_memory
from buttress.defences.base.crafting import crafting_passes
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, Step, StepContext
from buttress.defences.base.memory import Rows
from buttress.engine.preserved_model import Mode, preserved
from buttress.errors import UserError
from buttress.layers.saliency import Fill, check_images, check_window, log_probability, occlusion, windows
from buttress.model_call import call_model
from buttress.random import Random
from buttress.registry import defence
from buttress.validation import not_negative, number, one_of, share, whole

Penalty = Literal["l1", "squared"]


@defence("j-sigr")
class JSIGR(Defence):
    """Cross-entropy plus the norm of the Jacobian plus the input gradient outside the salient part of the image.

    After Liu et al., Pattern Recognition 2024 (arXiv 2207.13036):
    CE + ``jacobian`` mean ||df/dx||_F^2 + ``selective`` mean ||K * grad_x log p_y||, where K is 1 at the locations
    whose occlusion saliency (`buttress.layers.saliency.occlusion`, no gradient through it) is below ``threshold``. Both
    terms are of the clean inputs with the model in eval mode, in full precision, from a pass that leaves BatchNorm's
    buffers alone. Gradient penalties can mask gradients: check the result with the audit ``masking``.

    Cost over that of the cross-entropy: one forward, one backward for each projection (for each class where exact), two
    for the selective term, and, in each epoch in which maps are made, one forward per window and one more. All
    backwards of the two terms are of second order.

    Args:
        attack: what perturbs the inputs of the cross-entropy; None for clean ones.
        jacobian: weight of the Jacobian's norm, 0 or more.
        selective: weight of the selective term, 0 or more; both weights hang on the size and scale of the inputs.
        projections: random directions in which the Jacobian's norm is estimated, C / P sum ||grad_x v f||^2 over P unit
            vectors v in R^C, without bias; None for the exact one.
        threshold: saliency below which a location's gradient is penalised, in [0, 1].
        penalty: "l1" sums magnitudes, "squared" squares.
        window: odd side of the windows covered; by the image's size unless given.
        stride: distance of neighbouring windows.
        fill: what covered pixels become: "blur" or "zero".
        every: epochs between two makings of an input's map; in the epochs between, the map moves along with the
            image's augmentation, and where there is none yet, nothing is penalised.
        label_smoothing: share of the truth spread over all classes in the cross-entropy, in [0, 1); keeps the network
            from a confidence whose gradient, and so the selective term, vanishes.
        mode: the model's mode while the attack crafts.
    """

    paper = "Liu et al., Pattern Recognition 2024"
    cost_hangs_on = "a pass for each pixel's window, so 396 x the passes of standard training at 28x28"
    reconstruction = "the formulas of both terms and all constants"

    maps: Tensor

    def __init__(
        self,
        attack: Perturbation | None = None,
        jacobian: float = 0.01,
        selective: float = 0.02,
        projections: int | None = 1,
        threshold: float = 0.1,
        penalty: Penalty = "l1",
        window: int | None = None,
        stride: int = 1,
        fill: Fill = "blur",
        every: int = 1,
        label_smoothing: float = 0.0,
        mode: Mode = "eval",
    ) -> None:
        super().__init__()
        not_negative("jacobian", jacobian)
        not_negative("selective", selective)
        if projections is not None:
            whole("projections", projections)
        whole("every", every)
        share("threshold", threshold)
        number("label_smoothing", label_smoothing, "[0, 1)")
        one_of("penalty", penalty, get_args(Penalty))
        check_window(window, stride, fill)
        self._attack, self.jacobian, self.selective, self.projections = attack, jacobian, selective, projections
        self.threshold, self.penalty, self.window, self.stride, self.fill = threshold, penalty, window, stride, fill
        self.every, self.label_smoothing, self.mode = every, label_smoothing, mode
        self._classes = self._windows = 0  # known once the data are
        self._augment: Augment | None = None
        self._seed = 0
        self._new_maps: Tensor | None = None  # this step's new maps
        self.register_buffer("maps", torch.zeros(0))

    @property
    def perturbed_pass(self) -> bool:
        """Whether its loss makes a perturbed pass: where an attack is given."""
        return self._attack is not None

    @property
    def clean_pass(self) -> bool:
        """Whether its loss makes a clean pass: where no attack is given."""
        return self._attack is None

    @property
    def attack(self) -> Perturbation | None:
        """What perturbs the inputs of the cross-entropy."""
        return self._attack

    @property
    def cost(self) -> Cost | None:
        """None before the data are known; the maps' share of it is a mean over ``every`` epochs."""
        crafting = crafting_passes(self.attack, self.mode)
        if crafting is None or not self._classes:
            return None
        backwards = (self.projections or self._classes) if self.jacobian else 0
        selecting = 2 if self.selective else 0
        extra = 1 + backwards + selecting if backwards or selecting else 0
        covering = (self._windows + 1) / self.every if self.selective else 0
        return Cost(crafting + covering, 2 + extra)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Note the classes, the image's size and the augmentation; make room for maps that are kept.

        Raises:
            UserError: for inputs that are no images, unless ``selective`` is 0; and where maps are to be kept in a
                training of several processes, each of which would have maps of its own.
        """
        self._classes, self._augment, self._seed = len(data.classes), data.augment, seed
        if self.selective:
            check_images(data.train.x.shape)
            height, width = data.shape[1:]
            self._windows = windows(height, width, self.stride)
            if self.every > 1:
                _refuse_processes()
                self.rows = Rows(data.train)
                pad = 0 if data.augment is None else 2 * data.augment.pad
                shape = (len(data.train), 1, height + pad, width + pad)
                require_memory(2 * math.prod(shape), f"{self.label()} keeps a map of each of {shape[0]} inputs, which")
                maps = torch.ones(shape, dtype=torch.float16)
                self.register_buffer("maps", maps)
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The sum of the three terms."""
        logits = (
            context.clean(batch.x)
            if self.attack is None
            else context.adversarial(context.craft(self.attack, mode=self.mode))
        )
        entropy = F.cross_entropy(logits, batch.y, label_smoothing=self.label_smoothing)
        if not self.jacobian and not self.selective:
            return Loss(entropy)
        value, logs = entropy, {"cross_entropy": entropy.detach()}
        # After the pass that trains: BatchNorm's buffers must be in the backward pass what they were in this one.
        with preserved(model, "eval", context.seed, batch.x.device), torch.autocast(batch.x.device.type, enabled=False):
            clean = batch.x.to(torch.promote_types(batch.x.dtype, torch.float32))
            x = clean.clone().requires_grad_()
            logits = context.task.read(call_model(model, x))
            if self.jacobian:
                norm = jacobian_norm(logits, x, self.projections, context.random.fork("projections")).mean()
                value, logs["jacobian"] = value + self.jacobian * norm, norm.detach()
            if self.selective:
                (slope,) = torch.autograd.grad(log_probability(logits, batch.y).sum(), x, create_graph=True)
                size = slope.abs() if self.penalty == "l1" else slope.square()
                outside = (self._saliency(model, Batch(clean.detach(), batch.y, batch.ids), context) < self.threshold)[
                    :, None
                ]
                selected = (size * outside).flatten(1).sum(1).mean()
                value, logs["selective"] = value + self.selective * selected, selected.detach()
        return Loss(value, logs)

    def step(self, step: Step) -> None:
        """One update; then new maps are kept where they are of use in later epochs."""
        step.update(step.loss())
        if self._new_maps is not None:
            rows = self.rows(step.batch.ids)
            maps = self.maps[rows].to(self._new_maps.dtype)
            geometry = self._geometry(step.batch, step.context)
            whole = self._new_maps[:, None] if geometry is None else geometry.put(self._new_maps[:, None], maps)
            self.maps[rows] = whole.to(self.maps.dtype)
            self._new_maps = None

    def _saliency(self, model: nn.Module, batch: Batch, context: StepContext) -> Tensor:
        """(N, H, W) maps of the batch: new ones, or those of an earlier epoch where the images are now."""
        if int(context.epoch) % self.every == 0:
            maps = context.once("occlusion", lambda: self._covered(model, batch, context))
            self._new_maps = maps if self.every > 1 else None
            return maps
        maps, geometry = self.maps[self.rows(batch.ids)], self._geometry(batch, context)
        size = (batch.x.shape[2], batch.x.shape[3])
        return (maps if geometry is None else geometry.cut(maps, size)).squeeze(1).to(batch.x.dtype)

    def _covered(self, model: nn.Module, batch: Batch, context: StepContext) -> Tensor:
        return occlusion(model, batch.x, batch.y, self.window, stride=self.stride, fill=self.fill, task=context.task)

    def _geometry(self, batch: Batch, context: StepContext) -> Geometry | None:
        if self._augment is None:
            return None
        return self._augment.geometry(draws(self._seed, int(context.epoch), batch.ids), batch.x.device)


def _refuse_processes() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        processes = torch.distributed.get_world_size()
        if processes > 1:
            raise UserError(f"j-sigr keeps maps in 1 process; got {processes}: set every to 1 or devices to 1")


def jacobian_norm(logits: Tensor, x: Tensor, projections: int | None, random: Random) -> Tensor:
    """(N,) squared Frobenius norm of d logits / d x, differentiable: estimated, or exact with ``projections`` None.

    The estimator of Hoffman, Roberts and Yaida (arXiv 1908.02729): C / P sum over P unit vectors v, uniform on the
    sphere in R^C, of ||grad_x v f(x)||^2; its mean is the norm. Cost: one backward per projection, or per class.

    Args:
        logits: (N, C), made from ``x`` row by row.
        x: (N, ...) that requires a gradient.
        projections: P, or None.
        random: the directions' draws.
    """
    n, classes = logits.shape
    if projections is None:
        ways = torch.eye(classes, dtype=logits.dtype, device=logits.device)[None].expand(n, -1, -1)
    else:
        ways = F.normalize(random.normal((projections, classes), torch.float64), dim=2).to(logits)
    total = logits.new_zeros(n)
    for way in ways.unbind(1):
        (slope,) = torch.autograd.grad(logits, x, way, create_graph=True)
        total = total + slope.flatten(1).square().sum(1)
    return total if projections is None else total * classes / projections
