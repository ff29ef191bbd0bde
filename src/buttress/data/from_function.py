"""A data set from the function behind a name, called with the arguments that it takes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from buttress.data.arrays import as_split, from_arrays
from buttress.data.dataset import Dataset, Split
from buttress.data.lazy_inputs import LazyInputs
from buttress.data.loaded import load_all, parts_of
from buttress.errors import UserError, one_line
from buttress.registry import nearest
from buttress.tasks import Regression, Task, classification
from buttress.user_modules import same_working_directory, short


def dataset_from(
    name: str,
    function: Any,
    seed: int,
    val: int | None,
    arguments: dict[str, Any],
    task: Task = classification,
    *,
    test_only: bool = False,
) -> Dataset:
    """The data set that ``function`` returns.

    Args:
        name: as the user wrote it, for error messages.
        function: returns a `Dataset`; or ``((x, y), (x_test, y_test))`` arrays with x uint8 (N, C, H, W), or floats
            (N, features), or integer tokens (N, T), or floats (N, C, H, W) in [0, 1], and y integer labels (N,), labels
            of 0 and 1 (N, L), or values, floats (N,) or (N, D); or (train, test), (train, val, test) or a dict of them,
            each a torch ``Dataset`` or ``DataLoader``, a Hugging Face data set or an iterable of batches; see
            `load_all`. Without a val of its own one is split off.
        seed: passed on if the function takes it.
        val: passed on if the function takes it and it is not None.
        arguments: all other arguments; the function must take all of these.
        task: what the data are for: for regression, arrays of integers are values, too.
        test_only: passed on if the function takes it and it is set; then it may return (x, y) or one thing alone, too.

    Raises:
        UserError: for an argument that the function does not take, and for a result of another kind.
    """
    if not callable(function):
        raise UserError(f"{name!r}: expected a function that returns a Dataset, got {type(function).__name__}")
    parameters = inspect.signature(function).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for argument in arguments:
        if argument not in parameters and not open_ended:
            hint = nearest(argument, list(parameters)) if parameters else "it takes none"
            raise UserError(f"data set {name!r} takes no {argument!r}; {hint}")
    call_arguments = dict(arguments)
    if "seed" in parameters:
        call_arguments["seed"] = seed
    if "val" in parameters and val is not None:
        call_arguments["val"] = val
    if test_only and "test_only" in parameters:
        call_arguments["test_only"] = True
    with same_working_directory():
        result = function(**call_arguments)
    if isinstance(result, Dataset):
        if val is not None and "val" not in parameters:
            raise UserError(f"data set {name!r} brings its own val split, so expected no val, got {val}")
        return result
    if test_only and isinstance(result, tuple) and len(result) == 2 and all(map(_is_array, result)):
        result = {"test": [result]}
    if (parts := parts_of(name, result, test_only=test_only)) is not None:
        return _of_parts(name, parts, seed, val, task)
    train, test = _train_and_test(name, result)
    if isinstance(task, Regression):
        train, test = ((x, y.astype(np.float32)) for x, y in (train, test))
    images = train[0].ndim == 4
    return from_arrays(
        short(name),
        train,
        test,
        classes=[str(label) for label in range(_names(train[1]))],
        box=(0, 1) if images else None,
        provenance=f"made by {short(name)}.",
        val=val,
        seed=seed,
    )


def _of_parts(name: str, parts: dict[str, Any], seed: int, val: int | None, task: Task) -> Dataset:
    """A data set of loaders; without train all of it is the test."""
    if val is not None and ("val" in parts or "train" not in parts):
        raise UserError(f"data set {name!r} brings its own splits, so expected no val, got {val}")
    loaded = {part: load_all(f"{name!r}, {part}", data) for part, data in parts.items()}
    arrays = {
        part: (found.x if isinstance(found.x, LazyInputs) else _inputs(found.x, name), found.y)
        for part, found in loaded.items()
    }
    if isinstance(task, Regression):
        arrays = {part: (x, y.astype(np.float32)) for part, (x, y) in arrays.items()}
    names = next((found.classes for found in loaded.values() if found.classes), None)
    highest = max(_names(y) for _, y in arrays.values())
    x, y = arrays["test"]
    known = names is not None and y.ndim == 1 and y.dtype.kind != "f" and len(names) >= highest
    classes = list(names) if names is not None and known else [str(label) for label in range(highest)]
    box = (0, 1) if x.ndim == 4 else None
    provenance = f"made by {name}."
    lazy = ", ".join(part for part, (inputs, _) in arrays.items() if isinstance(inputs, LazyInputs))
    notes = (f"inputs of {lazy} would take more than half of the memory that is free: read as they are needed",)
    if "val" not in arrays and "train" in arrays:
        made = from_arrays(
            name, arrays["train"], arrays["test"], classes=classes, box=box, provenance=provenance, val=val, seed=seed
        )
        return replace(made, notes=notes if lazy else ())
    splits: list[Split] = []
    for part in ("train", "val", "test"):
        first = sum(map(len, splits))
        splits.append(as_split(*arrays[part], first) if part in arrays else as_split(x, y).subset(torch.arange(0)))
    train, validation, test = splits
    return Dataset(name, train, validation, test, tuple(classes), box, provenance, notes=notes if lazy else ())


def _train_and_test(
    name: str, result: Any
) -> tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]:
    expected = f"{name!r}: expected a Dataset, (train, test) loaders or ((x, y), (x_test, y_test)) arrays"
    try:
        (x, y), (x_test, y_test) = result
    except (TypeError, ValueError):
        raise UserError(f"{expected}, got {type(result).__name__}") from None
    train, test = ((_inputs(a, name), _array(b, f"{name!r}: labels")) for a, b in ((x, y), (x_test, y_test)))
    for part, (inputs, labels) in (("train", train), ("test", test)):
        kind = labels.dtype.kind
        known = (labels.ndim == 1 and kind in "iuf") or (labels.ndim == 2 and kind in "biuf")
        if not known or inputs.ndim < 2 or len(inputs) != len(labels):
            raise UserError(
                f"{expected} with one integer label for each input, or a row of labels or values, got x {inputs.shape} "
                f"and y {labels.dtype} {labels.shape} for {part}"
            )
        if not len(labels):
            raise UserError(f"{expected} with at least 2 inputs, got none for {part}")
    return train, test


def _names(y: NDArray[Any]) -> int:
    """How many classes there are, or labels or values for each input."""
    if y.ndim == 2:
        return int(y.shape[1])
    return 1 if y.dtype.kind == "f" else int(y.max()) + 1


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | Tensor)


def _inputs(x: Any, name: str) -> NDArray[Any]:
    array = _array(x, f"{name!r}: inputs")
    if array.dtype.kind not in "biuf":
        kind = "complex" if array.dtype.kind == "c" else "text or other objects"
        raise UserError(f"{name!r}: expected inputs as numbers, got {kind} of shape {array.shape}")
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _array(values: Any, what: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{what} are no array of numbers, all rows of one length: {one_line(error)}") from None
