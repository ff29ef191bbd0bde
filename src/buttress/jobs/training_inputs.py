"""The inputs that a network was trained on, held against what its run recorded of them."""

from __future__ import annotations

from pathlib import Path

from buttress.data.dataset import Dataset, Split
from buttress.data.tokens import TokenSplit
from buttress.errors import UserError
from buttress.plain_data import read_json
from buttress.training.run_folder import MARK
from buttress.training.run_settings import content


def training_inputs(reference: str, dataset: Dataset) -> Split | None:
    """The data set's training split, where it is what the network was trained on; None where there is none.

    A run says how many inputs it was trained on, and of what content. Of another network the split is taken for what
    it was trained on, as whoever names the data says.

    Args:
        reference: a run's folder, or another name of a network.
        dataset: the data as they are loaded now.

    Raises:
        UserError: for a run that was trained on others.
    """
    split, mark = dataset.train, Path(reference) / MARK
    if not len(split):
        return None
    try:
        recorded = read_json(mark.read_text(encoding="utf-8"))["settings"]
        count, digest = int(recorded["inputs"]), recorded.get("content")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return split  # no run, or one of an earlier version
    same = digest in (None, content(split)) or isinstance(split, TokenSplit)  # tokens are recorded before an embedding
    if count != len(split) or not same:
        raise UserError(
            f"{reference} was trained on {count} inputs that are not the {len(split)} loaded as its training split: "
            "give the --limit and --seed of its training"
        )
    return split
