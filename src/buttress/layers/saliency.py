"""Which parts of an image an output depends on: by covering them, and by the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress import tasks
from buttress.ambient_state import in_usual_state
from buttress.engine.call_checks import check_numbers
from buttress.engine.preserved_model import preserved
from buttress.errors import NoGradientError, UserError
from buttress.model_call import call_model
from buttress.tasks import Task, require_task
from buttress.validation import one_of, whole

Fill = Literal["blur", "zero"]


def default_window(height: int, width: int) -> int:
    """An odd side that grows with the image's: 3 for 8x8, 5 for 28x28 and 32x32, 9 for 64x64."""
    return 2 * max(1, min(height, width) // 14) + 1


def check_window(window: int | None, stride: int, fill: str) -> None:
    """Refuse settings of `occlusion` that cover nothing.

    Raises:
        UserError: for an even window, a stride below 1 or an unknown fill.
    """
    whole("stride", stride)
    if window is not None and whole("window", window) % 2 == 0:
        raise UserError(f"window must be an odd number of pixels; got {window}")
    one_of("fill", fill, get_args(Fill))


def check_images(shape: Sequence[int]) -> None:
    """Refuse what has no places to cover.

    Raises:
        UserError: for inputs that are not (N, C, H, W).
    """
    if len(shape) != 4:
        raise UserError(f"saliency is of images (N, C, H, W); got inputs of shape {tuple(shape)}")


def windows(height: int, width: int, stride: int = 1) -> int:
    """How many windows `occlusion` covers, one after the other, in an image of this size."""
    return math.ceil(height / stride) * math.ceil(width / stride)


def filler(x: Tensor, window: int, fill: Fill = "blur") -> Tensor:
    """What covered pixels become: the mean over a square of side 2 window + 1 around each, or 0.

    Args:
        x: (N, C, H, W) images.
        window: side of what is covered.
        fill: "blur" or "zero".
    """
    if fill == "zero":
        return torch.zeros_like(x)
    return F.avg_pool2d(x, 2 * window + 1, stride=1, padding=window, count_include_pad=False)


@in_usual_state
def occlusion(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    window: int | None = None,
    *,
    stride: int = 1,
    fill: Fill = "blur",
    task: Task = tasks.classification,
    batch_size: int = 1024,
) -> Tensor:
    """(N, H, W) how much the probability of ``y`` drops where a window around each location is covered.

    max(0, p_y(x) - p_y(x covered)), divided by the image's largest (all 0 where covering never hurts). The model is in
    eval mode meanwhile and comes back as it was; no gradient flows. Cost: one forward per window and one more.

    Args:
        model: gives logits.
        x: (N, C, H, W) images.
        y: (N,) classes.
        window: odd side of the square, in pixels; `default_window` of the image unless given.
        stride: distance of neighbouring windows; the locations between share the nearest window's value.
        fill: what covered pixels become, see `filler`.
        task: how the output is read.
        batch_size: inputs computed at once.

    Raises:
        UserError: for inputs that are no images of float32 or float64, and settings that cover nothing.
    """
    check_images(x.shape)
    check_numbers(x)
    check_window(window, stride, fill)
    height, width = x.shape[2:]
    side = default_window(height, width) if window is None else window
    with preserved(model, "eval", 0, x.device), torch.no_grad():
        filled = filler(x, side, fill)
        start, drops = _probability(model, x, y, task, batch_size), []
        together = max(1, batch_size // max(len(x), 1))
        for cover in _covers(height, width, side, stride, together, x.device):
            covered = torch.where(cover[:, None, None], filled, x)  # (M, N, C, H, W)
            probability = _probability(model, covered.flatten(0, 1), y.repeat(len(cover)), task, batch_size)
            drops.append(start - probability.view(len(cover), -1))
        grid = torch.cat(drops).T.clamp(min=0).view(len(x), math.ceil(height / stride), math.ceil(width / stride))
        full = grid.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, :height, :width]
        largest = full.amax((1, 2), keepdim=True)
        return torch.where(largest > 0, full / torch.where(largest > 0, largest, 1), 0)


def _covers(height: int, width: int, side: int, stride: int, count: int, device: torch.device) -> Iterator[Tensor]:
    """(M, H, W) bool, what each of the next ``count`` windows covers, centres row by row."""
    rows, columns = (_near(size, side, stride, device) for size in (height, width))
    centres = torch.cartesian_prod(torch.arange(len(rows)), torch.arange(len(columns))).to(device)
    for part in torch.split(centres, count):
        yield rows[part[:, 0], :, None] & columns[part[:, 1], None, :]


def _near(size: int, side: int, stride: int, device: torch.device) -> Tensor:
    """(windows, size) bool: the coordinates within half a side of each window's centre."""
    pixels = torch.arange(size, device=device)
    centres = (pixels[::stride] + (stride - 1) // 2).clamp(max=size - 1)
    return (pixels - centres[:, None]).abs() <= side // 2


def _probability(model: nn.Module, x: Tensor, y: Tensor, task: Task, batch_size: int) -> Tensor:
    """(N,) probability of ``y``, computed in float32 or finer."""
    require_task(task)
    parts = [
        task.read(call_model(model, part)).softmax(1).gather(1, classes[:, None]).squeeze(1)
        for part, classes in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
    ]
    return torch.cat(parts)


@in_usual_state
def input_gradients(
    model: nn.Module, x: Tensor, y: Tensor, *, task: Task = tasks.classification, batch_size: int = 256
) -> Tensor:
    """(N, ...) gradient of log p_y with respect to each input.

    The model is in eval mode meanwhile and comes back as it was. Cost: one forward, one backward.

    Args:
        model: gives logits.
        x: (N, ...) inputs.
        y: (N,) classes.
        task: how the output is read.
        batch_size: inputs computed at once.

    Raises:
        NoGradientError: when the network gives none.
        UserError: for what is no task, and inputs that are no float32 or float64.
    """
    require_task(task)
    check_numbers(x)
    gradients = []
    with preserved(model, "eval", 0, x.device):
        for part, classes in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            points = part.detach().clone().requires_grad_()
            chosen = log_probability(task.read(call_model(model, points)), classes)
            gradients.append(_gradient(chosen.sum(), points))
    return torch.cat(gradients)


def _gradient(value: Tensor, points: Tensor) -> Tensor:
    gradient = torch.autograd.grad(value, points, allow_unused=True)[0] if value.requires_grad else None
    if gradient is None:
        raise NoGradientError("the model's output has no gradient, which a saliency map is")
    return gradient


def log_probability(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) log-probability of class ``y``."""
    return logits.log_softmax(1).gather(1, y[:, None]).squeeze(1)


def gradient_map(gradients: Tensor) -> Tensor:
    """(N, H, W) size of the gradient at each location: the sum of magnitudes over the channels of (N, C, H, W)."""
    return gradients.abs().sum(1)


def energy_inside(sizes: Tensor, maps: Tensor, threshold: float = 0.1) -> Tensor:
    """(N,) share of the gradient's L1 size that lies where the saliency is ``threshold`` or more; NaN where it is 0.

    Args:
        sizes: (N, H, W) `gradient_map`.
        maps: (N, H, W) `occlusion`.
        threshold: what counts as salient, in [0, 1].
    """
    rows = sizes.double().flatten(1)
    inside, whole = (rows * (maps >= threshold).flatten(1)).sum(1), rows.sum(1)
    return torch.where(whole > 0, inside / torch.where(whole > 0, whole, 1), torch.nan)


@in_usual_state
def deletion(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ranking: Tensor,
    *,
    window: int | None = None,
    steps: int = 20,
    fill: Fill = "blur",
    task: Task = tasks.classification,
    batch_size: int = 1024,
) -> Tensor:
    """(N,) area under the probability of ``y`` while pixels are covered, the highest ranked first; small is faithful.

    The deletion curve of Petsiuk et al. (BMVC 2018), by the trapezoidal rule over shares of the image from 0 to 1.
    Pixels of equal rank go in the order of the image. Cost: ``steps`` + 1 forwards.

    Args:
        model: gives logits.
        x: (N, C, H, W) images.
        y: (N,) classes.
        ranking: (N, H, W) map, larger for what is covered sooner.
        window: as in `occlusion`; what the blur is made from.
        steps: equal shares in which the image is covered.
        fill: what covered pixels become, see `filler`.
        task: how the output is read.
        batch_size: inputs computed at once.

    Raises:
        UserError: for inputs that are no images of float32 or float64, settings that cover nothing, and no step.
    """
    check_images(x.shape)
    check_numbers(x)
    check_window(window, 1, fill)
    if steps < 1:
        raise UserError(f"a deletion curve needs 1 step or more; got {steps}")
    height, width = x.shape[2:]
    order = ranking.flatten(1).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(height * width, device=x.device).expand_as(order))
    curve: list[Any] = []
    with preserved(model, "eval", 0, x.device), torch.no_grad():
        filled = filler(x, default_window(height, width) if window is None else window, fill)
        for step in range(steps + 1):
            covered = (rank < round(step * height * width / steps)).view(-1, 1, height, width)
            curve.append(_probability(model, torch.where(covered, filled, x), y, task, batch_size))
    return torch.trapezoid(torch.stack(curve, 1), dx=1 / steps, dim=1)
