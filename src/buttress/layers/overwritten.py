"""Values that were read and are about to be overwritten."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from buttress.layers.outputs import is_wrapped


def keep_overwritten(values: dict[str, Tensor], targets: Any) -> None:
    """Put copies in the place of those values that share memory with tensors which are written to next.

    Args:
        values: by name.
        targets: the tensors, in lists or alone.
    """
    for target in tree_leaves(targets):
        if not isinstance(target, Tensor) or _without_storage(target) or is_wrapped(target):
            continue
        address = target.untyped_storage().data_ptr()
        for name, value in values.items():
            if not _without_storage(value) and value.untyped_storage().data_ptr() == address:
                with torch.set_grad_enabled(value.requires_grad):
                    values[name] = value.clone()


def _without_storage(value: Tensor) -> bool:
    """Whether its numbers are in no memory that can be compared, as those of a sparse or nested tensor."""
    return value.layout != torch.strided or value.is_nested
