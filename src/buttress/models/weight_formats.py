"""What a file of weights is, told by its first bytes: names of files promise little."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Literal

from buttress.errors import UserError

Format = Literal["safetensors", "torch", "npz"]
_BY_NAME: dict[str, Format] = {".safetensors": "safetensors", ".npz": "npz"}
_HEAD = 32  # bytes, which a whole file has
_LEGACY_TORCH = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # the number that torch.save of before 1.6 pickles first
_IN_CODE = "read it in the function that makes the network, which returns it with its weights, and leave --weights out"
_PAGE = "a page of the web, as of a download that failed: fetch the file again"
_FOREIGN = {  # by what the files of other libraries, and what is no file of weights, begin with
    b"\x89HDF\r\n": f"a file of HDF5, as Keras writes them: {_IN_CODE}",
    b"GGUF": f"a file of GGUF: {_IN_CODE}",
    b"\x93NUMPY": "one array of NumPy without a name: write them by the network's names, np.savez(file, **arrays)",
    b"\x1f\x8b": "compressed (gzip): unpack it first",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: type git lfs pull",
    b"<!doctype": _PAGE,
    b"<html": _PAGE,
}
_FOLDERS = {  # by what is in the folders of libraries that write a file for each process
    ".metadata": "of torch.distributed.checkpoint: type python -m torch.distributed.checkpoint.format_utils "
    "dcp_to_torch {path} weights.pt, and give that file",
    "zero_to_fp32.py": "of DeepSpeed: type python {path}/zero_to_fp32.py {path} {path}/whole, and give what it writes",
}


def format_of(path: Path) -> Format:
    """The format of a file, by its content; where that says nothing, as in a damaged one, by its name.

    Raises:
        UserError: for what is known to be something else, with what to do.
        OSError: for a file that cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise UserError(f"{path} is empty: expected a file of weights")
    if head.startswith(b"PK"):
        return _of_archive(path)
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] < path.stat().st_size:
        return "safetensors"
    if path.suffix == ".onnx":
        raise UserError(f"{path} is a network of ONNX: give it in the place of the network, without --weights")
    for start, what in _FOREIGN.items():
        if head.startswith(start) or head.lower().startswith(start):
            raise UserError(f"{path} is {what}")
    if head.startswith(b"\x80") and len(head) == _HEAD and _LEGACY_TORCH not in head:
        raise UserError(
            f"{path} is a plain pickle, which may run code when it is read: if you trust it, type in Python "
            f"torch.save(pickle.load(open({path.name!r}, 'rb')), 'weights.pt') and give that file"
        )
    return _BY_NAME.get(path.suffix, "torch")


def refuse_folder(path: Path) -> None:
    """Refuse a folder without a file of weights that is known.

    Raises:
        UserError: naming it, with what makes one file of it where that is known.
    """
    for name, what in _FOLDERS.items():
        if (path / name).is_file():
            raise UserError(f"{path} is a folder {what.format(path=path)}")
    raise UserError(f"there is no file of weights in the folder {path}, such as model.safetensors")


def _of_archive(path: Path) -> Format:
    """Of what begins like a zip file, which a truncated one does as well."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return _BY_NAME.get(path.suffix, "torch")
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if any(name.endswith(".h5") for name in names) or path.suffix == ".keras":
        raise UserError(f"{path} is a network of Keras: {_IN_CODE}")
    if path.suffix == ".safetensors":
        raise UserError(f"{path} is what torch.save writes, no safetensors: rename it to {path.stem}.pt")
    return "torch"
