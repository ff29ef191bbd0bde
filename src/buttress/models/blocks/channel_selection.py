"""Channel selection: masks that weigh the channels of features by how much they matter to the likely classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.validation import number, one_of, positive, whole

MaskName = Literal["softmax", "softmax-sum", "softmax-abs", "sigmoid", "softplus", "relu"]
ProbeName = Literal["linear", "nonlinear"]
Scale = float | Literal["k", "channels"]
_BETA = 5.0  # of the softplus in the nonlinear probe


class Mask(nn.Module):
    """Channels' relevances to weights of 0 or more (the importance-mask generating function of CIFS).

    With g the sum over the k classes, C channels and s the scale: "softmax" is s softmax(a g); "softmax-sum" adds the
    softmaxes of the k classes, s sum_j softmax(a g_j); "softmax-abs" takes |g|, a control without regard to sign;
    "sigmoid" is s sigmoid(a (g - b)); "softplus" is s (log(1 + exp(a g)) / a)^p; "relu" is s max(a g, 0).

    Args:
        name: which of them; the authors' code has "softmax".
        sharpness: a; 1 / a is the temperature of a softmax.
        shift: b, of the sigmoid.
        power: p, of the softplus.
        scale: s. A softmax over C channels makes features about C times smaller: "channels" makes up for that, "k"
            gives it a budget of k; 1 as published.

    Raises:
        UserError: for values that make no sense.
    """

    def __init__(
        self,
        name: MaskName = "softmax",
        sharpness: float = 1.0,
        shift: float = 0.0,
        power: float = 1.0,
        scale: Scale = 1.0,
    ) -> None:
        super().__init__()
        one_of("mask", name, get_args(MaskName))
        self.name, self.shift = name, number("shift", shift)
        self.sharpness, self.power = positive("sharpness", sharpness), positive("power", power)
        self.scale: Scale = (
            scale if scale in ("k", "channels") else positive("scale, unless it is k or channels,", scale)
        )

    def forward(self, relevance: Tensor) -> Tensor:
        """(N, C) weights of relevances (N, k, C), one row for each of the k classes."""
        classes, channels = relevance.shape[1:]
        scale = {"k": classes, "channels": channels}[self.scale] if isinstance(self.scale, str) else self.scale
        return scale * self._weights(relevance)

    def _weights(self, relevance: Tensor) -> Tensor:
        if self.name == "softmax-sum":
            return (self.sharpness * relevance).softmax(2).sum(1)
        g = relevance.sum(1)
        if self.name == "softmax":
            return (self.sharpness * g).softmax(1)
        if self.name == "softmax-abs":
            return (self.sharpness * g.abs()).softmax(1)
        if self.name == "sigmoid":
            return (self.sharpness * (g - self.shift)).sigmoid()
        if self.name == "relu":
            return (self.sharpness * g).relu()
        weight = F.softplus(self.sharpness * g) / self.sharpness
        # Clamped, as a power below 1 has no finite slope at 0, to which a softplus can underflow.
        return weight if self.power == 1 else weight.clamp_min(torch.finfo(weight.dtype).tiny) ** self.power


class Probe(nn.Module, ABC):
    """A small classifier of features, by their mean over space, that also tells how its logits hang on each channel."""

    @abstractmethod
    def forward(self, pooled: Tensor) -> Tensor:
        """(N, K) logits of means over space (N, C)."""

    @abstractmethod
    def relevance(self, pooled: Tensor, classes: Tensor) -> Tensor:
        """(N, k, C) gradients of the logits of ``classes`` (N, k), summed over space; differentiable in the weights."""


class LinearProbe(Probe):
    """One linear layer: a class's relevances are its row of weights, whatever the features are."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, K) logits of means over space (N, C)."""
        logits: Tensor = self.fc(pooled)
        return logits

    def relevance(self, pooled: Tensor, classes: Tensor) -> Tensor:
        """(N, k, C) the classes' rows of weights."""
        return self.fc.weight[classes]


