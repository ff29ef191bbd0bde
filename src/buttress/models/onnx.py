"""Networks as ONNX files, each checked against the network it came from before it takes its place."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from buttress.ambient_state import in_usual_state
from buttress.errors import UserError, one_line
from buttress.model_call import call_model
from buttress.models.blocks.ode import ODEBlock
from buttress.models.input_checks import forward_checked
from buttress.models.wrapping.wrappers import inner
from buttress.safe_files import check_free, full_disk_reported, sync
from buttress.tensor_forms import copied_network
from buttress.validation import positive

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_OPERATOR = re.compile(r"No ONNX function found for (?:<OpOverload\(op='([\w.]+)'|(\S+?)[.,]?\s)")


@dataclass(frozen=True)
class Exported:
    """An ONNX file and how well it agrees with its network.

    Attributes:
        path: of the file. Its input is called ``x``, (N, ...) for any N; its output ``logits``, (N, classes).
        difference: largest difference between a logit of onnxruntime and of the network.
        inputs: how many inputs that was measured on.
    """

    path: Path
    difference: float
    inputs: int


@in_usual_state
def export_onnx(
    model: nn.Module,
    path: str | os.PathLike[str],
    example: Tensor,
    *,
    overwrite: bool = False,
    tolerance: float = 1e-4,
) -> Exported:
    """Write a network as one ONNX file that takes any number of inputs, and check it with onnxruntime.

    What is written is a copy in eval mode on the CPU; the model itself is left as it is. The file is written beside its
    place, run by onnxruntime on the example, on its first input alone and on one input more of random values, and put
    in its place only if it agrees there with the network. Otherwise it is removed, and what was there stays.

    Args:
        model: inputs (N, ...) to logits (N, classes).
        path: a name ending in ``.onnx``; its folder is made when missing.
        example: (N, ...) inputs that the network takes, in its dtype; integers for a network of tokens.
        overwrite: replace a file that is there.
        tolerance: largest difference of a logit, as a share of the largest logit in magnitude.

    Raises:
        UserError: for another name, a file that is there, packages that are missing (``buttress[onnx]``), a network
            that does not return finite logits, whose answers are random, that has an operator without a form in ONNX
            or takes one number of inputs only once exported, and for a file that disagrees.
    """
    path = Path(path)
    check_target(path, overwrite)
    check_packages()
    positive("tolerance", tolerance)
    if example.dim() < 2 or not len(example):
        raise UserError(f"example must be inputs (N, ...), one at least; got the shape {tuple(example.shape)}")
    network, x = _copied(model), example.detach().cpu()
    batches = [x, x[:1], _random_inputs(x)]
    expected = [_logits(network, batch) for batch in batches]
    # Twice the same, where there is one input only: tracing takes a batch of one for a special case.
    content = _converted(network, x if len(x) > 1 else torch.cat([x, x]))
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with full_disk_reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(content)
            sync(beside)
            difference = _difference(network, beside, batches, expected, tolerance)
            check_target(path, overwrite)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    return Exported(path, difference, sum(map(len, batches)))


def check_target(path: Path, overwrite: bool) -> None:
    """Refuse a name that is none for an ONNX file, or that is taken.

    Raises:
        UserError: naming it.
    """
    if path.suffix != ".onnx":
        raise UserError(f"a network is exported to a name ending in .onnx; got {path}")
    check_free(path, overwrite)


def check_packages() -> None:
    """See that what ONNX needs can be imported.

    Raises:
        UserError: telling what to install.
    """
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f"export to ONNX needs {name}, which cannot be imported ({one_line(error)}): "
                "pip install 'buttress[onnx]'"
            ) from error


def _copied(model: nn.Module) -> nn.Module:
    try:
        network = copied_network(model).cpu().eval().requires_grad_(False)
    except Exception as error:  # graph tensors, locks, modules that refuse
        reason = one_line(error)
        raise UserError(f"{_name(model)} cannot be copied, which its export to ONNX needs: {reason}") from error
    for block in network.modules():
        if isinstance(block, ODEBlock):
            block.adjoint = False  # which is of the backward pass alone, and hides the steps
    return network


def _random_inputs(x: Tensor) -> Tensor:
    """One input more than in ``x``, uniform within its range; integers stay integers, as tokens."""
    random = torch.Generator().manual_seed(0)
    if not x.is_floating_point():
        low, high = int(x.min()), int(x.max())
        return torch.randint(low, high + 1, (len(x) + 1, *x.shape[1:]), generator=random, dtype=x.dtype)
    uniform = torch.rand(len(x) + 1, *x.shape[1:], generator=random, dtype=x.dtype)
    return x.min() + (x.max() - x.min()) * uniform


def _logits(network: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        first, again = (forward_checked(network, x) for _ in range(2))
    if not isinstance(first, Tensor) or first.dim() != 2 or len(first) != len(x):
        got = f"the shape {tuple(first.shape)}" if isinstance(first, Tensor) else f"a {type(first).__name__}"
        raise UserError(
            f"{_name(network)} must return logits (N, classes) to be exported; for {len(x)} inputs got {got}"
        )
    if not first.isfinite().all():
        raise UserError(f"{_name(network)} returns logits that are not finite: a file could not be checked")
    if not torch.equal(first, again):
        raise UserError(
            f"{_name(network)} answers the same inputs differently in eval mode: a file could not be checked"
        )
    return first


def _converted(network: nn.Module, x: Tensor) -> bytes:
    """The network as the bytes of an ONNX file."""
    batch = torch.export.Dim("batch")
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                network,
                (x,),
                dynamo=True,
                verbose=False,
                input_names=["x"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
            )
            sizes = program.model.graph.inputs[0].shape if program.model.graph.inputs else [len(x)]
            content: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # tracing runs the network's own code, which may fail there in any way
        raise UserError(f"{_name(network)} cannot be exported to ONNX: {_reason(network, x, error)}") from error
    if isinstance(sizes[0], int):
        raise UserError(
            f"{_name(network)} cannot be exported to ONNX: its number of inputs becomes a constant, {sizes[0]}; "
            "in its forward take x.shape[0], which can be traced, in the place of len(x)"
        )
    return content


def _reason(network: nn.Module, x: Tensor, error: BaseException) -> str:
    """What could not be exported, in a few words."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    for link in chain:
        if match := _OPERATOR.search(str(link)):
            return f"ONNX has no form of the operator {match[1] or match[2]}"
    gradients = _Gradients()
    with contextlib.suppress(Exception), torch.no_grad(), gradients:
        call_model(network, x)
    if gradients.computed:
        return "its forward pass takes a gradient (torch.autograd.grad), which could not be traced"
    if any("data-dependent" in str(link) for link in chain):
        return "values that it computes decide what it computes next, as in a solver that chooses its steps"
    return one_line(chain[-1])


