"""An evaluation's folder: how it is claimed, recognised when resumed, and released."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from buttress.engine.runner import Precision
from buttress.errors import UserError
from buttress.output_place import entries
from buttress.plain_data import read_json
from buttress.safe_files import write_text

MARK = "manifest.json"


def open_folder(
    folder: Path | None, settings: Callable[[], dict[str, Any]], resume: bool, choose: Callable[[], Precision]
) -> Precision:
    """Claim ``folder`` for an evaluation, or recognise the one to be resumed; the precision of its search.

    Args:
        folder: where the groups are to be kept; None keeps nothing, and nothing is claimed.
        settings: gives what the outcome depends on; not called without a folder.
        resume: whether an evaluation that is there may go on.
        choose: gives the precision of one that begins.

    Raises:
        UserError: when it holds something else, an evaluation that is not to be resumed, or one with other settings.
    """
    if folder is None:
        return choose()
    mark = folder / MARK
    if mark.exists():
        if not resume:
            raise UserError(f"{folder} holds an evaluation already: resume it, or choose another output folder")
        try:
            content = read_json(mark.read_text(encoding="utf-8"))
            recorded, precision = dict(content["settings"]), content["search precision"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{mark} cannot be read: choose another output folder, or remove this one") from None
        check_same(recorded, settings(), folder)
        return cast(Precision, precision)
    # The half-written mark of an evaluation that was killed as it began is ours.
    if entries(folder) - {f".{MARK}.tmp"} or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} exists and holds no evaluation of ours: choose an empty or new output folder")
    precision = choose()
    write_text(mark, json.dumps({"settings": settings(), "search precision": precision}, indent=1))
    return precision


def check_same(recorded: dict[str, Any], current: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with other settings than an evaluation began with.

    Raises:
        UserError: naming the first that differs.
    """
    for key, value in json.loads(json.dumps(current)).items():
        if recorded.get(key) != value and key == "fingerprint":
            raise UserError(
                f"{folder} holds an evaluation by this attack with other settings, or by another version of buttress: "
                "resume with the same ones, or choose another output folder"
            )
        if recorded.get(key) != value:
            raise UserError(
                f"{folder} holds an evaluation with {key} {_short(recorded.get(key))}, the settings now have "
                f"{_short(value)}: resume with the same settings, or choose another output folder"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:17]}...{text[0]}"


def leave_folder(folder: Path) -> None:
    """Take the claim back where no group was finished, so that the folder can be used again."""
    if entries(folder) == {MARK}:
        (folder / MARK).unlink()
        with suppress(OSError):  # the evaluation itself holds the folder, and removes it then
            folder.rmdir()
