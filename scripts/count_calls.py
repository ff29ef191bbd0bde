"""How far a reader goes: calls, files and moves between files, from a command to the first gradient.

    python scripts/count_calls.py

Counts calls of this package's own functions (comprehensions and module bodies left out): from `buttress attack` to the
first gradient of the model, and within one question for a gradient, `oracle.loss_and_grad`.
"""

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import buttress
from buttress import data, fit, models
from buttress.attacks import PGD
from buttress.cli import main as command

PACKAGE = str(Path(buttress.__file__).parent)


class Calls:
    """The files of the package whose functions are called, in order."""

    def __init__(self) -> None:
        self.files: list[str] = []

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        function = not code.co_name.endswith(("comp>", "expr>", "<module>"))
        if event == "call" and function and code.co_filename.startswith(PACKAGE):
            self.files.append(code.co_filename)

    def __str__(self) -> str:
        moves = sum(a != b for a, b in zip(self.files, self.files[1:], strict=False))
        return f"{len(self.files)} calls, {len(set(self.files))} files, {moves} moves between files"


class FirstGradientError(Exception):
    """The first gradient has been asked for."""


def until_gradient(work: Callable[[], object]) -> Calls:
    """Count while ``work`` runs, up to the first call of `torch.autograd.grad` with the model's output."""
    calls, grad = Calls(), torch.autograd.grad

    def stop(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        first = outputs[0] if isinstance(outputs, tuple | list) else outputs
        if first.dim() == 2:  # the logits, not the sum of a loss
            sys.setprofile(None)
            raise FirstGradientError
        return grad(outputs, inputs, *args, **kwargs)

    torch.autograd.grad = stop
    sys.setprofile(calls)
    try:
        with contextlib.suppress(FirstGradientError):
            work()
    finally:
        sys.setprofile(None)
        torch.autograd.grad = grad
    return calls


def main() -> None:
    torch.set_num_threads(1)
    dataset = data.load("digits", seed=0).limited(60, 0)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fit(models.create("cnn", image_size=8, seed=0), dataset, epochs=1, out=run)
        words = ["attack", str(run), "--data", "digits", "--by", "pgd", "--out", str(Path(folder) / "out")]
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            until_gradient(lambda: command(words))  # imports are done then
            whole = until_gradient(lambda: command(words))
    print(f"buttress attack to the first gradient: {whole}")
    model = models.create("cnn", image_size=8, seed=0).eval()
    x, y = next(iter(dataset.test))
    question = Calls()

    class Counted(PGD):
        def perturb(self, oracle: Any, x: Any, y: Any, random: Any) -> Any:
            oracle.loss_and_grad(x)
            sys.setprofile(question)
            oracle.loss_and_grad(x)
            sys.setprofile(None)
            return x

    Counted()(model, x, y, search="first")
    print(f"one question for a gradient: {question}")


if __name__ == "__main__":
    main()
