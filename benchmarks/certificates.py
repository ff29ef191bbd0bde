"""Seconds per input and peak memory of bounds, by the number of inputs, and as a ratio to a pass of intervals.

    python benchmarks/certificates.py DIR --inputs 32 128 512

DIR holds MNIST's four idx files, or a folder mnist with them; the network is that of ``benchmarks/verifiers.py``. Each
row is a process of its own with one thread: seconds are the processor's, memory is what the process came to more than
before it certified.
"""

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import torch
from verifiers import network, split_of, trained

from buttress import certificates, data
from buttress.threat import Threat

MIB = 1024  # ru_maxrss is in KiB


def model_of(options):
    """The network of the benchmark of verifiers, trained once."""
    model = network()
    if not options.network.exists():
        kept = trained(*split_of(data.load("mnist", data_dir=options.data).train, 5_000), 0.1, 3)
        torch.save(kept.state_dict(), options.network)
    model.load_state_dict(torch.load(options.network))
    return model


def row(options, method, count):
    """CPU seconds per input, MiB beyond those before, and the share that is verified."""
    torch.set_num_threads(1)
    model = model_of(options)
    x, y = split_of(data.load("mnist", data_dir=options.data).test, count)
    threat = Threat(eps=options.eps)
    certificates.certify(model, x[:1], y[:1], threat=threat, method=method)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = certificates.certify(model, x, y, threat=threat, method=method)
    seconds = (time.process_time() - started) / count
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / MIB
    return seconds, peak, float(found.verified.float().mean())


def main():
    """Train the network where there is none yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--network", type=Path, default=Path("verifiers-network.pt"))
    parser.add_argument("--inputs", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--methods", nargs="+", default=["ibp", "crown-ibp", "crown"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model_of(options)
    print("| method | inputs | verified | CPU ms per input | times IBP | peak MiB more |")
    base = None
    for count in options.inputs:
        for method in options.methods:
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                seconds, peak, verified = alone.apply(row, (options, method, count))
            base = seconds if method == options.methods[0] else base
            cells = [
                method,
                str(count),
                f"{verified:.1%}",
                f"{seconds * 1e3:.2f}",
                f"{seconds / base:.0f}",
                f"{peak:.0f}",
            ]
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
