import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from buttress import models
from buttress.errors import UserError


class Net(nn.Module):
    def __init__(self, seed: int = 0, outputs: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)
        self.bn = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, outputs)
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in self.state_dict().values():
                if value.is_floating_point():
                    value.copy_(torch.rand(value.shape, generator=random))


def same(model: nn.Module, other: nn.Module) -> bool:
    a, b = model.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def told(model: nn.Module, path: Path, **options: bool) -> str:
    """The error's line; the model must be as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        models.load_weights(model, path, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{path}", "FILE")


def test_weights_come_back_bit_by_bit(tmp_path):
    path = tmp_path / "w.safetensors"
    models.save_weights(Net(1), path)
    model = Net(2)
    assert models.load_weights(model, path) == ([], [])
    assert same(model, Net(1))
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtypes_are_kept(dtype, tmp_path):
    models.save_weights(Net(1).to(dtype), tmp_path / "w.safetensors")
    assert load_file(tmp_path / "w.safetensors")["fc.weight"].dtype == dtype
    model = Net(2).to(dtype)
    models.load_weights(model, tmp_path / "w.safetensors")
    assert same(model, Net(1).to(dtype))


def test_tied_and_channels_last_weights_are_written(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last))
    model[1].weight = model[0].weight
    models.save_weights(model, tmp_path / "w.safetensors")
    before = [value.clone() for value in model.state_dict().values()]
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    models.load_weights(model, tmp_path / "w.safetensors")
    assert model[1].weight is model[0].weight
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


def test_a_model_without_weights_has_an_empty_file(tmp_path):
    models.save_weights(nn.ReLU(), tmp_path / "w.safetensors")
    assert models.load_weights(nn.ReLU(), tmp_path / "w.safetensors") == ([], [])


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    models.save_weights(Net(1), path)

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(UserError) as error:
        models.save_weights(Net(2), path)
    assert str(error.value) == f"cannot write {path}: No space left on device"
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["w.safetensors"]
    model = Net(3)
    models.load_weights(model, path)
    assert same(model, Net(1))


def test_the_file_is_on_the_disk_before_it_is_moved(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda d: (done.append("fsync"), fsync(d))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append("replace"), replace(a, b))[1])
    models.save_weights(Net(1), tmp_path / "w.safetensors")
    assert done == ["fsync", "replace", "fsync"]


def test_names_and_places_that_cannot_be_written_are_told(tmp_path):
    with pytest.raises(UserError, match=r"a name ending in .safetensors, .pt or .pth; got .*w.bin"):
        models.save_weights(Net(), tmp_path / "w.bin")
    with pytest.raises(UserError, match=r"cannot write .*: No such file or directory"):
        models.save_weights(Net(), tmp_path / "nowhere" / "w.safetensors")


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module.", "module.model."])
def test_training_scripts_wrappers_and_prefixes_are_understood(wrapper, prefix, tmp_path):
    state = {prefix + name: value for name, value in Net(1).state_dict().items()}
    torch.save({"epoch": 3, wrapper: state, "optimizer": {"lr": 0.1}}, tmp_path / "w.pt")
    model = Net(2)
    models.load_weights(model, tmp_path / "w.pt")
    assert same(model, Net(1))


def test_a_bare_state_dict_is_understood_in_both_formats(tmp_path):
    torch.save(Net(1).state_dict(), tmp_path / "w.pth")
    save_file({f"module.{k}": v for k, v in Net(1).state_dict().items()}, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        model = Net(2)
        models.load_weights(model, tmp_path / name)
        assert same(model, Net(1))


def test_prefixes_that_belong_to_the_model_stay(tmp_path):
    model = models.Normalized(Net(1), 0.5, 0.5)
    models.save_weights(model, tmp_path / "w.safetensors")
    other = models.Normalized(Net(2), 0.1, 0.1)
    models.load_weights(other, tmp_path / "w.safetensors")
    assert same(model, other)


def test_weights_of_the_network_alone_fit_into_the_wrappers(tmp_path):
    torch.save({"state_dict": {f"module.{k}": v for k, v in Net(1).state_dict().items()}}, tmp_path / "w.pt")
    model = models.Output(models.Normalized(Net(2), 0.1, 0.2), 0)
    models.load_weights(model, tmp_path / "w.pt")
    assert same(model.model.model, Net(1))
    assert float(model.model.mean) == pytest.approx(0.1)


def test_a_normalisation_is_never_dropped_silently(tmp_path):
    models.save_weights(models.Normalized(Net(1), 0.5, 0.5), tmp_path / "w.safetensors")
    assert told(Net(2), tmp_path / "w.safetensors") == (
        "FILE does not fit Net: 2 unexpected (mean, std); inputs were normalised by these in training: make that part "
        "of the network, or leave them out by --weights-key model and give --normalise MEAN/STD"
    )


def test_checkpoints_older_than_the_batch_counter_fit(tmp_path):
    state = {k: v for k, v in Net(1).state_dict().items() if k != "bn.num_batches_tracked"}
    torch.save(state, tmp_path / "w.pt")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        model = Net(2)
        assert models.load_weights(model, tmp_path / name) == ([], [])
        assert same(model, Net(1))


def test_what_does_not_fit_is_named(tmp_path):
    state = Net(1, outputs=5).state_dict()
    del state["conv.bias"]
    state["extra"] = torch.ones(1)
    torch.save(state, tmp_path / "w.pt")
    assert told(Net(2), tmp_path / "w.pt") == (
        "FILE does not fit Net: 1 missing (conv.bias), 1 unexpected (extra), "
        "2 of another shape (fc.weight is 5x3, not 2x3, fc.bias is 5, not 2); create the model as it was trained"
    )
    assert "2 of another shape" in told(Net(2), tmp_path / "w.pt", strict=False)


def test_at_most_three_names_are_told(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    assert told(Net(), tmp_path / "w.pt") == (
        "FILE does not fit Net: 8 missing (conv.weight, conv.bias, bn.weight, ...), 1 unexpected (a); "
        "create the model as it was trained"
    )
    assert "8 missing" in told(Net(), tmp_path / "w.pt", strict=False)  # nothing fits


def test_not_strict_takes_what_fits_and_says_what_did_not(tmp_path):
    state = Net(1).state_dict()
    del state["fc.bias"]
    state["head"] = torch.ones(1)
    torch.save(state, tmp_path / "w.pt")
    model = Net(2)
    assert models.load_weights(model, tmp_path / "w.pt", strict=False) == (["fc.bias"], ["head"])
    assert torch.equal(model.conv.weight, Net(1).conv.weight)
    assert torch.equal(model.fc.bias, Net(2).fc.bias)


@pytest.mark.parametrize("kept", [1, 7, 100, 0.5, 0.99])
def test_truncated_files_are_told(kept, tmp_path):
    models.save_weights(Net(1), tmp_path / "w.safetensors")
    torch.save(Net(1).state_dict(), tmp_path / "w.pt")
    torch.save(Net(1).state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("w.safetensors", "w.pt", "old.pt"):
        path = tmp_path / name
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    line = told(Net(2), tmp_path / "w.safetensors")
    assert line.startswith("FILE is no whole safetensors file (corrupt or truncated): ")
    for name in ("w.pt", "old.pt"):
        assert told(Net(2), tmp_path / name) == (
            "FILE is no whole torch file of weights: corrupt, truncated, or a plain pickle, which is never run"
        )


def test_other_files_are_told(tmp_path):
    for name, line in (
        ("w.safetensors", "FILE is no whole safetensors file (corrupt or truncated): "),
        ("w.pt", "FILE is no whole torch file of weights: corrupt, truncated, or a plain pickle, which is never run"),
    ):
        (tmp_path / name).write_text("hello, these are no weights")
        assert told(Net(), tmp_path / name).startswith(line)
    assert told(Net(), tmp_path / "none.pt") == "there is no file of weights at FILE"
    assert told(Net(), tmp_path) == "there is no file of weights in the folder FILE, such as model.safetensors"


class Code:
    """What a malicious file holds: unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    ran, mkdir = tmp_path / "ran", f"{os.mkdir.__module__}.mkdir"
    torch.save({"state_dict": Net(1).state_dict(), "x": Code(ran)}, tmp_path / "w.pt")
    line = told(Net(), tmp_path / "w.pt")
    assert line == f"FILE is a pickle that wants to run code ({mkdir}), which is refused: save the state dict alone"
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(Code(ran)))
    assert told(Net(), tmp_path / "w.pkl") == (
        "FILE is a plain pickle, which may run code when it is read: if you trust it, type in Python "
        "torch.save(pickle.load(open('w.pkl', 'rb')), 'weights.pt') and give that file"
    )
    assert not ran.exists()
    pickle.loads((tmp_path / "w.pkl").read_bytes())
    assert ran.exists()  # the file was a loaded one


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({}, "but it holds nothing"),
        ({"epoch": 3, "optimizer": {}, "lr": 0.1, "x": 1}, "but it holds epoch, optimizer, lr, ..."),
        ({"state_dict": {"a": 3}}, "but it holds state_dict"),
        ([3], "but it holds a list"),
    ],
)
def test_a_file_without_weights_is_told(content, line, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    expected = "FILE holds no weights: a state dict was expected, under whatever keys, "
    assert told(Net(), tmp_path / "w.pt") == expected + line
