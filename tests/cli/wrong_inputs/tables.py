"""Tables of labels and lists of classes that do not fit the images, or are none."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.cli.wrong_inputs.case import Case
from tests.cli.wrong_inputs.folders import WORDS, encoded, images

GOOD = "".join(f"{row}.png,{'ab'[row % 2]}\n" for row in range(8))
TABLES: dict[str, bytes] = {
    "empty.csv": b"",
    "header.csv": b"file,label\n",
    "columns.csv": b"name_of_file,what\n" + GOOD.encode(),
    "no-label.csv": b"file\n0.png\n1.png\n",
    "no-file.csv": b"label\na\nb\n",
    "short.csv": b"file,label\n0.png\n1.png,b\n",
    "unknown.csv": b"file,label\nnowhere.png,a\n1.png,b\n",
    "outside.csv": b"file,label\n/etc/passwd,a\n../mine.py,b\n",
    "twice.csv": b"file,label\n0.png,a\n0.png,b\n" + GOOD.encode(),
    "one-class.csv": b"file,label\n0.png,a\n1.png,a\n",
    "no-labels.csv": b"file,label\n0.png,\n1.png,\n",
    "latin.csv": "file,label\n0.png,caf\xe9\n1.png,b\n".encode("latin-1"),
    "utf16.csv": f"file,label\n{GOOD}".encode("utf-16"),
    "nul.csv": b"file,label\n0.png,\0\n1.png,b\n",
    "binary.csv": bytes(range(256)) * 4,
    "semicolons.csv": b"file;label;split\n0.png;a;nowhere\n",
    "split.csv": b"file,label,split\n0.png,a,foo\n1.png,b,bar\n",
    "only-test.csv": b"file,label,split\n0.png,a,test\n1.png,b,test\n",
    "quote.csv": b'file,label\n"0.png,a\n1.png,b\n',
    "wide.csv": b"file,label\n0.png," + b"x" * 200_000 + b"\n",
    "newlines.csv": b'file,label\n"0\n.png",a\n1.png,b\n',
    "half.json": b'[{"file": "0.png", "label": "a"}, {"fi',
    "number.json": b"3",
    "strings.json": b'["a", "b"]',
    "nested.json": b'[{"file": {"a": 1}, "label": [3]}]',
    "lists.jsonl": b"[1, 2]\n[3, 4]\n",
    "half.jsonl": b'{"file": "0.png", "label": "a"}\n{"fi',
    "null.jsonl": b'{"file": null, "label": null}\n',
    "nan.jsonl": b'{"file": "0.png", "label": NaN}\n{"file": "1.png", "label": "a"}\n',
    "deep.json": b"[" * 100_000,
    "noext": b"file,label\n",
    "table.xlsx": b"PK\3\4" + b"\0" * 99,
    "table.parquet": b"PAR1" + b"\0" * 99,
}
LISTS: dict[str, bytes] = {
    "empty.txt": b"",
    "one.txt": b"a\n",
    "others.txt": b"c\nd\n",
    "twice.txt": b"a\nb\na\n",
    "latin.txt": "caf\xe9\nb\n".encode("latin-1"),
    "binary.txt": bytes(range(256)),
    "gaps.txt": b"0 a\n5 b\n",
    "half.json": b'["a", "b"',
    "number.json": b"3",
    "mixed.json": b'[["a"], {"b": 1}]',
    "negative.json": b'{"a": -1, "b": 0}',
    "twice.json": b'{"a": 0, "b": 0}',
    "deep.json": b"[" * 100_000,
    "nothing.json": b"[]",
    "nan.json": b"[NaN, 3]",
}
WORDS_OF_CLASSES = [
    "a",
    "a,a",
    "a,b,a",
    "c,d",
    "0",
    "1",
    "-3",
    "1000000000",
    "1e9",
    ",",
    "a,",
    "nowhere.txt",
    "images",
    "/",
]


def cases() -> Iterator[Case]:
    """All of these."""
    words = tuple(WORDS.split())
    for name, content in TABLES.items():
        yield Case("labels", (*words, "--labels", name), partial(_table, name, content))
    for place in ("nowhere.csv", "images", "/dev/null", "moons/model.safetensors", "images/0.png"):
        yield Case("labels", (*words, "--labels", place), partial(_table, "x.csv", b""))
    yield Case("labels", (*words, "--labels", "x.csv"), partial(_closed, "x.csv"), user=True)
    for name, content in LISTS.items():
        yield Case("classes", (*words, "--classes", name), partial(_list, name, content))
    for given in WORDS_OF_CLASSES:
        yield Case("classes", (*words, "--classes", given), images)
    yield Case("classes", (*words, "--classes", "x.txt"), partial(_closed, "x.txt"), user=True)


def _table(name: str, content: bytes, here: Path) -> None:
    (here / "images").mkdir()
    for row in range(8):
        (here / "images" / f"{row}.png").write_bytes(encoded())
    (here / name).write_bytes(content)


def _list(name: str, content: bytes, here: Path) -> None:
    images(here)
    (here / name).write_bytes(content)


def _closed(name: str, here: Path) -> None:
    _list(name, b"a\nb\n", here)
    (here / name).chmod(0)
