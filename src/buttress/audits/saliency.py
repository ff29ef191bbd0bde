"""Which parts of an image a prediction depends on, and whether the gradient agrees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.png import is_image, png
from buttress.audits.base.statistics import bootstrap
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work
from buttress.engine.pass_count import PassCount
from buttress.layers import saliency
from buttress.layers.correlation import pearson_by_row
from buttress.layers.saliency import Fill, check_window
from buttress.random import Random, derive
from buttress.registry import audit
from buttress.validation import number, whole

_TITLE = "Saliency"
_FINEST = 16  # windows along the shorter side, unless a stride is given


@audit("saliency")
@dataclass(frozen=True, kw_only=True)
class Saliency(Audit):
    """Occlusion and gradient maps of some inputs, and over more of them how well the two agree; for images.

    Three measures: the correlation of the gradient's size with the occlusion map; the share of the gradient's size
    where the map is ``threshold`` or more, beside that region's share of the image; the area under the deletion curve
    in the order of the gradient, beside the orders of the occlusion map and of chance. Means with bootstrap intervals.
    Both maps are of the true class. Cost per input: one forward per window, and 3 (``steps`` + 1) more.

    Args:
        count: inputs shown, spread evenly over those measured.
        inputs: inputs measured, spread evenly over the data.
        window: odd side of the windows covered; by the image's size unless given.
        stride: distance of neighbouring windows; such that the shorter side has at most 16 unless given.
        fill: what covered pixels become: "blur" or "zero".
        threshold: share of the map's maximum from which a location is salient, above 0 and at most 1.
        steps: equal shares in which the deletion curve covers the image.
    """

    topic: ClassVar[Topic] = "Where it fails"

    count: int = 8
    inputs: int = 200
    window: int | None = None
    stride: int | None = None
    fill: Fill = "blur"
    threshold: float = 0.1
    steps: int = 20

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        whole("count", self.count, 0)
        whole("inputs", self.inputs)
        whole("steps", self.steps)
        number("threshold", self.threshold, "(0, 1]")
        check_window(self.window, 1 if self.stride is None else self.stride, self.fill)

    def not_for(self, subject: Subject) -> str:
        """Images alone have parts to cover."""
        return "" if is_image(subject.x) else "These inputs are no images to look at."

    def work(self, subject: Subject) -> Work:
        """Each measured image with each window covered, its gradient, and three deletion curves."""
        height, width = subject.x.shape[2:]
        stride = self._stride(height, width)
        windows = -(-height // stride) * -(-width // stride)
        each = PassCount(windows + 1 + 3 * (self.steps + 1) + 1, 1)
        return Work(passes=each * min(self.inputs, len(subject.y)) + PassCount(self.count))

    def _stride(self, height: int, width: int) -> int:
        return self.stride or -(-min(height, width) // _FINEST)

    def ask(self, subject: Subject) -> Finding:
        """Compute both maps of each input and compare them."""
        if reason := self.not_for(subject):
            return Finding("saliency", _TITLE, reason, "info", {})
        rows = _spread(len(subject.x), self.inputs).to(subject.x.device)
        x, y, ids = subject.x[rows], subject.y[rows], subject.ids[rows]
        height, width = x.shape[2:]
        stride = self._stride(height, width)
        window = self.window or saliency.default_window(height, width)
        maps, sizes = self._maps(subject, x, y, window, stride)
        orders = {
            "gradient": sizes,
            "occlusion": maps,
            "chance": Random(derive(subject.seed, "saliency"), ids).uniform((height, width)),
        }
        settings: dict[str, Any] = {"window": window, "fill": self.fill, "task": subject.task}
        settings |= {"steps": self.steps, "batch_size": subject.batch_size}
        areas = {
            name: saliency.deletion(subject.model, x, y, order, **settings).double() for name, order in orders.items()
        }
        figures = {
            "correlation": pearson_by_row(sizes, maps),
            "energy_inside": saliency.energy_inside(sizes, maps, self.threshold),
            "salient_area": (maps >= self.threshold).double().mean((1, 2)),
            **{f"deletion_{name}": area for name, area in areas.items()},
        }
        measures = {name: _mean(values, subject.seed) for name, values in figures.items()}
        data = {
            "inputs": len(x),
            "seed": subject.seed,
            "interval": "bootstrap over inputs, 95 %",
            "window": window,
            "stride": stride,
            "fill": self.fill,
            "threshold": self.threshold,
            "measures": measures,
            "items": [self._item(subject, x[i], int(y[i]), maps[i], sizes[i]) for i in _spread(len(x), self.count)],
        }
        return Finding("saliency", _TITLE, _verdict(measures), "info", data)

    def _maps(self, subject: Subject, x: Tensor, y: Tensor, window: int, stride: int) -> tuple[Tensor, Tensor]:
        """(N, H, W) occlusion maps and gradient sizes; progress is reported as they are computed."""
        maps, sizes = [], []
        size = max(1, subject.batch_size // 8)
        for part, classes in zip(torch.split(x, size), torch.split(y, size), strict=True):
            covering: dict[str, Any] = {"stride": stride, "fill": self.fill, "batch_size": subject.batch_size}
            model, task = subject.model, subject.task
            maps.append(saliency.occlusion(model, part, classes, window, task=task, **covering))
            gradients = saliency.input_gradients(model, part, classes, task=task, batch_size=subject.batch_size)
            sizes.append(saliency.gradient_map(gradients))
            if subject.watch is not None:
                subject.watch("saliency", min(1.0, len(maps) * size / len(x)))
        return torch.cat(maps), torch.cat(sizes)

    def _item(self, subject: Subject, x: Tensor, y: int, occlusion: Tensor, gradient: Tensor) -> dict[str, Any]:
        predicted = int(subject.output(x[None]).argmax(1))
        names = [subject.classes[c] if c < len(subject.classes) else str(c) for c in (y, predicted)]
        image = _bytes(x)
        shown = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        pictures = {"input": shown, "occlusion": _bytes(occlusion), "gradient": _bytes(_relative(gradient))}
        return {
            "truth": names[0],
            "answer": names[1],
            "images": {name: png(picture) for name, picture in pictures.items()},
        }


def _spread(size: int, count: int) -> Tensor:
    """At most ``count`` positions, evenly over ``size``."""
    return torch.linspace(0, size - 1, min(count, size)).long()


def _relative(sizes: Tensor) -> Tensor:
    """A map in units of its largest value; 0 where there is none."""
    largest = sizes.max()
    return sizes / largest if largest > 0 else sizes


def _bytes(values: Tensor) -> Tensor:
    return (values.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)


def _mean(values: Tensor, seed: int) -> dict[str, Any]:
    """The mean of what is defined, with its interval; None where nothing is."""
    defined = values[~values.isnan()].detach().cpu().double()
    if not len(defined):
        return {"mean": None, "low": None, "high": None, "inputs": 0}
    low, high = bootstrap(len(defined), lambda index: defined[index].mean(1), seed)
    return {"mean": float(defined.mean()), "low": low, "high": high, "inputs": len(defined)}


def _verdict(measures: dict[str, dict[str, Any]]) -> str:
    correlation, inside, area = (measures[name]["mean"] for name in ("correlation", "energy_inside", "salient_area"))
    if correlation is None or inside is None:
        return (
            "Covering parts of the images, or following the gradient, changes no prediction: there is no map to read."
        )
    return (
        f"The size of the gradient follows what predictions depend on with a correlation of {correlation:.2f}; "
        f"{inside:.0%} of it lies on the {area:.0%} of the image that is salient."
    )
