"""Write a network for other programs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from buttress.data.dataset import Dataset
from buttress.engine.input_dtype import input_dtype
from buttress.errors import UserError
from buttress.jobs.settings import Network, Reporter, Source, open_network
from buttress.models import FromEmbedding
from buttress.models.onnx import check_packages, check_target, export_onnx
from buttress.models.weights import check_weights_name, save_weights
from buttress.models.wrapping.wrappers import inner
from buttress.output_place import claimed_file, claims
from buttress.safe_files import check_free

_INPUTS = 8  # compared


@claims("onnx", claimed_file)
@claims("state_dict", claimed_file)
def export(
    network: str,
    *,
    onnx: Path | None = None,
    state_dict: Path | None = None,
    architecture: Network = Network(),
    source: Source = Source(),
    overwrite: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    reporter: Reporter = Reporter(),
) -> list[Path] | None:
    """Write a network for programs without buttress: its weights under your own names, or an ONNX file.

    The file of weights is for the code that made the network: net.load_state_dict(torch.load("net.pt")). What was put
    before the network, such as a mean and std, is not in it, and is told. An ONNX file holds all of that; it is written
    on the CPU and checked there with onnxruntime against the network itself. A network of tokens takes them there as
    integers, int64.

    Args:
        network: a run's folder; or a model's name, package.module:function or file.py:function, with --weights.
        onnx: the ONNX file, a name ending in .onnx: input x for any number of inputs, output logits.
        state_dict: the file of weights, under the names of your own network, without any prefix: a name ending in
            .pt or .pth (as torch.save writes) or .safetensors.
        architecture: for a network that is no run's: its options and weights.
        source: the data, whose first test inputs an ONNX file is checked on; a run's own by default.
        overwrite: replace an existing file.
        seed: seed of data that are drawn at random.
        dry_run: only load the network, hold it against the data, and print what would be written.
        reporter: receives messages and progress.

    Returns:
        The files that were written; None for a dry run.

    Raises:
        UserError: for no file to write, one that is there, a network that cannot be exported, and a file that disagrees
            with it.
    """
    if onnx is None and state_dict is None:
        raise UserError("export writes a file: give --state-dict net.pt (weights), --onnx net.onnx, or both")
    if state_dict is not None:
        check_weights_name(state_dict)
        check_free(state_dict, overwrite)
    if onnx is not None:
        check_target(onnx, overwrite)
        check_packages()
    model, dataset, facts = open_network(network, architecture, source, seed, trained=True)
    if facts["preprocessing"]:
        reporter.line(facts["preprocessing"])
    if state_dict is not None:
        _write_weights(inner(model), state_dict, dry_run, reporter)
    if onnx is not None:
        _write_onnx(model, dataset, onnx, overwrite=overwrite, dry_run=dry_run, reporter=reporter)
    return None if dry_run else [path for path in (state_dict, onnx) if path is not None]


def _write_weights(network: nn.Module, path: Path, dry_run: bool, reporter: Reporter) -> None:
    """The state dict of the user's own network."""
    written = f"{path}: {len(network.state_dict())} tensors under the names of {type(network).__name__}"
    if dry_run:
        reporter.line(f"would be written to {written}")
        return
    save_weights(network, path)
    reader = "torch.load" if path.suffix != ".safetensors" else "safetensors.torch.load_file"
    reporter.line(f'written to {written}; in your code: net.load_state_dict({reader}("{path}"))')


def _write_onnx(
    model: nn.Module, dataset: Dataset, path: Path, *, overwrite: bool, dry_run: bool, reporter: Reporter
) -> None:
    """All that was audited, preprocessing included."""
    few = dataset.test.subset(torch.arange(min(_INPUTS, len(dataset.test))))
    if isinstance(model, FromEmbedding):
        model, x = model.model, few.x.long()  # the user's network, which takes the tokens themselves
    else:
        x = few.take(torch.arange(len(few)))[0]
        x = x.to(input_dtype(model, x))
    written = f"{path}: x ({', '.join(map(str, ('N', *x.shape[1:])))}) to logits (N, classes)"
    if dry_run:
        reporter.line(f"would be written to {written}")
        return
    exported = export_onnx(model, path, x, overwrite=overwrite)
    reporter.line(
        f"onnxruntime and the network differ by {exported.difference:.1e} at most on {exported.inputs} inputs"
    )
    reporter.line(f"written to {written}")
