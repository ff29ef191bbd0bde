"""Self-gradient networks: a second pass that sees the gradient of the first one's loss."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from buttress.errors import UserError
from buttress.models.blocks.two_pass_trunks import (
    ACTIVATIONS,
    NORMS,
    TRUNKS,
    Correction,
    Trunk,
    cnn_trunk,
    resnet_trunk,
    smoothed,
)
from buttress.registry import model
from buttress.validation import not_negative, number, one_of, switch, whole

VARIANTS = ("input", "feature", "residual")
GRADIENTS = ("own", "none")
NORMALISATIONS = ("max", "l2", "sign")
SCORES = ("cross-entropy", "entropy")
_TINY = 1e-12
_SOFT = 0.1  # of the largest entry: where the tanh in the place of the sign turns over


class SelfGradient(nn.Module):
    """A network whose second pass sees the gradient of a loss of its first pass, which needs no label.

    A reconstruction after the abstract of Aboutalebi, Shafiee and Wong, "Self-Gradient Networks" (arXiv 2011.09364),
    which says that the network takes its own gradient flow as information, and no more: which gradient, where it
    enters, how it is scaled and the trunk are our choices, each an option. With trunk t:

    1. z1 = t(x, 0), s = the sum over the batch of CE(z1, argmax z1), g = ds/dx, scaled input by input to g^.
    2. "input": z2 = t(x, g^), the gradient as more channels; "feature": the gradients of s by the features after each
       stage, and in the second pass h + phi(h, g^) in the place of these features; "residual": z2 = t(x - eta g^) with
       a learned eta, which is the anti-adversary layer (Alfarra et al., AAAI 2022) with a learned step.

    The answer is z2. Its gradient goes through g (second derivatives), in training and in attacks, unless ``detach``.
    One answer costs 2 forward passes of the trunk and 1 backward pass.

    Args:
        trunk: the two passes' weights.
        variant: input, feature or residual.
        gradient: own; or none for the network of the same size that sees the input, or the features, once more in the
            place of the gradient, in a single pass.
        normalise: max (by the largest absolute entry), l2 (to length sqrt(d), d numbers an input) or sign.
        score: s as above, or the entropy of the first pass.
        detach: whether the gradient counts as a constant when the answer is differentiated.
        auxiliary: weight of CE(z1, y) in training; see `forward_with_auxiliary`.
        channels: of the images.
        activation: of the corrections.
        eta: the first step of "residual".
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        variant: str,
        gradient: str,
        normalise: str,
        score: str,
        detach: bool,
        auxiliary: float,
        channels: int,
        activation: str,
        eta: float,
    ) -> None:
        super().__init__()
        self.trunk, self.variant, self.gradient, self.channels = trunk, variant, gradient, channels
        self.normalise, self.score, self.detach, self.auxiliary = normalise, score, detach, auxiliary
        self.soft, self.replacement = False, ""  # of variants and ablations alone
        if variant == "feature":
            self.corrections = nn.ModuleList([Correction(features, activation) for features in trunk.widths])
        if variant == "residual" and gradient == "own":
            self.eta = nn.Parameter(torch.tensor(float(eta)))
        if trunk.size:
            self.image_size = trunk.size

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, channels, H, W)."""
        return self._both_passes(x)[1]

    def first_pass(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of the first pass, without the gradient."""
        self._check(x)
        return self._run(x, 0, None)[0]

    def forward_with_auxiliary(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and what is added to the loss: the first pass's cross-entropy, weighted; 0 where there is none."""
        first, second = self._both_passes(x)
        if first is None or not self.auxiliary:
            return second, second.new_zeros(())
        return second, self.auxiliary * F.cross_entropy(first, y)

    def attack_variants(self) -> dict[str, nn.Module]:
        """What to craft examples on besides: made of this network's own weights, as it is at the time of the call.

        "detached" (the gradient as a constant, as in BPDA; "not detached" where the network detaches it itself), "first
        pass", and "smooth": softplus with beta 10 for ReLU and tanh for the sign, so that the gradient's own gradient
        is not lost.
        """
        if self.gradient == "none":
            return {}
        other = "not detached" if self.detach else "detached"
        smooth = smoothed(self)
        vars(smooth)["soft"] = True
        vars(smooth)["detach"] = False
        return {other: self._altered(detach=not self.detach), "first pass": _FirstPass(self), "smooth": smooth}

    def ablations(self) -> dict[str, nn.Module]:
        """The same weights with zeros or noise for the gradient: where nothing gets worse, it is of no use."""
        if self.gradient == "none":
            return {}
        return {
            "zero gradient": self._altered(replacement="zero"),
            "noise for the gradient": self._altered(replacement="noise"),
        }

    def _altered(self, **changes: Any) -> SelfGradient:
        same = copy.copy(self)
        vars(same).update(changes)
        return same

    def _both_passes(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Logits of the first pass, if there is one, and the answer."""
        self._check(x)
        if self.gradient == "none":
            return None, self._run(x, 1, [])[0]
        traced = torch.is_grad_enabled()  # before anything else: leaving inference mode turns gradients on
        outside = torch.inference_mode(False) if torch.is_inference_mode_enabled() else contextlib.nullcontext()
        with outside:
            x = x.clone() if x.is_inference() else x
            # With respect to x itself where a gradient of the answer is wanted: an attack must see the whole path.
            start = x if traced and x.requires_grad else x.detach().clone().requires_grad_()
            with torch.enable_grad():
                first, flows = self._flows(start, traced)
            with torch.set_grad_enabled(traced):
                return first, self._run(start, 1, flows)[0]

    def _flows(self, start: Tensor, traced: bool) -> tuple[Tensor, list[Tensor]]:
        """First-pass logits, and the scaled gradients of their score by the input or by the features of each stage."""
        first, features = self._run(start, 0, None)
        logits = first.float() if first.dtype in (torch.bfloat16, torch.float16) else first
        if self.score == "entropy":
            log = logits.log_softmax(1)
            score = -(log.exp() * log).sum()
        else:
            score = F.cross_entropy(logits, logits.detach().argmax(1), reduction="sum")
        variables = features if self.variant == "feature" else [start]
        # The graph is kept for the first pass's own part of the loss, too.
        gradients = torch.autograd.grad(
            score, variables, create_graph=traced and not self.detach, retain_graph=traced, materialize_grads=True
        )
        return first, [self._normalised(self._replaced(flow)) for flow in gradients]

    def _replaced(self, flow: Tensor) -> Tensor:
        if self.replacement:
            return torch.zeros_like(flow) if self.replacement == "zero" else torch.randn_like(flow)
        return flow

    def _normalised(self, flow: Tensor) -> Tensor:
        """Each input's gradient by itself, so that an answer does not depend on the batch."""
        rows = flow.flatten(1)
        if self.normalise == "l2":
            rows = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + _TINY) * math.sqrt(rows.shape[1])
        elif self.normalise == "max":
            rows = rows / (rows.abs().amax(1, keepdim=True) + _TINY)
        elif self.soft:
            rows = torch.tanh(rows / (_SOFT * rows.abs().amax(1, keepdim=True) + _TINY))
        else:
            rows = rows.sign()
        return rows.view_as(flow)

    def _run(self, x: Tensor, turn: int, flows: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Logits and the features after each stage; ``flows`` is None in a first pass, and empty without gradient."""
        self.trunk.turn(turn)
        h, features = self._first_input(x, flows), list[Tensor]()
        for k, stage in enumerate(self.trunk.stages):
            h = stage(h)
            features.append(h)
            if self.variant == "feature" and flows is not None:
                h = h + self.corrections[k](h, flows[k] if flows else h)
        logits: Tensor = self.trunk.head(h)
        return logits, features

    def _first_input(self, x: Tensor, flows: list[Tensor] | None) -> Tensor:
        """The input of the first stage."""
        if self.variant == "input":
            beside = torch.zeros_like(x) if flows is None else flows[0] if flows else x
            return torch.cat([x, beside], 1)
        return x - self.eta * flows[0] if self.variant == "residual" and flows else x

    def _check(self, x: Tensor) -> None:
        """Refuse images of another kind here: the first convolution sees more channels than the image has."""
        size = self.trunk.size
        if x.dim() == 4 and x.shape[1] == self.channels and (not size or x.shape[2:] == (size, size)):
            return
        takes = f"{self.channels} channel{'s' * (self.channels > 1)} of images"
        pixels = f" of {size}x{size} pixels" if size else ""
        raise UserError(
            f"{type(self).__name__} cannot take inputs of shape {'x'.join(map(str, x.shape))}: its first layer, "
            f"beside the gradient, takes {takes}{pixels}; give such inputs, or a model made for these"
        )


class _FirstPass(nn.Module):
    """A network's first pass as a network."""

    def __init__(self, network: SelfGradient) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the first pass."""
        return self.network.first_pass(x)


@model("self-gradient")
def self_gradient(
    *,
    classes: int = 10,
    channels: int = 1,
    image_size: int = 8,
    width: int = 16,
    variant: str = "input",
    gradient: str = "own",
    normalise: str = "max",
    score: str = "cross-entropy",
    detach: bool = False,
    auxiliary: float = 0.5,
    eta: float = 0.05,
    trunk: str = "cnn",
    activation: str = "relu",
    norm: str | None = None,
) -> nn.Module:
    """A network that sees its own gradient: our reconstruction of self-gradient networks (arXiv 2011.09364).

    See `SelfGradient` for what is computed; only the abstract of the paper could be read.

    Args:
        classes: number of classes.
        channels: channels of the images.
        image_size: height and width of the images in pixels, at least 4; the trunk resnet18 takes any.
        width: filters of the first convolution.
        variant: "input" (the gradient as more channels), "feature" (corrections of the features after each stage) or
            "residual" (a learned step against the gradient).
        gradient: "own", or "none" for the control of equal size that sees a copy where the gradient would be.
        normalise: "max", "l2" or "sign"; the last has no gradient of its own, which hides it from attacks.
        score: "cross-entropy" with the first pass's own decision, or its "entropy".
        detach: treat the gradient as a constant when the answer is differentiated, in training and in attacks.
        auxiliary: weight of the first pass's cross-entropy in training.
        eta: first step of "residual".
        trunk: "cnn", as the architecture of that name, or "resnet18".
        activation: "relu", or a smooth one as of ``models.create``: softplus, gelu, silu, elu.
        norm: "none", "batch" (with statistics for each pass) or "group"; the trunk's usual one unless given: none for
            the cnn, batch for the resnet18.
    """
    one_of("variant", variant, VARIANTS)
    one_of("gradient", gradient, GRADIENTS)
    one_of("normalise", normalise, NORMALISATIONS)
    one_of("score", score, SCORES)
    one_of("activation", activation, ACTIVATIONS)
    one_of("norm", "none" if norm is None else norm, NORMS)
    switch("detach", detach)
    classes, channels, width = whole("classes", classes, 2), whole("channels", channels, 1), whole("width", width, 1)
    inputs, twice = channels * (1 + (variant == "input")), gradient == "own"
    if one_of("trunk", trunk, TRUNKS) == "cnn":
        stages = cnn_trunk(inputs, classes, width, whole("image_size", image_size, 4), activation, norm, twice)
    else:
        stages = resnet_trunk(inputs, classes, width, activation, norm, twice)
    return SelfGradient(
        stages,
        variant=variant,
        gradient=gradient,
        normalise=normalise,
        score=score,
        detach=detach,
        auxiliary=not_negative("auxiliary", auxiliary),
        channels=channels,
        activation=activation,
        eta=number("eta", eta),
    )
