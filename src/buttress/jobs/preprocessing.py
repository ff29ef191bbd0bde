"""How a job's inputs are made into what its network expects: chosen, put inside the network, and said."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from buttress import models
from buttress.data.dataset import Dataset
from buttress.errors import UserError
from buttress.models.libraries import ROBUSTBENCH
from buttress.models.preprocessing import Statistics, beside, of_timm, stated
from buttress.models.wrapping.wrappers import nested

Normalise = str | bool  # true is "data", false "none", as earlier versions had them


def chosen_statistics(
    normalise: Normalise, dataset: Dataset, model: str, weights: Path | None = None
) -> Statistics | None:
    """What is put before a network, and with it inside what is attacked; None for nothing.

    Args:
        normalise: the option, see `Network`.
        dataset: the data, whose train split "data" is about.
        model: the network's name.
        weights: its file of weights, beside which a configuration may say it.

    Raises:
        UserError: for an option that means nothing, or that does not fit the data.
    """
    images = len(dataset.shape) == 3
    if model.startswith(ROBUSTBENCH):
        if normalise not in ("auto", False, "false", "none"):
            raise UserError(f"{model} takes inputs in [0, 1] and normalises them inside: leave --normalise out")
        return None
    if normalise == "auto":
        found = None if weights is None else beside(weights)
        if found is None and images and model.startswith("timm:"):
            found = of_timm(model)
        if found is not None and images and found.fits(dataset.channels):
            return found
        return _of_images(dataset) if images and model in models.names() else None
    if normalise in (False, "false", "none"):
        return None
    if normalise in (True, "true", "data"):
        return _of_images(dataset)
    return stated(str(normalise), dataset.channels)


def check_statistics(
    model: nn.Module, name: str, normalise: Normalise, statistics: Statistics | None, weights: Path | None
) -> None:
    """Refuse statistics that are put before others of the network's own, or that its weights have replaced.

    Args:
        model: the network, with its weights.
        name: what the user calls it.
        normalise: the option.
        statistics: what was chosen by it.
        weights: its file of weights.

    Raises:
        UserError: saying what to type.
    """
    found = [module for module in nested(model) if isinstance(module, models.Normalized)]
    if len(found) > 1:
        raise UserError(
            f"{name} normalises its inputs itself (models.Normalized), and would do so twice: type --normalise none"
        )
    if normalise != "auto" and statistics is not None and not _holds(found[0], statistics):
        raise UserError(f"--normalise has no effect on {weights}, which has its own mean and std: leave it out")


def told(model: nn.Module, name: str, dataset: Dataset, normalise: Normalise, statistics: Statistics | None) -> str:
    """A sentence on what is done to images before the network, for a job's first lines and its report.

    Empty for inputs that are no images and are given as they are.

    Args:
        model: the network in its wrappers.
        name: what the user calls it.
        dataset: what it is given.
        normalise: the option.
        statistics: what was chosen by it; None also for a run, which brings its own.
    """
    inside = _inside(model)
    if inside is not None:
        mean, std = (", ".join(f"{v:.4g}" for v in values.flatten().tolist()) for values in (inside.mean, inside.std))
        origin = "" if statistics is None or not _holds(inside, statistics) else statistics.origin
        origin = f" ({origin})" if origin else ""
        return f"inputs are normalised before the network: mean {mean}, std {std}{origin}"
    if len(dataset.shape) != 3:
        return ""
    limits = f", from {dataset.box[0]:g} to {dataset.box[1]:g}" if dataset.box == (0, 1) else ""
    if name.startswith(ROBUSTBENCH):
        return f"inputs are given to {name} as they are{limits}, which is what RobustBench's networks expect"
    advice = "; if it expects normalised ones type --normalise MEAN/STD, or imagenet" if normalise == "auto" else ""
    return f"inputs are given to {name} as they are{limits}{advice}"


def _of_images(dataset: Dataset) -> Statistics:
    which = "training" if len(dataset.train) else "test"
    return Statistics(dataset.mean, dataset.std, f"of the {which} inputs of {dataset.name}")


def _holds(inside: models.Normalized, statistics: Statistics) -> bool:
    pairs = zip((inside.mean, inside.std), (statistics.mean, statistics.std), strict=True)
    return all(bool((ours == ours.new_tensor(theirs)).all()) for ours, theirs in pairs)


def _inside(model: nn.Module) -> models.Normalized | None:
    return next((module for module in nested(model) if isinstance(module, models.Normalized)), None)
