"""A run's folder: what is in it, how it is recognised, and how its model is read back."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from buttress import models
from buttress.engine.machine import device_name
from buttress.errors import UserError
from buttress.output_place import entries
from buttress.plain_data import read_json
from buttress.safe_files import full_disk_reported, write_text
from buttress.tensor_forms import plain_state
from buttress.user_modules import short

MARK = "run.json"


def versions(device: torch.device | str | None = None) -> dict[str, str]:
    """What ran: the versions and the machine, as far as a figure may depend on them.

    Args:
        device: that the network was on, which is not told unless given. What else the machine has plays no part.
    """
    try:
        own = version("buttress")
    except PackageNotFoundError:
        own = "source"
    return {
        "buttress": own,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        **({} if device is None else {"device": device_name(device)}),
    }


def open_run(folder: Path, settings: Mapping[str, Any], resume: bool, device: torch.device | str = "cpu") -> bool:
    """Claim ``folder`` for a run with these settings on this device; whether it was free until now.

    Raises:
        UserError: when another run or foreign files are in it, or when a resumed run had other settings.
    """
    mark = folder / MARK
    settings = json.loads(json.dumps(settings))
    if mark.exists():
        try:
            before = _current_names(read_json(mark.read_text())["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{mark} cannot be read: choose another output folder, or remove this one") from None
        if not resume:
            raise UserError(f"{folder} holds a run already: resume it (--resume), or choose another output folder")
        differing = _difference(before, settings, "")
        if differing is not None:
            key, was, now = differing
            raise UserError(
                f"{folder} holds a run with {key} {was!r}, the settings now have {now!r}: "
                "resume with the same settings, or choose another output folder"
            )
        return False
    # The half-written mark of a run that was killed as it began is ours.
    if entries(folder) - {f".{MARK}.tmp"} or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} exists and holds no run of ours: choose an empty or new output folder")
    write_text(mark, json.dumps({"settings": settings, "versions": versions(device)}, indent=2))
    return True


def _current_names(settings: Any) -> Any:
    """Recorded settings under today's names: earlier versions recorded modules of ours and folders of users' files."""
    if isinstance(settings, list):
        return [_current_names(part) for part in settings]
    if not isinstance(settings, dict):
        return settings
    names = {
        key: short(value) if key in ("name", "data") and isinstance(value, str) else _current_names(value)
        for key, value in settings.items()
    }
    if str(names.get("class", "")).startswith("buttress."):
        names["class"] = f"buttress.{names['class'].rpartition('.')[2]}"
    return names


def _difference(before: Any, now: Any, key: str) -> tuple[str, Any, Any] | None:
    """The first setting that differs, with both values; classes come before their settings."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return None if before == now else (key, before, now)
    for name in sorted({*before, *now}, key=lambda name: (name != "class", name)):
        difference = _difference(before.get(name), now.get(name), f"{key}.{name}" if key else name)
        if difference is not None:
            return difference
    return None


def release_run(folder: Path) -> None:
    """Take the claim back where nothing came of the run, so that the folder can be used again."""
    if entries(folder) == {MARK}:
        (folder / MARK).unlink()


def write_run(
    folder: Path,
    model: nn.Module,
    last: dict[str, Tensor],
    facts: Mapping[str, Any],
    history: list[dict[str, float]],
) -> None:
    """Write what `load` needs (how the model is made, its weights), the last weights and the history.

    Of a network that was trained from its embedding on, these are the network's own.
    """
    if isinstance(model, models.FromEmbedding):
        model, last = model.model, {name.removeprefix("model."): value for name, value in last.items()}
    with full_disk_reported(folder):
        models.save_weights(model, folder / "model.safetensors")
        plain = {name: value.cpu().contiguous() for name, value in plain_state(last).items()}
        save_file(plain, folder / "last.safetensors")
    write_text(folder / "history.json", json.dumps(history, indent=2))
    write_text(folder / "model.json", json.dumps({"model": models.spec_of(model), **facts}, indent=2))


def read_facts(folder: str | Path) -> dict[str, Any]:
    """What `write_run` recorded of the model in ``folder``.

    Raises:
        UserError: when there is no finished run.
    """
    file = Path(folder) / "model.json"
    try:
        facts: Any = read_json(file.read_text())
    except FileNotFoundError:
        there = "its run is not finished: resume it" if (Path(folder) / MARK).exists() else "no run is there"
        raise UserError(f"{folder} holds no trained model ({there})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None
    if not isinstance(facts, dict) or "model" not in facts or not isinstance(facts.get("source", {}), dict):
        raise UserError(f"{file} does not say how the network is made: it is damaged; train again")
    return cast(dict[str, Any], facts)


def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """A trained network back from a run's folder, in eval mode.

    Args:
        folder: where `buttress.fit` or the command line wrote the run.
        model: the module to load the weights into; needed only for one that buttress did not create.

    Raises:
        UserError: when the folder holds no finished run, or its weights do not fit.
    """
    spec = read_facts(folder)["model"]
    if model is None:
        if spec is None:
            raise UserError(
                f"the model in {folder} was not made by models.create: give the module, load(folder, model), or what "
                f"makes it, as in file.py:Net --weights {folder}"
            )
        model = models.from_spec(spec)
    models.load_weights(model, Path(folder) / "model.safetensors")
    return model.eval()
