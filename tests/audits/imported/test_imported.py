import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from buttress import audits, report
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.imported.audit import Imported
from buttress.audits.imported.tensor_file import read
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat

FREE = Threat(eps=0.2, box=None)


@pytest.fixture(scope="session")
def made(line):
    """(model, split, what PGD makes of it)."""
    model, x, y, _ = line
    split = Split(x, y, torch.arange(500, 700))
    return model, split, PGD(threat=FREE, steps=5)(model, x, y, ids=split.ids)


def write(path, tensors):
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix in (".pt", ".pth"):
        torch.save(tensors, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in tensors.items()})
    else:
        np.save(path, tensors["x_adv"].numpy())
    return path


def ask(model, split, path, threat=FREE, **settings):
    return audits.run(model, split, [Imported(file=path, threat=threat)], **settings)[0]


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.pth", "a.npz", "a.npy"])
def test_examples_of_every_kind_of_file_score_as_the_attack_that_made_them(made, tmp_path, name):
    model, split, outcome = made
    finding = ask(model, split, write(tmp_path / name, {"x_adv": outcome.x_adv}))
    success = int(outcome.success.sum())
    assert finding.data["robust"]["accuracy"] == (200 - success) / 200
    assert (finding.data["accepted"], finding.data["rejected"]["count"]) == (200, 0)
    assert finding.data["clean"]["accuracy"] == float((model(split.x).argmax(1) == split.y).double().mean())
    assert finding.data["beaten"] == success - sum(model(split.x).argmax(1) != split.y)
    assert "all are inside the threat" in finding.verdict
    assert f"{(200 - success) / 200:.1%} (" in finding.verdict


def test_ids_find_each_inputs_example_in_any_order_and_among_others(made, tmp_path):
    model, split, outcome = made
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    tensors = {"x_adv": outcome.x_adv[order], "ids": split.ids[order], "y": split.y[order]}
    path = write(tmp_path / "a.safetensors", tensors)
    whole = ask(model, split, path)
    assert whole.data["robust"]["accuracy"] == float((~outcome.success).double().mean())
    part = ask(model, split, path, limit=50)
    index = split.stratified(50, 0).ids - 500
    assert part.data["inputs"] == 50
    assert part.data["robust"]["accuracy"] == float((~outcome.success[index]).double().mean())


@pytest.mark.parametrize(
    "tensors",
    [
        lambda x, y: {"adv_inputs": x, "labels": y, "preds": y},
        lambda x, y: {"adv_complete": x},
        lambda x, y: x,
        lambda x, y: {"x_adv": x.double(), "y": y.int(), "note": "made elsewhere"},
    ],
)
def test_files_of_other_tools_are_read(made, tmp_path, tensors):
    model, split, outcome = made
    torch.save(tensors(outcome.x_adv, split.y), tmp_path / "a.pt")
    found = ask(model, split, tmp_path / "a.pt")
    assert found.data["robust"]["accuracy"] == float((~outcome.success).double().mean())


def test_what_is_outside_is_rejected_counted_and_not_beaten(made, tmp_path):
    """Seven go twice as far as allowed, two are no numbers; the others keep their verdict."""
    model, split, outcome = made
    right = model(split.x).argmax(1) == split.y
    fell = (right & outcome.success).nonzero().squeeze(1)
    x_adv = outcome.x_adv.clone()
    x_adv[fell[:7]] = split.x[fell[:7]] + 2 * (x_adv[fell[:7]] - split.x[fell[:7]])
    x_adv[fell[7]] = math.nan
    x_adv[fell[8], 1] = math.inf
    finding = ask(model, split, write(tmp_path / "a.npz", {"x_adv": x_adv}))
    rejected = finding.data["rejected"]
    assert (rejected["count"], rejected["over_eps"], rejected["outside_box"]) == (9, 9, 0)
    assert rejected["largest_excess"] == math.inf
    assert finding.data["accepted"] == 191
    stands = 200 - int(outcome.success.sum()) + 9
    assert finding.data["robust"]["accuracy"] == stands / 200
    assert finding.severity == "warning"
    assert (
        "9 are outside the threat, so rejected and counted as not successful: 9 by size, by inf at most"
        in finding.verdict
    )
    report.write(tmp_path / "report", {"net": [finding]}, {}, title="t", headline="h")


def test_the_largest_excess_is_told(made, tmp_path):
    model, split, _ = made
    x_adv = split.x.clone()
    x_adv[3, 0] += 0.45
    x_adv[8, 1] -= 0.2 + 5e-7  # a file's rounding at the edge
    finding = ask(model, split, write(tmp_path / "a.npy", {"x_adv": x_adv}))
    assert finding.data["rejected"]["count"] == 1
    assert finding.data["rejected"]["largest_excess"] == pytest.approx(0.25, abs=1e-6)
    assert "1 by size, by 0.25 at most" in finding.verdict


def test_the_box_counts_too(made, tmp_path):
    model, split, _ = made
    inside = replace(split, x=split.x.sigmoid())
    x_adv = inside.x.clone()
    x_adv[5] = -0.05
    x_adv[6] = inside.x[6].clamp(max=0.999) + 0.001
    finding = ask(model, inside, write(tmp_path / "a.npz", {"x_adv": x_adv}), Threat(eps=2.0))
    rejected = finding.data["rejected"]
    assert (rejected["count"], rejected["over_eps"], rejected["outside_box"]) == (1, 0, 1)
    assert rejected["furthest_outside_box"] == pytest.approx(0.05)
    assert "1 leave the box, by 0.05 at most" in finding.verdict


