"""What a job's options say of a folder of images: its classes, its labels, and whether a run was trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from buttress.errors import UserError
from buttress.tasks import Classification, task_of

if TYPE_CHECKING:
    from buttress.jobs.settings import Source


def folder_options(source: Source, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The options of the data set, those of the command line for folders among them.

    Args:
        source: the job's.
        known: facts of the run that is looked at on other data: its classes are those of a folder that has no list.
    """
    options = dict(source.data_args)
    if source.classes is not None:
        options["classes"] = [whole_path(word) for word in source.classes]
    elif is_folder(source.data) and known and isinstance(task_of(known), Classification):
        options.setdefault("classes", list(known["classes"]))
    if source.labels is not None:
        options["labels"] = str(source.labels.resolve())
    return options


def is_folder(data: str | None) -> bool:
    """Whether a data set is a folder of images, or of archives of them, by its name."""
    return (data or "").partition(":")[0] in ("folder", "webdataset")


def recorded_source(known: Mapping[str, Any]) -> dict[str, Any]:
    """What it takes to load a run's own data again, a copy.

    Raises:
        UserError: where what is recorded of it is damaged.
    """
    facts = dict(known["source"])
    kinds: dict[str, type | tuple[type, ...]] = {"data": str, "data_dir": (str, type(None)), "data_args": dict}
    kinds |= {"seed": int, "pool": (int, type(None)), "half": (int, type(None)), "without_classes": (list, type(None))}
    later = ("pool", "half", "without_classes")  # what older runs do not have
    for name, kind in kinds.items():
        if not isinstance(facts.get(name, None if name in later else ...), kind):
            raise UserError(f"model.json does not say which data the run was trained on ({name}): give --data")
    return facts


def is_own_data(source: Source, known: Mapping[str, Any]) -> bool:
    """Whether a run is looked at on the data that it was trained on, also where their folder is named again."""
    own = known.get("source") or {}
    if source.data is None:
        return bool(own)
    place = _place(source.data, source.data_dir)
    return place is not None and place == _place(own.get("data"), own.get("data_dir"))


def _place(data: str | None, data_dir: str | Path | None) -> Path | None:
    """The folder of a data set; None where it is none of images."""
    if not is_folder(data):
        return None
    where = (data or "").partition(":")[2] or data_dir
    return None if where is None else Path(where).resolve()


def whole_path(word: str) -> str:
    """A file's path from the root, so that a run finds it from another directory; any other word as it is."""
    return str(Path(word).resolve()) if Path(word).is_file() else word
