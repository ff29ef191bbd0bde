"""Weights to and from files: safetensors of our own, and whatever others keep theirs in."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from buttress.errors import UserError
from buttress.models.weight_files import read_weights
from buttress.models.weight_matching import Fit, chosen, own_tensors
from buttress.tensor_forms import formed_state, plain_state
from buttress.validation import one_of

log = logging.getLogger(__name__)
Head = Literal["kept", "new"]
_TORCH = (".pt", ".pth")  # as torch.save writes


def save_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the model's state dict as safetensors, or as ``torch.save`` does.

    The file appears whole or not at all: written beside its place, flushed to the disk, then moved there. A file
    that lies there is replaced.

    Raises:
        UserError: when the name does not end in .safetensors, .pt or .pth, the state holds more than tensors, or the
            disk refuses.
    """
    path = Path(path)
    check_weights_name(path)
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise UserError(f"{name!r} in the model's state is a {type(value).__name__}: only tensors can be written")
    # A copy each: safetensors refuses tensors that share memory (tied weights).
    plain = plain_state(model.state_dict())
    tensors = {name: value.to("cpu", copy=True).contiguous() for name, value in plain.items()}
    written = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with written.open("wb") as file:
            if path.suffix in _TORCH:
                torch.save(tensors, file)
            else:
                file.write(save(tensors))
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
        # The move itself is on the disk only when the folder is; some systems cannot open one.
        with contextlib.suppress(PermissionError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            written.unlink(missing_ok=True)


def check_weights_name(path: Path) -> None:
    """Refuse a file's name that does not say how weights are to be written.

    Raises:
        UserError: naming it.
    """
    if path.suffix not in (".safetensors", *_TORCH):
        raise UserError(f"weights are written to a name ending in .safetensors, .pt or .pth; got {path}")


def load_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    strict: bool = True,
    key: str | None = None,
    head: Head = "kept",
) -> tuple[list[str], list[str]]:
    """Put weights from a file into the model.

    The file may be safetensors (in shards, too, by their ``.index.json``), what ``torch.save`` wrote, a pickled module
    among it, or a NumPy ``.npz``; no code of the file's is run. The weights may lie under any keys beside whatever else
    a training keeps, and their names may begin with anything that they have in common (``module.``, ``net.``); weights
    of the network alone fit into wrappers around it. The model is changed only when everything fits.

    Args:
        model: the network; its tensors keep their device and dtype.
        path: the file, or a folder in which a run of buttress or Hugging Face's libraries keep weights.
        strict: whether every weight of the model must be in the file and the other way round. Weights of another
            shape are refused in any case, and so is a file of which nothing fits. What is not held against each other
            is logged.
        key: where the weights lie in a file with several (``"state_dict_ema"``, ``"model.ema"``).
        head: "new" leaves a last layer that was made for another number of outputs as it is, with its initial weights:
            to be trained.

    Returns:
        The names that the file lacked and the names that the model has not; both empty when strict.

    Raises:
        UserError: for a file that is missing, corrupt, truncated, unsafe or does not fit, with what does not and the
            nearest names on both sides; and where weights lie in several places that fit.
    """
    path = Path(path)
    one_of("head", head, get_args(Head))
    if path.exists() and not own_tensors(model):
        return [], []
    contents = read_weights(path)
    contents = contents if key is None else contents.under(key)
    best = chosen(model, contents, asked=key is not None)
    new_head = head == "new" and best.other_head() is not None
    if head == "new" and not new_head and not best.wrong:
        raise UserError(f"{path} fits as it is, its last layer too: leave --head new out (head in Python)")
    if not new_head and best.wrong and (strict or best.reshaped or not best.state):
        raise UserError(f"{path} does not fit {type(best.target).__name__}: {best}; {_advice(best)}")
    for what, names in (("not loaded", best.missing + best.reshaped), ("not used", best.unexpected + best.aside)):
        if names:
            log.warning("%s: %s: %s", path, what, ", ".join(names[:6]) + ", ..." * (len(names) > 6))
    like = {name: value for name, value in best.target.state_dict(keep_vars=True).items() if not is_lazy(value)}
    _check_kinds(path, best.state, like)
    best.target.load_state_dict(formed_state(best.state, like), strict=False)
    return best.missing, best.unexpected


def _check_kinds(path: Path, state: Mapping[str, Tensor], like: Mapping[str, Any]) -> None:
    """Refuse numbers of another kind than the network's, which torch would turn into others without a word.

    Raises:
        UserError: for complex or whole numbers in the place of real ones, such as quantised weights without a scale.
    """
    for name, value in state.items():
        own = like.get(name)
        real = isinstance(own, Tensor) and own.is_floating_point()
        if real and not value.is_floating_point():
            kinds = [str(one.dtype).removeprefix("torch.") for one in (value, like[name])]
            raise UserError(f"{path}: {name} is {kinds[0]}, the network's is {kinds[1]}: save weights of its kind")


def _advice(fit: Fit) -> str:
    """What to do about weights that do not fit."""
    if sizes := fit.other_head():
        return (
            f"they are of a network with {sizes[0]} outputs: create it with as many, or have its last layer trained "
            'anew by --head new (head="new")'
        )
    return f"{fit.alike}create the model as it was trained"
