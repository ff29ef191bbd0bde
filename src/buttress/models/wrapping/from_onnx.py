"""Networks in ONNX files as models without gradients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from buttress.errors import UserError, one_line


class FromONNX(nn.Module):
    """A network in an ONNX file, run by onnxruntime on the CPU, as a model without gradients.

    Args:
        path: of the file, whose first input is the images (N, ...); where N is a constant, inputs are computed in
            groups of that size.
        output: name of the output that holds the logits; the first unless given.

    Raises:
        UserError: when onnxruntime is missing, cannot read the file, or cannot run it on the inputs; and for an output
            that the file does not have.
    """

    def __init__(self, path: str | Path, output: str | None = None) -> None:
        super().__init__()
        self.path, self.output = Path(path), output
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"a network from ONNX needs onnxruntime, which cannot be imported ({one_line(error)}): "
                "pip install 'buttress[onnx]'"
            ) from error
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails comes as an exception, too
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no class in common
            raise UserError(f"{path} is no ONNX file that onnxruntime can run: {one_line(error)}") from None
        names = [node.name for node in self._session.get_outputs()]
        if output is not None and output not in names:
            raise UserError(f"{path} has no output {output!r}: its outputs are {', '.join(names)}")
        self._input = self._session.get_inputs()[0]
        self._digest = hashlib.sha256(content).hexdigest()

    def forward(self, x: Tensor) -> Tensor:
        """What the file computes for (N, ...) inputs, on the device of ``x``."""
        first = self._input.shape[0] if self._input.shape else None
        size = first if isinstance(first, int) else max(len(x), 1)
        parts = [self._run(part, size) for part in torch.split(x.detach().cpu(), size)]
        return torch.cat(parts).to(x.device)

    def get_extra_state(self) -> str:
        """What tells this network from others, in place of weights: a digest of the file."""
        return self._digest

    def set_extra_state(self, state: str) -> None:
        """Nothing: the file is given when the model is made."""

    def __reduce__(self) -> tuple[Callable[..., FromONNX], tuple[Path, str | None]]:
        """A copy, also one in another process, reads the file again."""
        return FromONNX, (self.path, self.output)

    def _run(self, x: Tensor, size: int) -> Tensor:
        """The output for (M, ...) inputs, filled up with copies of the first where the file takes only ``size``."""
        kind = {"tensor(float16)": torch.float16, "tensor(double)": torch.float64}.get(self._input.type, torch.float32)
        full = torch.cat([x, x[:1].expand(size - len(x), *x.shape[1:])]) if len(x) < size else x
        wanted = None if self.output is None else [self.output]
        try:
            output = self._session.run(wanted, {self._input.name: full.to(kind).numpy()})[0]
        except Exception as error:  # onnxruntime's errors have no class in common
            raise UserError(f"{self.path} cannot be run on inputs {tuple(x.shape)}: {one_line(error)}") from None
        return torch.as_tensor(output)[: len(x)]
