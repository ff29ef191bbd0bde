"""Files of weights that are none, are damaged, want to run code, or are another network's."""

import io
import pickle
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from tests.cli.wrong_inputs.case import Case
from torch import Tensor, nn

WORDS = "audit mine.py:net --out new --data mine.py:data --audits robustness --attacks fgsm --inputs 8 --weights"
State = dict[str, Tensor]


def state() -> State:
    """Weights of ``net`` in ``mine.py``."""
    sizes = {1: (8, 2), 3: (8, 8), 5: (2, 8)}
    found: State = {}
    for number, (out, into) in sizes.items():
        found |= {f"{number}.weight": torch.ones(out, into), f"{number}.bias": torch.zeros(out)}
    return found


def saved(thing: object, **options: object) -> bytes:
    """As ``torch.save`` writes it."""
    file = io.BytesIO()
    torch.save(thing, file, **options)
    return file.getvalue()


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        import os

        return os.system, ("touch hacked",)


def changed(**values: Tensor) -> State:
    """The weights with some others."""
    return state() | {name.replace("_", ".", 1).strip("_"): value for name, value in values.items()}


def _rewritten(change: Callable[[str, bytes], bytes], name_of: Callable[[str], str] = str) -> bytes:
    """A file of torch's with other content in its parts."""
    source, target = zipfile.ZipFile(io.BytesIO(saved(state()))), io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as file:
        for part in source.namelist():
            file.writestr(name_of(part), change(part, source.read(part)))
    return target.getvalue()


