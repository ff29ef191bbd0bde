"""Tensors of every form as plain ones: sparse, quantised, nested, or conjugated when read."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

_Network = TypeVar("_Network", bound=nn.Module)
_COMPRESSED = {
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_bsr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
    torch.sparse_bsc: ("ccol_indices", "row_indices"),
}


def parts(value: Tensor) -> dict[str, Tensor]:
    """Dense tensors that hold all the numbers of one, by what they are called; of a plain one itself, called "".

    Equal numbers give equal parts: of a sparse COO tensor each index is once there, in order. A tensor on the device
    "meta" holds no numbers.
    """
    if value.is_meta:
        return {}
    if value.is_quantized:
        numbers = {"integers": value.int_repr()}
        if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            scale, zero = torch.tensor(value.q_scale(), dtype=torch.float64), torch.tensor(value.q_zero_point())
            return {**numbers, "scale": scale, "zero_point": zero}
        scales, zeros = value.q_per_channel_scales(), value.q_per_channel_zero_points()
        return {**numbers, "scale": scales, "zero_point": zeros}
    if value.is_nested:
        return {str(k): part for k, part in enumerate(value.unbind())}
    if value.layout == torch.sparse_coo:
        value = value.coalesce()
        return {"indices": value.indices(), "values": value.values()}
    if value.layout in _COMPRESSED:
        return {name: getattr(value, name)() for name in (*_COMPRESSED[value.layout], "values")}
    if value.layout != torch.strided:
        return {"": value.to_dense()}
    value = value.resolve_conj().resolve_neg()
    return {"real": torch.view_as_real(value)} if value.dtype == torch.complex128 else {"": value}


def of_parts(found: Mapping[str, Tensor], like: Tensor) -> Tensor:
    """What `parts` took apart, in the form of another tensor."""
    if like.is_meta:
        return like
    if like.is_quantized:
        integers, scale, zero = found["integers"], found["scale"], found["zero_point"]
        if scale.dim():
            return torch._make_per_channel_quantized_tensor(integers, scale, zero, like.q_per_channel_axis())
        return torch._make_per_tensor_quantized_tensor(integers, scale.item(), int(zero))
    if like.is_nested:
        return torch.nested.as_nested_tensor([found[str(k)] for k in range(len(found))], layout=like.layout)
    if like.layout == torch.sparse_coo:
        indices, values = found["indices"], found["values"]
        return torch.sparse_coo_tensor(indices, values, like.shape, check_invariants=True, is_coalesced=True)
    if like.layout in _COMPRESSED:
        rows, columns = (found[name] for name in _COMPRESSED[like.layout])
        values, layout = found["values"], like.layout
        return torch.sparse_compressed_tensor(rows, columns, values, like.shape, layout=layout, check_invariants=True)
    if "real" in found:
        return torch.view_as_complex(found["real"])
    return found[""] if like.layout == torch.strided else found[""].to_mkldnn()


def plain_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in which every tensor is a plain one: of another form its parts, by its name and theirs."""
    return {
        f"{name}.{part}" if part else name: tensor
        for name, value in state.items()
        for part, tensor in parts(value.detach()).items()
    }


def formed_state(plain: Mapping[str, Tensor], like: Mapping[str, Any]) -> dict[str, Tensor]:
    """What `plain_state` gave, in the forms of another state dict; what that does not have is left as it is."""
    state = dict(plain)
    for name, value in like.items():
        names = {part: f"{name}.{part}" if part else name for part in parts(value)} if isinstance(value, Tensor) else {}
        if names and all(whole in state for whole in names.values()):
            state[name] = of_parts({part: state.pop(whole) for part, whole in names.items()}, value)
    return state


def copied(value: Tensor) -> Tensor:
    """A copy for `put_back`; a quantised tensor is itself, for no pass writes into it."""
    return value if value.is_quantized else value.clone()


def put_back(value: Tensor, before: Tensor) -> None:
    """Have a tensor hold again what `copied` gave, where it could have been written to since.

    Through ``.data``: a caller's pending backward pass may hold the tensor and would refuse a new version.
    """
    if value.is_quantized or overlaps(value):
        return
    if value.layout != torch.sparse_coo:
        value.data.copy_(before)
    elif any(not torch.equal(one, other) for one, other in zip(_numbers(value), _numbers(before), strict=True)):
        with torch.no_grad():  # its .data has indices and values of its own
            value.copy_(before)


def copied_network(network: _Network) -> _Network:
    """A deep copy of a network, also of one with tensors that torch copies alone only, as sparse ones by rows."""
    memo: dict[int, Tensor] = {}
    for value in (*network.parameters(), *network.buffers()):
        if value.layout not in (torch.strided, torch.sparse_coo) or value.is_nested:
            alone = value.detach().clone()
            memo[id(value)] = nn.Parameter(alone, value.requires_grad) if isinstance(value, nn.Parameter) else alone
    return copy.deepcopy(network, memo)


def _numbers(value: Tensor) -> tuple[Tensor, ...]:
    return tuple(parts(value.detach()).values())


def overlaps(value: Tensor) -> bool:
    """Whether one number stands in several places of a tensor, as after `expand`: torch refuses to write there."""
    strided = value.layout == torch.strided and not value.is_nested
    return strided and any(stride == 0 and size > 1 for stride, size in zip(value.stride(), value.shape, strict=True))
