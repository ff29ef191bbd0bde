"""Which channels are relevant to a class, and which are active: on clean inputs and on attacked ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base import statistics
from buttress.audits.base.audit import TAKES_ATTACKS, Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.ranking import joined
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work, asked
from buttress.audits.classes import tied_with_worst
from buttress.data.class_names import class_indices
from buttress.defences.class_corrected import last_linear
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.capture import capture, layer_names
from buttress.layers.channel_axis import channel_axis
from buttress.layers.correlation import pearson, spearman
from buttress.layers.rows import layout_of
from buttress.model_call import call_model
from buttress.registry import audit
from buttress.validation import one_name, one_of

Unit = Literal["each", "clean"]
_ACTIVE = 0.01  # of the largest value of the layer, above which a channel counts as active
_MEANS = (
    *(
        "negative_clean",
        "negative_attacked",
        "pearson_clean",
        "pearson_attacked",
        "spearman_clean",
        "spearman_attacked",
    ),
    *("l1", "cosine"),
)


@audit("channels")
@dataclass(frozen=True, kw_only=True)
class Channels(Audit):
    """Activations by channel and class, after Bai et al. (ICLR 2021) and Yan et al. (ICML 2021); computed our own way.

    A channel is positively relevant to a class where the class's weight on it is above 0, and negatively where it is
    below. Over all inputs of a class, a channel's activation is the mean over inputs and space, in units of the largest
    of the class's channels. By class are reported the share of the activation (in absolute value) in negatively
    relevant channels, on clean and on attacked inputs; the correlation of activations with weights; the L1 and the
    cosine distance of clean and attacked activations; how often channels are active, that is above 1 % of the largest
    value that the layer has; and robust accuracy beside these. Means over classes follow, how much of the share in
    negatively relevant channels an attack adds (gained), the rank correlation over classes of robust accuracy and of
    that of attacked activations with weights (alignment), and the latter of the most and of the least robust class.

    The features are those that enter the last linear layer, what masks them (CIFS) included. Of another layer the mean
    gradient of the class's logit over its clean inputs, summed over space, takes the place of the weights.

    Cost: the attack, and two forwards per input; one gradient more where a layer is named.

    Args:
        attack: what perturbs the inputs.
        layer: name of a layer with values for each input, whose channels are along the axis that `channel_axis` finds,
            as of images or of tokens; what enters the last linear layer unless given.
        unit: activations are divided by the largest of "each" kind, clean or attacked, or by the "clean" one in both.
        classes: whose curves are drawn, by name or index; the most and the least robust unless given.
    """

    topic: ClassVar[Topic] = "What happens inside"

    attack: Annotated[Perturbation, TAKES_ATTACKS] = PGD(steps=20)
    layer: str | None = None
    unit: Unit = "each"
    classes: Sequence[int | str] | None = None

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        one_of("unit", self.unit, get_args(Unit))
        if self.layer is not None:
            one_name("layer", self.layer)

    def check(self, subject: Subject) -> None:
        """Refuse a network without a linear layer at its end where no layer is named, and unknown names."""
        _Features(subject, self.layer)
        if self.classes is not None:
            class_indices(self.classes, subject.classes)

    def work(self, subject: Subject) -> Work:
        """The attack, the features before and after, and the gradients where a layer is named."""
        count = len(subject.y)
        own = PassCount(3 * count) if self.layer is None else PassCount(4 * count, count)
        return Work(asked([self.attack], count), own)

    def ask(self, subject: Subject) -> Finding:
        """Attack every input once, and read the features of both."""
        shown = None if self.classes is None else class_indices(self.classes, subject.classes)
        features = _Features(subject, self.layer)
        outcome = subject.attacked(self.attack).outcome
        clean, attacked = features.of(subject.x), features.of(outcome.x_adv)
        correct = subject.logits.argmax(1) == subject.y
        peaks = float(clean.abs().max()), float(attacked.abs().max())
        rows, curves = [], {}
        for k in (k for k in range(len(subject.classes)) if bool((subject.y == k).any())):
            rows_of_class = subject.y == k
            relevance = features.relevance(k)
            row, curve = _row((clean[rows_of_class], attacked[rows_of_class]), relevance, peaks, self.unit)
            figures = statistics.accuracy((correct & ~outcome.success)[rows_of_class])
            row |= {"clean": float(correct[rows_of_class].double().mean()), **figures}
            rows.append({"class": subject.classes[k], "index": k, "inputs": int(rows_of_class.sum()), **row})
            curves[k] = {"class": subject.classes[k], **curve}
        if shown is None:
            ranked = sorted(rows, key=lambda row: row["accuracy"])
            shown = list(dict.fromkeys((ranked[-1]["index"], ranked[0]["index"])))
        threat = self.attack.threat
        data: dict[str, Any] = {
            "attack": self.attack.label() + (f" at {threat.text()}" if threat else ""),
            "layer": features.name,
            "inputs": len(correct),
            "channels": clean.shape[1],
            "unit": self.unit,
            "classes": rows,
            "mean": {name: _mean([row[name] for row in rows]) for name in _MEANS},
            "gained": _mean([_gained(row) for row in rows]),
            "alignment": _alignment(rows),
            "best_pearson": max(rows, key=lambda row: row["accuracy"])["pearson_attacked"],
            "worst_pearson": min(rows, key=lambda row: row["accuracy"])["pearson_attacked"],
            "worst": min(rows, key=lambda row: row["accuracy"])["class"],
            "worst_accuracy": min(row["accuracy"] for row in rows),
            "tied": tied_with_worst(rows),
            "interval": statistics.INTERVAL,
            "curves": [curves[k] for k in shown if k in curves],
        }
        return Finding("channels", "Channels", _verdict(data), "info", data)


class _Features:
    """Reads the input of the last linear layer, or the output of a named one, as (N, C) means over space."""

    def __init__(self, subject: Subject, layer: str | None) -> None:
        self._subject, self._layer = subject, layer
        model, few = subject.model, subject.x[:4]
        self._head: nn.Linear | None = None
        if layer is None:
            try:
                self._head = last_linear(model, few, subject.task)
            except UserError:
                raise UserError(
                    "the network's logits are not the output of a linear layer: name the layer whose channels are meant"
                ) from None
            names = {module: name for name, module in model.named_modules()}
            self.name = f"the input of {names[self._head] or 'the network'}"
        else:
            matches = layer_names(model, few, [layer])
            if len(matches) != 1:
                raise UserError(
                    f"layer must name one layer; {layer!r} are {len(matches)}: {', '.join(matches[:3])} ..."
                )
            self.name = self._layer = matches[0]
            self._layout = layout_of(lambda some: self._read(some)[1].detach(), subject.x, f"the layer {self.name!r}")
            self._axis = channel_axis(model, few, self.name, self._layout)

    def of(self, x: Tensor) -> Tensor:
        """(N, C) float64 means over space."""
        parts: list[Tensor] = []
        with preserved(self._subject.model, "eval", self._subject.seed, x.device), torch.no_grad():
            for part in torch.split(x, self._subject.batch_size):
                parts.append(self._by_channel(self._read(part)[1], len(part)).mean(2).double())
        return torch.cat(parts)

    def relevance(self, k: int) -> Tensor:
        """(C,) float64: the class's weights, or the mean gradient of its logit over its clean inputs."""
        if self._head is not None:
            return self._head.weight.detach()[k].double()
        subject, total = self._subject, torch.zeros((), dtype=torch.float64, device=self._subject.x.device)
        x = subject.x[subject.y == k]
        with preserved(subject.model, "eval", subject.seed, x.device):
            for part in torch.split(x, subject.batch_size):
                logits, value = self._read(part.clone().requires_grad_())
                (gradient,) = torch.autograd.grad(logits[:, k].sum(), value, allow_unused=True)
                if gradient is None:
                    raise UserError(f"the logits do not depend on layer {self.name}: name another")
                total = total + self._by_channel(gradient, len(part)).sum(2).double().sum(0)
        return total / len(x)

    def _by_channel(self, value: Tensor, n: int) -> Tensor:
        """(n, C, places) of a layer's value, or of a gradient there."""
        if self._head is not None:
            return value[:, :, None]
        return self._layout.to_rows(value, n).movedim(self._axis, 1).unsqueeze(-1).flatten(2)

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and features of one batch."""
        model, task = self._subject.model, self._subject.task
        if self._head is None:
            with capture(model, [str(self._layer)]) as values:
                logits = task.read(call_model(model, x))
            if self._layer not in values:
                raise UserError(f"the layer {self._layer!r} is not called for all inputs: name another")
            return logits, values[self._layer]
        inputs: list[Tensor] = []
        hook = self._head.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        try:
            logits = task.read(call_model(model, x))
        finally:
            hook.remove()
        return logits, inputs[-1]


def _row(
    features: tuple[Tensor, Tensor], relevance: Tensor, peaks: tuple[float, float], unit: Unit
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A class's figures, and its curves in the order of clean activation.

    Args:
        features: (n, C) of clean and of attacked inputs of the class.
        relevance: (C,).
        peaks: the layer's largest value over all clean, and over all attacked, inputs.
        unit: see `Channels`.
    """
    clean, attacked = (values.mean(0) for values in features)
    tops = [float(values.abs().max()) for values in (clean, attacked)]
    if unit == "clean":
        tops[1] = tops[0]
    clean, attacked = (values / (top or 1.0) for values, top in zip((clean, attacked), tops, strict=True))
    negative = relevance < 0
    row: dict[str, Any] = {"positive": int((relevance > 0).sum()), "negative": int(negative.sum())}
    for name, values, every, peak in zip(("clean", "attacked"), (clean, attacked), features, peaks, strict=True):
        total = float(values.abs().sum())
        row[f"negative_{name}"] = float(values[negative].abs().sum()) / total if total else None
        row[f"pearson_{name}"] = _number(pearson(values, relevance))
        row[f"spearman_{name}"] = _number(spearman(values, relevance))
        active = (every.abs() > _ACTIVE * peak).double().mean(0)
        row[f"active_positive_{name}"] = _mean(active[relevance > 0].tolist())
        row[f"active_negative_{name}"] = _mean(active[negative].tolist())
    row["l1"] = float((clean - attacked).abs().sum())
    sizes = float(clean.norm() * attacked.norm())
    row["cosine"] = max(0.0, 1 - float(clean @ attacked) / sizes) if sizes else None
    order = clean.argsort(descending=True, stable=True)
    curves = {"clean": clean, "attacked": attacked, "relevance": relevance}
    return row, {name: values[order].tolist() for name, values in curves.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _gained(row: dict[str, Any]) -> float | None:
    """How much more of the activation is in negatively relevant channels under attack than on clean inputs."""
    clean, attacked = row["negative_clean"], row["negative_attacked"]
    return None if clean is None or attacked is None else attacked - clean


def _alignment(rows: Sequence[dict[str, Any]]) -> float | None:
    """Spearman's correlation over classes of robust accuracy and attacked activations' correlation with relevance.

    Positive where the robust classes are those whose attacked activations still fit their relevance.
    """
    defined = [row for row in rows if row["pearson_attacked"] is not None]
    figures = [torch.tensor([row[name] for row in defined]) for name in ("accuracy", "pearson_attacked")]
    return _number(spearman(*figures))


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _verdict(data: dict[str, Any]) -> str:
    mean = data["mean"]
    shares = {name: "an undefined share" if mean[name] is None else f"{mean[name]:.1%}" for name in _MEANS[:2]}
    text = (
        f"Of the activation of {data['layer']}, {shares['negative_attacked']} is in channels of negative relevance "
        f"to the true class under {data['attack']}, {shares['negative_clean']} on clean inputs"
    )
    if mean["pearson_attacked"] is not None:
        text += f"; under attack activations and relevance correlate by {mean['pearson_attacked']:.2f}"
    tied = f"; {joined(data['tied'])} cannot be told from it" if data["tied"] else ""
    return text + f". Least robust is {data['worst']}, {data['worst_accuracy']:.1%}{tied}."
