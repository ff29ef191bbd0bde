"""Files are read as what they are, whatever they are called; and others are told with what to do about them."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from buttress import models
from buttress.errors import UserError


def network(seed):
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def written(path, kind, state):
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "torch":
        torch.save(state, path)
    else:
        with path.open("wb") as file:
            np.savez(file, **{name: value.numpy() for name, value in state.items()})


@pytest.mark.parametrize("kind", ["safetensors", "torch", "npz"])
@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.npz", "w", "w.ckpt"])
def test_the_content_counts_and_not_the_name(kind, name, tmp_path):
    written(tmp_path / name, kind, network(1).state_dict())
    model = network(2)
    models.load_weights(model, tmp_path / name)
    assert torch.equal(model.weight, network(1).weight)


def zipped(*names):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "{}")

    return write


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("w.pt", b"", "is empty"),
        ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(40), "is a file of HDF5, as Keras writes them: read it in the function"),
        ("w.keras", zipped("config.json", "model.weights.h5"), "is a network of Keras: read it in the function"),
        ("w.gguf", b"GGUF" + bytes(40), "is a file of GGUF: read it in the function"),
        ("w.npy", b"\x93NUMPY" + bytes(40), "is one array of NumPy without a name"),
        ("w.pt.gz", b"\x1f\x8b" + bytes(40), r"is compressed \(gzip\): unpack it first"),
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS, .*: type git lfs"),
        ("w.pth", b"<!DOCTYPE html><html><body>404: not found</body>", "is a page of the web, as of a download that"),
        ("w.onnx", b"\x08\x07\x12\x07pytorch" + bytes(40), "is a network of ONNX: give it in the place of the network"),
        ("w.pkl", pickle.dumps({"weight": np.ones((3, 4))}), "is a plain pickle, which may run code when it is read"),
        ("w.safetensors", lambda path: torch.save({"weight": torch.ones(2)}, str(path)), "rename it to w.pt"),
    ],
)
def test_what_is_no_file_of_weights_is_told(name, content, line, tmp_path):
    content(tmp_path / name) if callable(content) else (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=line):
        models.load_weights(network(0), tmp_path / name)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (".metadata", r"of torch.distributed.checkpoint: type python -m .* dcp_to_torch .*/saved weights.pt, and give"),
        ("zero_to_fp32.py", "of DeepSpeed: type python .*/saved/zero_to_fp32.py .*/saved"),
        ("notes.txt", "there is no file of weights in the folder .*, such as model.safetensors"),
    ],
)
def test_folders_of_shards_are_told_with_the_command_that_makes_one_file(name, line, tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / name).write_text("x")
    with pytest.raises(UserError, match=line):
        models.load_weights(network(0), folder)
