"""Weights to and from files: safetensors of our own, and whatever others keep theirs in."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from buttress.errors import UserError
from buttress.models.weight_advice import advice, layers_out_of_sight
from buttress.models.weight_files import read_weights
from buttress.models.weight_matching import chosen, own_tensors
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
    best, others = chosen(model, contents, asked=key is not None)
    _refuse_other_state(best.target)
    new_head = head == "new" and best.other_head() is not None
    if head == "new" and not new_head and not best.wrong:
        raise UserError(f"{path} fits as it is, its last layer too: leave --head new out (head in Python)")
    if not new_head and best.wrong and (strict or best.unusable or not best.state):
        raise UserError(f"{path} does not fit {type(best.target).__name__}: {best}; {advice(best)}")
    if diverged := [n for n, value in best.state.items() if value.is_floating_point() and value.float().isnan().any()]:
        raise UserError(f"{path} holds NaN in {diverged[0]}: its training diverged, or the file is damaged")
    for what, names in (("not loaded", best.missing + best.reshaped), ("not used", best.unexpected + best.aside)):
        if names:
            log.warning("%s: %s: %s", path, what, ", ".join(names[:6]) + ", ..." * (len(names) > 6))
    for other in others:
        log.warning("%s: loaded from %s; under %s are others, not used (%s)", path, best.key, other.key, other.count)
    if unseen := layers_out_of_sight(model):
        log.warning("%s: no weights for %s, which torch does not know of: make it an nn.ModuleList", path, unseen)
    like = {name: value for name, value in best.target.state_dict(keep_vars=True).items() if not is_lazy(value)}
    best.target.load_state_dict(formed_state(best.state, like), strict=False)
    for name in best.state.keys() - like.keys():
        if not best.own[name].saved:
            best.target.get_buffer(name).data.copy_(best.state[name])
    return best.missing, best.unexpected


def _refuse_other_state(network: nn.Module) -> None:
    """Refuse a network with a state that no file of tensors holds: it would keep its initial one.

    Raises:
        UserError: naming the first.
    """
    for name, value in network.state_dict().items():
        if value is not None and not isinstance(value, Tensor):
            raise UserError(
                f"{name!r} in the state of {type(network).__name__} is a {type(value).__name__}, no tensor: load the "
                "weights in the function that makes the network, and leave --weights out"
            )
