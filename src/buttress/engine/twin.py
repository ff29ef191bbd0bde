"""A copy of the caller's model that computes the same faster: BatchNorm folded, channels last, bf16, compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from buttress.errors import one_line
from buttress.model_call import call_model
from buttress.tensor_forms import copied_network, overlaps

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_TOLERANCE = 1e-3  # of the largest output: folding moves the last bits of float32, a wrong fold moves far more


class NoTwinError(Exception):
    """Why a model cannot be copied and folded."""


class Twin(nn.Module):
    """A copy with each BatchNorm that directly follows a convolution folded into it, its parameters frozen.

    Weights can be filled again from the model (`refill`), without another copy. In bf16 the convolutions and linear
    layers hold bf16 weights and run under autocast; the last linear layer stays in float32.

    Args:
        model: the caller's, in eval mode; it is not touched.
        x: (N, ...) inputs of the first batch, to see which layers follow each other, and to compare both.
        bf16: whether to search in bf16; the comparison is made in float32 before.

    Raises:
        NoTwinError: when the model has hooks, cannot be copied, or the folded copy computes something else.
    """

    def __init__(self, model: nn.Module, x: Tensor, *, bf16: bool) -> None:
        super().__init__()
        if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules()):
            raise NoTwinError("it has hooks")
        if x.dtype != torch.float32:
            raise NoTwinError(f"inputs are {x.dtype}")
        self._pairs, self._last, expected = _trace(model, x)
        try:
            self.copy = copied_network(model).requires_grad_(False)
        except Exception as error:  # graph tensors, locks, modules that refuse
            raise NoTwinError(f"it cannot be copied: {one_line(error)}") from None
        for convolution, norm in self._pairs.items():
            folded: Any = self.copy.get_submodule(convolution)
            if folded.bias is None:
                folded.bias = nn.Parameter(folded.weight.new_zeros(folded.weight.shape[0]), requires_grad=False)
            _put(self.copy, norm, nn.Identity())
        if self._last is not None:
            _put(self.copy, self._last, _Float32(cast(nn.Linear, self.copy.get_submodule(self._last))))
        self.bf16, self.channels_last = False, x.dim() == 4
        if self.channels_last:
            _lay_out(self.copy, torch.channels_last)
        self.refill(model)
        off = (self._tried(x) - expected).abs().amax()
        if not bool(off <= _TOLERANCE * expected.abs().amax().clamp(min=1e-3)):
            raise NoTwinError(f"the folded copy's output is off by {off.item():.2g}")
        if bf16:
            for module in self.copy.modules():
                if isinstance(module, (*_CONVOLUTIONS, nn.Linear)) and not isinstance(module, _Float32):
                    module.to(torch.bfloat16)
            self.bf16 = True
            self._tried(x)

    def _tried(self, x: Tensor) -> Tensor:
        """The output for ``x``; where channels last cannot be run, as where `view` flattens, the usual layout is taken.

        Raises:
            NoTwinError: when it cannot run at all.
        """
        with torch.no_grad():
            try:
                return cast(Tensor, self(x))
            except Exception as error:  # whatever a network raises that finds other tensors than it is used to
                if out_of_memory(error):
                    raise
                if not self.relax():
                    raise NoTwinError(f"its copy cannot run: {one_line(error)}") from None
        return self._tried(x)

    def relax(self) -> bool:
        """Give up channels last for the usual layout; False where that has been done."""
        if not self.channels_last:
            return False
        self.channels_last = False
        _lay_out(self.copy, torch.contiguous_format)
        return True

    def forward(self, x: Tensor) -> Any:
        """What the model computes, in this copy's precision."""
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return call_model(self.copy, x)

    @torch.no_grad()
    def refill(self, model: nn.Module) -> None:
        """Take over the weights and buffers that ``model`` has now."""
        source = dict(model.named_parameters(remove_duplicate=False)) | dict(
            model.named_buffers(remove_duplicate=False)
        )
        folded = {f"{name}.{part}" for name in self._pairs for part in ("weight", "bias")}
        for name, mine in [*self.copy.named_parameters(), *self.copy.named_buffers()]:
            if name not in folded and not overlaps(mine):
                mine.copy_(source[name])
        for convolution, norm in self._pairs.items():
            theirs, mine, following = (
                cast(Any, part)
                for part in (
                    model.get_submodule(convolution),
                    self.copy.get_submodule(convolution),
                    model.get_submodule(norm),
                )
            )
            scale = torch.rsqrt(following.running_var + following.eps)
            scale = scale if following.weight is None else scale * following.weight
            shift = 0 if following.bias is None else following.bias
            bias = 0 if theirs.bias is None else theirs.bias
            mine.weight.copy_(theirs.weight * scale.view(-1, *[1] * (theirs.weight.dim() - 1)))
            mine.bias.copy_((bias - following.running_mean) * scale + shift)