class NonlinearProbe(Probe):
    """Two linear layers with a softplus of beta 5 between them."""

    def __init__(self, channels: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = nn.Softplus(_BETA)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, K) logits of means over space (N, C)."""
        logits: Tensor = self.fc2(self.act(self.fc1(pooled)))
        return logits

    def relevance(self, pooled: Tensor, classes: Tensor) -> Tensor:
        """(N, k, C) rows of W2, times the softplus's slope, times W1: the chain rule written out."""
        slope = torch.sigmoid(_BETA * self.fc1(pooled))
        return (self.fc2.weight[classes] * slope[:, None]) @ self.fc1.weight


class Selection(nn.Module, ABC):
    """Multiplies each channel of features by a weight that a probe of these features gives."""

    probe: Probe

    def forward(self, z: Tensor, y: Tensor | None = None, detach: bool = True) -> tuple[Tensor, Tensor]:
        """Masked features, and the probe's logits (N, K), which a training term of their own goes on.

        Args:
            z: (N, C, ...) features.
            y: (N,) the true classes, which are used in training mode only; without them the probe's own answer is.
            detach: whether the mask gives no gradient to ``z``; see `ChannelSelection`.
        """
        pooled = z.flatten(2).mean(2)
        logits = self.probe(pooled)
        mask = self.mask(pooled, logits.detach(), y if self.training else None, detach)
        return z * mask.reshape(*mask.shape, *[1] * (z.dim() - 2)), logits

    @abstractmethod
    def mask(self, pooled: Tensor, logits: Tensor, y: Tensor | None, detach: bool) -> Tensor:
        """(N, C) a weight for each channel, given means over space (N, C), logits (N, K) and perhaps classes (N,)."""


class ChannelSelection(Selection):
    """CIFS: channels are weighed by their relevance to the classes that are likely (Yan et al., ICML 2021).

    The relevances are the gradient of the probe's logits with respect to the features, summed over space, for the k
    classes that the probe ranks first. In training mode with labels the true class takes the place of the first of
    them, and is counted twice where it is ranked among the others. As published, the mask gives gradients to the probe
    and none to the features, and so neither to the input: a white-box attack does not see how the mask answers. The
    network's variant "not detached" does.

    The relevances are computed in closed form, so that they need no graph in evaluation and no second backward pass in
    training; the gradients are those of the authors' code, which differentiates twice.

    Args:
        channels: C, of the features.
        classes: K.
        probe: "linear" or "nonlinear".
        hidden: width of the nonlinear probe.
        k: classes that count.
        mask: turns relevances into weights.
        detach: False for gradients through the mask to the features, too.

    Raises:
        UserError: for values that make no sense.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        probe: ProbeName = "linear",
        hidden: int = 128,
        k: int = 2,
        mask: Mask | None = None,
        detach: bool = True,
    ) -> None:
        super().__init__()
        if whole("k", k, 1) > classes:
            raise UserError(f"k, the classes that count, must be at most the {classes} that there are; got {k}")
        one_of("probe", probe, get_args(ProbeName))
        linear = probe == "linear"
        self.probe = (
            LinearProbe(channels, classes) if linear else NonlinearProbe(channels, classes, whole("hidden", hidden, 1))
        )
        self.k, self.weigh, self.detach = k, Mask() if mask is None else mask, detach

    def mask(self, pooled: Tensor, logits: Tensor, y: Tensor | None, detach: bool) -> Tensor:
        """(N, C) weights of 0 or more."""
        likely = logits.topk(self.k, 1).indices
        if y is not None:
            likely = torch.cat([y[:, None], likely[:, 1:]], 1)
        weight: Tensor = self.weigh(self.probe.relevance(pooled.detach() if detach and self.detach else pooled, likely))
        return weight


class ChannelSuppression(Selection):
    """CAS: channels are multiplied by a linear probe's weights of one class, signs included (Bai et al., ICLR 2021).

    The true class in training mode with labels, else the probe's own answer. The weights do not hang on the features
    other than by that choice, so there is nothing to detach.

    Args:
        channels: C, of the features.
        classes: K.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.probe = LinearProbe(channels, classes)

    def mask(self, pooled: Tensor, logits: Tensor, y: Tensor | None, detach: bool) -> Tensor:
        """(N, C) a row of the probe's weights for each input."""
        labels = logits.argmax(1) if y is None else y
        return self.probe.relevance(pooled, labels[:, None]).squeeze(1)