class _Gradients(TorchFunctionMode):
    """Records whether a gradient is computed."""

    computed = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.computed |= func in (torch.autograd.grad, torch.autograd.backward, Tensor.backward)
        return func(*args, **(kwargs or {}))


def _difference(
    network: nn.Module, path: Path, batches: list[Tensor], expected: list[Tensor], tolerance: float
) -> float:
    """The largest difference between onnxruntime's logits and the network's.

    Raises:
        UserError: when onnxruntime cannot run the file, or it is more than tolerated.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails comes as an exception, too
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        outputs = [torch.from_numpy(session.run(["logits"], {"x": batch.numpy()})[0]) for batch in batches]
    except Exception as error:  # onnxruntime's errors have no class in common
        raise UserError(f"{_name(network)} exported to ONNX cannot be run by onnxruntime: {one_line(error)}") from error
    shapes = [(tuple(one.shape), tuple(other.shape)) for one, other in zip(outputs, expected, strict=True)]
    if any(one != other for one, other in shapes):
        raise UserError(f"{_name(network)} exported to ONNX returns the shape {shapes[0][0]}, not {shapes[0][1]}")
    off = (torch.cat(outputs) - torch.cat(expected)).abs().max().item()  # nan where one of them is no number
    largest = torch.cat(expected).abs().max().item()
    if not off <= tolerance * max(largest, 1e-3):
        raise UserError(
            f"{_name(network)} exported to ONNX disagrees with the network: a logit is off by {off:.2g}, "
            f"of {largest:.2g} at most; tolerated is {tolerance:g} of that"
        )
    return off


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the exporter logs, prints and warns of; the file is checked afterwards."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    nowhere = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
            warnings.catch_warnings(action="ignore"),
        ):
            yield
    finally:
        logging.disable(before)


def _name(model: nn.Module) -> str:
    return type(inner(model)).__name__
