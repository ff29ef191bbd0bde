"""What a network expects to be done to images in [0, 1] before it sees them: stated, named, or read from a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from buttress.errors import UserError
from buttress.plain_data import read_json

NAMED: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's and timm's usual
    "half": ((0.5,), (0.5,)),  # to [-1, 1]: Inception, ViT of Google
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "0..255": ((0.0,), (1 / 255,)),  # for a network of levels of 8 bits
}
EXPECTED = f"none, data, MEAN/STD such as 0.5,0.4,0.4/0.2,0.2,0.2, or one of {', '.join(NAMED)}"


@dataclass(frozen=True)
class Statistics:
    """A mean and a standard deviation, one number for all channels or one for each, in units of inputs in [0, 1].

    Attributes:
        mean: what is subtracted.
        std: what is then divided by.
        origin: where they are from, for the user; or empty.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str = ""

    @property
    def words(self) -> str:
        """As the option ``--normalise`` takes them, to the last digit."""
        return "/".join(",".join(map(repr, values)) for values in (self.mean, self.std))

    def fits(self, channels: int) -> bool:
        """Whether inputs of so many channels can be normalised by them."""
        return {len(self.mean), len(self.std)} <= {1, channels}

    def by_channel(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std, a number for each channel."""
        mean, std = (values * channels if len(values) == 1 else values for values in (self.mean, self.std))
        return mean, std


def stated(text: str, channels: int) -> Statistics:
    """The statistics that a user states, by a name of `NAMED` or as ``MEAN/STD``, channels separated by commas.

    Raises:
        UserError: for another text, a std that is not positive, and another number of channels than the inputs have.
    """
    mean, sign, std = text.partition("/")
    try:
        found = Statistics(*NAMED[text], text) if text in NAMED else Statistics(_numbers(mean), _numbers(std))
    except ValueError:
        raise UserError(f"normalise must be {EXPECTED}; got {text!r}") from None
    if not sign and text not in NAMED:
        raise UserError(f"normalise must be {EXPECTED}; got {text!r}")
    if min(found.std) <= 0:
        raise UserError(f"normalise: std must be positive in every channel; got {std}")
    if not found.fits(channels):
        sizes = " and ".join(str(len(values)) for values in (found.mean, found.std))
        raise UserError(
            f"normalise: {text} has values for {sizes} channels, the inputs have {channels}: give one value for each "
            "channel, or one for all"
        )
    return found


def beside(weights: Path) -> Statistics | None:
    """The statistics of Hugging Face's ``preprocessor_config.json`` or timm's ``config.json`` beside the weights.

    None where there is neither.

    Args:
        weights: a file, or a folder with one.

    Raises:
        UserError: for one that cannot be read, or that asks for what a mean and a standard deviation cannot do.
    """
    folder = weights if weights.is_dir() else weights.parent
    theirs, timms = _json(folder / "preprocessor_config.json"), _json(folder / "config.json")
    if theirs is not None:
        return _of_image_processor(theirs, folder / "preprocessor_config.json")
    trained = timms.get("pretrained_cfg") if timms is not None else None
    if isinstance(trained, dict) and "mean" in trained and "std" in trained:
        return _given(trained["mean"], trained["std"], folder / "config.json")
    return None


def of_timm(name: str) -> Statistics | None:
    """Those that timm records of a network's published weights; None where it records none."""
    import timm

    trained = timm.get_pretrained_cfg(name.removeprefix("timm:"))
    if trained is None or not trained.mean or not trained.std:
        return None
    return Statistics(tuple(trained.mean), tuple(trained.std), "as timm records it")


def _of_image_processor(facts: dict[str, Any], path: Path) -> Statistics:
    """Of inputs in [0, 1]: the processor scales levels of 8 bits by its own factor first."""
    if facts.get("do_flip_channel_order"):
        raise UserError(
            f"{path} asks for channels in the order BGR: let the function that makes the network flip them "
            "(x.flip(1)), and give --normalise MEAN/STD or none"
        )
    factor = facts.get("rescale_factor", 1 / 255) if facts.get("do_rescale", True) else 1.0
    mean, std = (facts.get("image_mean"), facts.get("image_std")) if facts.get("do_normalize", True) else (0.0, 1.0)
    if not isinstance(factor, int | float) or not 0 < factor < math.inf or mean is None or std is None:
        raise UserError(f"{path} does not say image_mean and image_std: give --normalise MEAN/STD, or none")
    found = _given(mean, std, path)
    scale = round(255 * factor, 6)  # 1 for the usual factor
    return Statistics(tuple(m / scale for m in found.mean), tuple(s / scale for s in found.std), found.origin)


def _given(mean: Any, std: Any, path: Path) -> Statistics:
    try:
        values = [tuple(float(v) for v in (value if isinstance(value, list) else [value])) for value in (mean, std)]
    except (TypeError, ValueError):
        values = [(math.nan,), (math.nan,)]
    if not all(map(math.isfinite, [*values[0], *values[1]])) or min(values[1], default=0) <= 0:
        raise UserError(f"{path}: expected numbers for mean and std, got {mean} and {std}: give --normalise MEAN/STD")
    return Statistics(values[0], values[1], f"from {path}")


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = read_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; give --normalise MEAN/STD, or none") from None
    return content if isinstance(content, dict) else None


def _numbers(text: str) -> tuple[float, ...]:
    values = tuple(float(part) for part in text.split(","))
    if not all(map(math.isfinite, values)):
        raise ValueError(text)
    return values
