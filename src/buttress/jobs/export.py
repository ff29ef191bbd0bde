"""Write a network for other programs."""

from __future__ import annotations

from pathlib import Path

import torch

from buttress.engine.input_dtype import input_dtype
from buttress.jobs.settings import Network, Reporter, Source, open_network
from buttress.models import FromEmbedding
from buttress.models.onnx import check_packages, check_target, export_onnx
from buttress.output_place import claimed_file, claims

_INPUTS = 8  # compared


@claims("onnx", claimed_file)
def export(
    network: str,
    *,
    onnx: Path,
    architecture: Network = Network(),
    source: Source = Source(),
    overwrite: bool = False,
    seed: int = 0,
    dry_run: bool = False,
    reporter: Reporter = Reporter(),
) -> Path | None:
    """Write a network as an ONNX file, checked with onnxruntime against the network itself.

    A network of tokens takes them there as integers, int64. The file is written and checked on the CPU.

    Args:
        network: a run's folder; or a model's name, package.module:function or file.py:function, with --weights.
        onnx: the file, a name ending in .onnx: input x for any number of inputs, output logits.
        architecture: for a network that is no run's: its options and weights.
        source: the data, whose first test inputs the file is checked on; a run's own by default.
        overwrite: replace an existing file.
        seed: seed of data that are drawn at random.
        dry_run: only load the network, hold it against the data, and print what would be written.
        reporter: receives messages and progress.

    Raises:
        UserError: for a file that is there, a network that cannot be exported, and a file that disagrees with it.
    """
    check_target(onnx, overwrite)
    check_packages()
    model, dataset, facts = open_network(network, architecture, source, seed, trained=True)
    if facts["preprocessing"]:
        reporter.line(facts["preprocessing"])
    few = dataset.test.subset(torch.arange(min(_INPUTS, len(dataset.test))))
    if isinstance(model, FromEmbedding):
        model, x = model.model, few.in_memory("tokens").long()  # the user's network, which takes the tokens themselves
    else:
        x = few.take(torch.arange(len(few)))[0]
        x = x.to(input_dtype(model, x))
    written = f"{onnx}: x ({', '.join(map(str, ('N', *x.shape[1:])))}) to logits (N, classes)"
    if dry_run:
        reporter.line(f"would be written to {written}")
        return None
    exported = export_onnx(model, onnx, x, overwrite=overwrite)
    reporter.line(
        f"onnxruntime and the network differ by {exported.difference:.1e} at most on {exported.inputs} inputs"
    )
    reporter.line(f"written to {written}")
    return onnx