class Compiled:
    """A compiled twin, always called with one batch size: another shape would be compiled, or captured, anew."""

    def __init__(self, twin: Twin, batch_size: int) -> None:
        self.batch_size, self.refill, self.relax = batch_size, twin.refill, twin.relax
        self.run = torch.compile(twin, dynamic=False)
        self.graphs = torch.compile(twin, dynamic=False, mode="reduce-overhead")

    def __call__(self, x: Tensor) -> Any:
        """The twin's output; fewer inputs than a batch are filled up with copies of the first."""
        count = len(x)
        if count > self.batch_size:
            return torch.cat([self(part) for part in torch.split(x, self.batch_size)])
        padded = torch.cat([x, x[:1].expand(self.batch_size - count, *x.shape[1:])]) if count < self.batch_size else x
        if x.device.type != "cuda":
            return self.run(padded)[:count]
        cast(Any, torch.compiler).cudagraph_mark_step_begin()
        return self.graphs(padded)[:count].clone()  # the graph's own memory is written again by the next pass


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, which says nothing of the network."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


class _Float32(nn.Linear):
    """A linear layer that computes in float32 whatever precision surrounds it; it shares the weights of ``layer``."""

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight, self.bias)


def _lay_out(model: nn.Module, form: torch.memory_format) -> None:
    """Lay out all weights that have the rank of images."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=form)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


class _Uses(TorchFunctionMode):
    """Counts how often operations that make a tensor take each of some tensors, which are ``watched`` by their ids."""

    def __init__(self, watched: Container[int]) -> None:
        super().__init__()
        self.watched, self.counts = watched, Counter[int]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor | tuple | list):
            for leaf in tree_leaves((args, kwargs)):
                if id(leaf) in self.watched:
                    self.counts[id(leaf)] += 1
        return output


def _trace(model: nn.Module, x: Tensor) -> tuple[dict[str, str], str | None, Tensor]:
    """Convolution -> BatchNorm that alone reads its output, the last linear layer's name, and the model's output.

    A layer that is called more than once or that shares its weights is left alone.
    """
    outputs: dict[int, tuple[str, Tensor]] = {}  # of convolutions; the tensors too, so that no id is used twice
    calls: dict[str, int] = {}
    following: dict[int, tuple[str, str]] = {}
    last: list[str] = []
    uses = _Uses(outputs)

    def watch(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(module, _CONVOLUTIONS):
                outputs[id(output)] = (name, output)
            elif isinstance(module, _NORMS):
                before = outputs.get(id(args[0]))
                if before is not None and module.track_running_stats and not module.training:
                    following[id(args[0])] = (before[0], name)
            elif isinstance(module, nn.Linear):
                last[:] = [name]

        return hook

    exact = (*_CONVOLUTIONS, *_NORMS, nn.Linear)
    hooks = [m.register_forward_hook(watch(name)) for name, m in model.named_modules() if type(m) in exact]
    try:
        with torch.no_grad(), uses:
            output = call_model(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(output, Tensor):
        raise NoTwinError(f"it returns a {type(output).__name__}")
    owners = Counter(id(p) for m in model.modules() for p in m._parameters.values() if p is not None)

    def single(name: str) -> bool:
        own = [p for p in model.get_submodule(name)._parameters.values() if p is not None]
        return calls[name] == 1 and all(owners[id(p)] == 1 for p in own)

    alone = [pair for key, pair in following.items() if uses.counts[key] == 1]
    pairs = {before: after for before, after in alone if single(before) and single(after)}
    return pairs, last[0] if last and single(last[0]) else None, output
