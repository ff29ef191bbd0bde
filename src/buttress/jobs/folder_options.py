"""What a job's options say of a folder of images: its classes, its labels, and whether all of it is the test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        options["classes"] = [_whole_path(word) for word in source.classes]
    elif (source.data or "").startswith("folder:") and known is not None and isinstance(task_of(known), Classification):
        options.setdefault("classes", list(known["classes"]))
    if source.labels is not None:
        options["labels"] = str(source.labels.resolve())
    return options


def test_options(facts: Mapping[str, Any], known: Mapping[str, Any] | None) -> dict[str, Any]:
    """``test_only`` for a folder that the network, which is trained already, was not trained on.

    Args:
        facts: what is loaded.
        known: facts of its run, which tell the data that it was trained on.
    """
    folder = _folder(facts)
    if folder is None:
        return {}
    trained_on = None if known is None else _folder(known.get("source") or {})
    return {} if folder == trained_on else {"test_only": True}


def _folder(source: Mapping[str, Any]) -> Path | None:
    name = str(source.get("data", ""))
    if name == "folder":
        return None if source.get("data_dir") is None else Path(source["data_dir"]).resolve()
    return Path(name.removeprefix("folder:")).resolve() if name.startswith("folder:") else None


def _whole_path(word: str) -> str:
    """A file's path from the root, so that a run finds it from another directory; any other word as it is."""
    return str(Path(word).resolve()) if Path(word).is_file() else word
