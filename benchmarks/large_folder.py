"""A folder of images that is larger than memory: peak memory of a training and an audit, and images per second.

    python benchmarks/large_folder.py                                 # 2,000 JPEGs of 224x224 in a temporary folder
    python benchmarks/large_folder.py FOLDER --images 200000          # made there; begun again, it goes on
    python benchmarks/large_folder.py --images 400 --rounds 1         # tiny, to see that it runs

Two commands, ``buttress train`` for an epoch and ``buttress audit``, each run under a limit of memory (4 GiB of data
for each process, as ``ulimit -d`` sets it). Their peak is the proportional set size (PSS) of all of their processes
together, looked at five times a second: shared pages count once, the cache of files does not. The input path
of the training takes turns with a plain torch ``DataLoader`` loop that decodes the same files with as many workers; the
ratio is the median over the turns.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from buttress.data import Dataset, Split
from buttress.data.images.decode import common_format
from buttress.data.images.image_file import FileTable
from buttress.data.images.image_inputs import DecodedImages
from buttress.data.lazy_inputs import LazyInputs
from buttress.training.batches import Batches

SIDE, CLASSES, BATCH = 224, 10, 128


class Small(nn.Sequential):
    """Cheap enough that reading images is most of the work."""

    def __init__(self, classes: int = CLASSES) -> None:
        first, second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(
            nn.AvgPool2d(4), first, nn.ReLU(), second, nn.ReLU(), pool, nn.Flatten(), nn.Linear(32, classes)
        )


def write_images(folder: Path, count: int) -> None:
    """``count`` JPEGs by class: nine tenths for training, the rest for validation and the test; those there stay."""
    for index in range(count):
        split = {18: "val", 19: "test"}.get(index // CLASSES % 20, "train")
        path = folder / split / str(index % CLASSES) / f"{index:06d}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, index)


def write_image(path: Path, index: int) -> None:
    """Coloured clouds under stripes, of which each class has its own number."""
    coarse = np.random.default_rng(index).integers(0, 256, (14, 14, 3), dtype=np.uint8)
    clouds = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    stripes = 32 * np.sin(2 * np.pi * 2 * (1 + index % CLASSES) * np.arange(SIDE) / SIDE)
    pixels = np.clip(clouds + stripes[None, :, None], 0, 255).astype(np.uint8)
    beside = path.with_suffix(".part")
    Image.fromarray(pixels).save(beside, "JPEG", quality=90)
    beside.replace(path)


class Plain(TorchDataset):
    """What a torch script does: a file is decoded where it is asked for."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Tensor:
        with Image.open(self.files[row]) as image:
            return torch.from_numpy(np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy())


def seconds(batches: Iterator[Tensor], count: int) -> float:
    """For so many batches as float32, from the start of the workers on."""
    start = time.perf_counter()
    for _ in range(count):
        next(batches).mean()
    return time.perf_counter() - start


def compare_speed(folder: Path, rounds: int, most: int, workers: int) -> None:
    """Images per second of both, in turns."""
    files = sorted((folder / "train").glob("*/*.jpg"))
    inputs = LazyInputs(DecodedImages(FileTable(files), common_format(files, None)), torch.arange(len(files)))
    split = Split(inputs, torch.zeros(len(files), dtype=torch.int64), torch.arange(len(files)))
    train, rest = split.divide(2, 0)
    val, test = rest.divide(1, 0)
    dataset = Dataset("JPEGs", train, val, test, ("one", "other"), (0, 1), "made here")
    batches = Batches(dataset, BATCH, 0, torch.device("cpu"), workers=workers)
    count = min(most, len(train) // BATCH)

    def ours(epoch: int) -> float:
        return seconds((batch.x for batch in batches.epoch(epoch)), count)

    def plain(epoch: int) -> float:
        generator = torch.Generator().manual_seed(epoch)
        loader = DataLoader(Plain(files), BATCH, shuffle=True, num_workers=workers, generator=generator)
        return seconds((x.float() / 255 for x in loader), count)

    ratios = []
    for turn in range(rounds):
        taken = {way: way(turn) for way in ((ours, plain) if turn % 2 else (plain, ours))}
        ratios.append(taken[plain] / taken[ours])
        speeds = ", ".join(f"{way.__name__} {count * BATCH / taken[way]:.0f}" for way in (ours, plain))
        print(f"turn {turn + 1}: images per second with {workers} workers: {speeds}")
    print(f"ours is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})")


def measure(words: list[str], limit: float) -> None:
    """Run a command of buttress under a limit of memory, and print its peak."""

    def within() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 2**30),) * 2)

    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(
        [sys.executable, "-m", "buttress", *words], preexec_fn=within, start_new_session=True
    ) as command:
        while command.poll() is None:
            peak = max(peak, memory_of_session(command.pid))
            time.sleep(0.2)
    if command.returncode:
        sys.exit(f"buttress {words[0]} ended with status {command.returncode}")
    print(f"{words[0]}: {time.perf_counter() - start:.0f} s, peak of all its processes {peak / 2**30:.2f} GiB PSS")


def memory_of_session(session: int) -> float:
    """Bytes (PSS) of all processes of a session."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int((process / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            for line in (process / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += float(line.split()[1]) * 1024
        except OSError:  # it has ended meanwhile
            continue
    return total


def main() -> None:
    """Make the images, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the images are, or are made")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=4.0, help="GiB of data that a process may have")
    parser.add_argument("--inputs", type=int, default=500, help="that the audit is about")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=50, help="of a turn, at most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as beside:
        folder, run = options.folder or Path(beside, "images"), str(Path(beside, "run"))
        write_images(folder, options.images)
        decoded = options.images * 3 * SIDE * SIDE / 2**30
        print(f"{options.images} JPEGs of {SIDE}x{SIDE}, {decoded:.1f} GiB decoded; limit {options.limit:g} GiB")
        network = ["--model", f"{Path(__file__).resolve()}:Small", "--workers", str(options.workers)]
        measure(["train", run, "--data", f"folder:{folder}", *network, "--epochs", "1"], options.limit)
        audit = ["audit", run, "--out", str(Path(beside, "audit")), "--limit", str(options.inputs)]
        measure([*audit, "--attacks", "pgd,fgsm"], options.limit)
        compare_speed(folder, options.rounds, options.batches, options.workers)


if __name__ == "__main__":
    main()
