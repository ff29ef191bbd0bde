"""Checkpoints that neither a full disk nor damage can spoil."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from buttress.errors import UserError
from buttress.training import Interrupted, checkpoint


def weights(value):
    return {"w": torch.full((3,), float(value)), "count": torch.tensor(7)}


def write(folder, step, value=None):
    value = float(step) if value is None else value
    checkpoint.save(folder, step, weights(value), {"best": weights(value)}, {"index": step, "history": []}, "lower it")


def test_what_is_saved_comes_back(tmp_path, same):
    write(tmp_path, 4)
    read = checkpoint.load(checkpoint.latest(tmp_path))
    same(read, (weights(4), {"best": weights(4)}, {"index": 4, "history": []}))


def test_the_newest_and_the_one_before_it_are_kept(tmp_path):
    assert checkpoint.latest(tmp_path / "none") is None
    for step in (9, 10, 99, 100, 1000):
        write(tmp_path, step)
        assert checkpoint.load(checkpoint.latest(tmp_path))[2]["index"] == step
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["step-000000100", "step-000001000"]


def test_tied_and_strided_weights_are_written(tmp_path, same):
    base = torch.arange(6.0).view(2, 3)
    tied = {"a": base, "b": base, "t": base.T}
    checkpoint.save(tmp_path, 1, tied, {}, {}, "lower it")
    same(checkpoint.load(checkpoint.latest(tmp_path))[0], tied)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad, tmp_path):
    write(tmp_path, 1)
    with pytest.raises(UserError, match="weight 'w' is not finite at step 2: training diverged; lower it"):
        write(tmp_path, 2, bad)
    assert checkpoint.latest(tmp_path).name == "step-000000001"


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_rust(*_, **__):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


FULL = {
    "weights": (checkpoint, "save_file", no_space_in_rust),
    "state": (checkpoint.Path, "write_bytes", no_space),
    "progress": (checkpoint.Path, "write_text", no_space),
    "flush": (checkpoint.os, "fsync", no_space),
    "move": (checkpoint.os, "rename", no_space),
}


@pytest.mark.parametrize("place", FULL)
def test_a_full_disk_leaves_the_checkpoint_before_and_no_rubbish(place, monkeypatch, tmp_path, same):
    write(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(*FULL[place])
        with pytest.raises(
            UserError, match=r"no space left to write .*step-000000002; what was there before is intact"
        ):
            write(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001"]
    same(checkpoint.load(checkpoint.latest(tmp_path))[0], weights(1))


def test_other_errors_are_not_called_a_full_disk(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        write(tmp_path / "file", 1)


def test_a_run_on_a_full_disk_goes_on_when_there_is_space(monkeypatch, network, images, train, same, tmp_path):
    whole = train(network(), images)
    calls = []

    def second_time(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            no_space_in_rust()
        return real(*args, **options)

    real = checkpoint.save_file
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", second_time)
        with pytest.raises(UserError, match="no space left"):
            train(network(), images, out=tmp_path / "run")
    found = train(network(), images, out=tmp_path / "run", resume=True)
    same(found.model.state_dict(), whole.model.state_dict())


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "cut weights": ("weights.safetensors", cut),
    "no weights": ("weights.safetensors", lambda p: p.unlink()),
    "cut state": ("state.pt", cut),
    "empty state": ("state.pt", lambda p: p.write_bytes(b"")),
    "cut progress": ("progress.json", cut),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(
    damage, network, images, train, stop_at, same, tmp_path
):
    whole = train(network(), images)
    with pytest.raises(Interrupted):
        train(network(), images, out=tmp_path / "run", progress=stop_at(5))
    newest = checkpoint.latest(tmp_path / "run" / "checkpoints")
    file, spoil = DAMAGE[damage]
    spoil(newest / file)
    with pytest.raises(UserError) as caught:
        train(network(), images, out=tmp_path / "run", resume=True)
    assert f"the checkpoint {newest} cannot be read" in str(caught.value)
    assert "remove it, and the one before it is used" in str(caught.value)
    assert "\n" not in str(caught.value)
    for part in newest.iterdir():
        part.unlink()
    newest.rmdir()
    found = train(network(), images, out=tmp_path / "run", resume=True)
    same(found.model.state_dict(), whole.model.state_dict())


def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    write(tmp_path / "run", 1)
    newest = checkpoint.latest(tmp_path / "run")
    torch.save(Evil(), newest / "state.pt")
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(newest)
    assert not (tmp_path / "executed").exists()