@pytest.mark.parametrize("levels", [True, False])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_eight_bit_files_may_be_out_by_their_rounding(pictures, tmp_path, levels, norm):
    """Inputs between levels, moved by all of the budget and then rounded: some are out by part of half a level."""
    model, split = pictures
    eps = 8 / 255
    x_adv = (split.x + eps * torch.sign(split.x - 0.5) / (6 if norm == "l2" else 1)).clamp(0, 1)
    rounded = (255 * x_adv).round()
    x_adv = rounded.to(torch.uint8) if levels else rounded / 255
    finding = ask(model, split, write(tmp_path / "a.safetensors", {"x_adv": x_adv}), Threat(norm=norm, eps=eps))
    rejected = finding.data["rejected"]
    assert finding.data["eight_bit"]
    assert rejected["count"] == rejected["within_rounding"] > 0
    assert 0 < rejected["largest_excess"] <= (0.5 / 255 + 1e-6) * (6 if norm == "l2" else 1)
    assert (
        f"{rejected['count']} by no more than the rounding to 8 bits may add (half a level, 0.0020" in finding.verdict
    )
    far = ask(model, split, tmp_path / "a.safetensors", Threat(norm=norm, eps=eps / 4))
    assert far.data["rejected"]["within_rounding"] < far.data["rejected"]["count"]


def test_floats_off_the_levels_are_no_eight_bit_file(pictures, tmp_path):
    model, split = pictures
    finding = ask(model, split, write(tmp_path / "a.npz", {"x_adv": split.x}), Threat(eps=0.1))
    assert not finding.data["eight_bit"]
    assert finding.data["robust"] == finding.data["clean"]


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        (lambda x, y, ids: {"x_adv": x[:100]}, "holds 100 examples and no ids for 200 inputs"),
        (lambda x, y, ids: {"x_adv": x[:150], "ids": ids[:150]}, "lacks 50 of 200 inputs, the first with id 650"),
        (lambda x, y, ids: {"x_adv": x, "ids": ids.clamp(max=690)}, "holds two examples of one id"),
        (lambda x, y, ids: {"x_adv": x, "ids": ids[:9]}, "needs ids as 200 whole numbers"),
        (lambda x, y, ids: {"x_adv": x, "y": y.float()}, "needs y as 200 whole numbers"),
        (lambda x, y, ids: {"x_adv": x, "y": 1 - y}, "gives 200 of 200 inputs another label"),
        (lambda x, y, ids: {"x_adv": x[:, :2].clone()}, r"examples of shape \(2,\), the inputs are shape \(3,\)"),
        (lambda x, y, ids: {"x_adv": y}, r"needs x_adv, .* it holds x_adv \(200,\) int64"),
        (lambda x, y, ids: {"images": x}, r"needs x_adv, .* it holds images \(200, 3\) float32"),
    ],
)
def test_what_does_not_belong_to_the_inputs_is_refused(made, tmp_path, tensors, told):
    model, split, outcome = made
    path = write(tmp_path / "a.safetensors", tensors(outcome.x_adv, split.y, split.ids))
    with pytest.raises(UserError, match=told):
        ask(model, split, path)


def test_channels_in_the_wrong_place_are_told(pictures, tmp_path):
    model, split = pictures
    path = write(tmp_path / "a.npy", {"x_adv": split.x.permute(0, 2, 3, 1)})
    with pytest.raises(UserError, match=r"put the channels first, \(N, C, H, W\)"):
        ask(model, split, path)


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.txt", b"", "examples are read from .safetensors, .pt, .pth, .npz, .npy; got"),
        ("a.pt", None, "there is no file"),
        ("a.pt", b"nothing", "a.pt (cannot be read|holds more than tensors)"),
        ("a.pt", b"junk\n", "a.pt (cannot be read|holds more than tensors)"),
        ("a.npy", b"junk that is no array at all", "a.npy cannot be read .damaged, or no file of plain tensors"),
        ("a.npz", b"nothing", "a.npz cannot be read"),
        ("a.npy", b"", "a.npy cannot be read"),
        ("a.safetensors", b"nothing at all", "a.safetensors cannot be read"),
    ],
)
def test_files_that_cannot_be_read_are_told(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)
    assert "allow_pickle" not in str(error.value)


def saved(path):
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    if path.suffix == ".npy":
        np.save(path, x.numpy())
    elif path.suffix == ".npz":
        np.savez_compressed(path, x_adv=x.numpy())
    elif path.suffix == ".pt":
        torch.save({"x_adv": x}, path)
    else:
        save_file({"x_adv": x}, path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
def test_wherever_a_file_is_damaged_it_is_read_or_told(tmp_path, suffix):
    """Twenty bytes overwritten at every tenth place, in two ways: one line or tensors, never another error."""
    path, told = tmp_path / f"a{suffix}", []
    whole = saved(path)
    for place in range(0, len(whole), 10):
        for filling in (b"\0", b"\xa7"):
            path.write_bytes(whole[:place] + (filling * 20)[: len(whole) - place] + whole[place + 20 :])
            try:
                read(path)
            except UserError as error:
                told.append(str(error))
    assert told
    assert not any("\n" in line for line in told)


def test_sparse_tensors_are_read(tmp_path):
    x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
    torch.save({"x_adv": x.to_sparse()}, tmp_path / "a.pt")
    assert torch.equal(read(tmp_path / "a.pt").x_adv, x)


@pytest.mark.parametrize("name", ["a.pt", "a.npy"])
def test_no_code_of_a_file_is_run(tmp_path, capsys, name):
    if name == "a.pt":
        torch.save({"x_adv": Evil()}, tmp_path / name)
    else:
        np.save(tmp_path / name, np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"holds more than tensors|cannot be read"):
        read(tmp_path / name)
    assert capsys.readouterr().out == ""