def _zip(content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as parts:
        for name, data in content.items():
            parts.writestr(name, data)
    return file.getvalue()


def _nested(depth: int) -> object:
    thing: object = state()
    for _ in range(depth):
        thing = {"model": thing}
    return thing


def _loop() -> object:
    thing: dict[str, object] = {}
    thing["model"] = thing
    return thing


NAN = torch.full((8, 2), float("nan"))
FILES: dict[str, Callable[[], bytes]] = {
    "empty.pt": lambda: b"",
    "empty.safetensors": lambda: b"",
    "text.pt": lambda: b"epoch 3\n" * 40,
    "text.safetensors": lambda: b"epoch 3\n" * 40,
    "html.pth": lambda: b"<!DOCTYPE html><html>404</html>",
    "lfs.safetensors": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
    "half.pt": lambda: saved(state())[:1500],
    "half.safetensors": lambda: save(state())[:700],
    "end.safetensors": lambda: save(state()) + b"more",
    "huge-header.safetensors": lambda: (2**62).to_bytes(8, "little") + b"{}",
    "bad-header.safetensors": lambda: (20).to_bytes(8, "little") + b"{" * 20,
    "lying.safetensors": lambda: save(state()).replace(b'"shape":[8,8]', b'"shape":[9,9]'),
    "evil.pt": lambda: saved(Evil()),
    "evil-inside.pt": lambda: saved({"state_dict": state(), "args": Evil()}),
    "evil-old.pt": lambda: saved(Evil(), _use_new_zipfile_serialization=False),
    "evil.pkl": lambda: pickle.dumps(Evil()),
    "evil.pt ": lambda: pickle.dumps(Evil()),
    "bytes.pkl": lambda: pickle.dumps(b"weights"),
    "number.pt": lambda: saved(3),
    "none.pt": lambda: saved(None),
    "list.pt": lambda: saved([1, 2, 3]),
    "tensor.pt": lambda: saved(torch.zeros(3)),
    "no-tensors.pt": lambda: saved({"epoch": 3, "loss": 0.1}),
    "empty-dict.pt": lambda: saved({}),
    "optimiser.pt": lambda: saved({"optimizer": {"state": {0: {"exp_avg": torch.zeros(8, 2)}}}}),
    "other.pt": lambda: saved({"conv.weight": torch.zeros(3, 3)}),
    "other.safetensors": lambda: save({"conv.weight": torch.zeros(3, 3)}),
    "shape.pt": lambda: saved(changed(_1_weight=torch.zeros(8, 3)) | {"1.weight": torch.zeros(8, 3)}),
    "head.pt": lambda: saved(state() | {"5.weight": torch.zeros(7, 8), "5.bias": torch.zeros(7)}),
    "missing.pt": lambda: saved({name: value for name, value in state().items() if name != "3.bias"}),
    "more.pt": lambda: saved(state() | {"7.weight": torch.zeros(2)}),
    "nan.pt": lambda: saved(state() | {"1.weight": NAN}),
    "nan.safetensors": lambda: save(state() | {"1.weight": NAN}),
    "inf.pt": lambda: saved(state() | {"1.weight": NAN.nan_to_num(float("inf"))}),
    "complex.pt": lambda: saved({name: value.to(torch.complex64) for name, value in state().items()}),
    "bools.pt": lambda: saved({name: value.bool() for name, value in state().items()}),
    "scalars.pt": lambda: saved(dict.fromkeys(state(), 3)),
    "several.pt": lambda: saved({"model": state(), "ema": {name: 2 * value for name, value in state().items()}}),
    "deep.pt": lambda: saved(_nested(200)),
    "loop.pt": lambda: saved(_loop()),
    "list-of-states.pt": lambda: saved([state(), {name: value + 1 for name, value in state().items()}]),
    "numbers-as-keys.pt": lambda: saved({3: torch.zeros(2), None: torch.zeros(3)}),
    "zip.pt": lambda: _zip({"readme.txt": b"nothing"}),
    "zip-of-nothing.pt": lambda: _zip({}),
    "bomb.pt": lambda: _zip({"archive/data.pkl": b"\0" * 30_000_000}, zipfile.ZIP_DEFLATED),
    "no-pickle.pt": lambda: _zip({"archive/version": b"3"}),
    "bad-pickle.pt": lambda: _rewritten(lambda name, data: b"\x80\x02garbage" if name.endswith("data.pkl") else data),
    "no-data.pt": lambda: _rewritten(lambda name, data: b"" if "/data/" in name else data),
    "short-data.pt": lambda: _rewritten(lambda name, data: data[:3] if "/data/" in name else data),
    "model.onnx": lambda: b"\x08\x07\x12\x04test",
    "model.h5": lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 99,
    "model.npz": lambda: _zip({"a.npy": b"\x93NUMPY\1\0v\0{}"}),
    "model.tar": lambda: b"a" * 257 + b"ustar" + b"\0" * 300,
}
GOOD = ("deep.pt",)


def _scripted(here: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
    torch.jit.script(module).save(str(here / "scripted.pt"))


def cases() -> Iterator[Case]:
    """All of these."""
    words = tuple(WORDS.split())
    for name, content in FILES.items():
        yield Case(
            "weights",
            (*words, name),
            partial(_write, name, content),
            (0, 2) if name in GOOD else (2,),
            late=name in GOOD,
        )
    for place in (
        "nowhere.pt",
        "moons",
        "moons/checkpoints",
        "mine.py",
        "digits/model.safetensors",
        "/dev/null",
        "",
        ".",
    ):
        yield Case("weights", (*words, place))
    yield Case("weights", (*words, "loop.pt"), lambda here: (here / "loop.pt").symlink_to("loop.pt"))
    yield Case("weights", (*words, "w.pt"), _closed, user=True)
    yield Case("weights", (*words, "scripted.pt"), _scripted)
    good = partial(_write, "w.pt", lambda: saved(state()))
    several = partial(_write, "w.pt", FILES["several.pt"])
    for given, prepare in (
        ("--weights-key nothing", good),
        ("--weights-key nothing", several),
        ("--strict false", good),
        ("--head new", good),
        ("--weights-key ''", several),
        ("--model-args.nothing 3", good),
        ("--normalise imagenet", good),
        ("--output 7", good),
    ):
        yield Case(
            "options of weights", (*words, "w.pt", *("" if word == "''" else word for word in given.split())), prepare
        )
    for reference in ("w.pt", "model.onnx", "./w.pt", "mine.py", "moons/model.safetensors", "w.pt:net"):
        yield Case("networks", ("audit", reference, *words[2:-1]), good)
    yield Case("networks", ("audit", "model.onnx", *words[2:-1]), partial(_write, "model.onnx", FILES["model.onnx"]))


def _write(name: str, content: Callable[[], bytes], here: Path) -> None:
    (here / name).write_bytes(content())


def _closed(here: Path) -> None:
    _write("w.pt", lambda: saved(state()), here)
    (here / "w.pt").chmod(0)
