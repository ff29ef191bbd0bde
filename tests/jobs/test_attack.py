"""The attack command: one file in the end, group by group until then, resumable."""

import json
import sys
from dataclasses import dataclass

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tests.reporters import Heard

from buttress import fit, models
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.evaluation.groups import grouped
from buttress.audits.base.evaluation.joining import save_file
from buttress.data.sets.moons import moons
from buttress.errors import UserError
from buttress.jobs import attack
from buttress.threat import Threat
from buttress.training import load

ARGUMENTS = {"samples": 100, "val": 20, "test": 60}


SEEN = []  # the first id of every group that `Stops` was given; a field would be copied with it


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "moons"
    source = {"data": "moons", "data_dir": None, "data_args": ARGUMENTS, "seed": 0}
    fit(models.create("mlp", hidden=[8], seed=0), moons(**ARGUMENTS), epochs=1, out=folder, facts={"source": source})
    return str(folder)


@dataclass(frozen=True, kw_only=True)
class Stops(FGSM):
    """Fails after so many groups."""

    after: int = 99

    def perturb(self, oracle, x, y, random):
        if len(SEEN) == self.after:
            raise KeyboardInterrupt
        SEEN.append(int(random.ids[0]))
        return super().perturb(oracle, x, y, random)

    def fingerprint(self):
        return f"stops {self.threat}"


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


DONE = ["examples.json", "examples.safetensors"]


@pytest.mark.parametrize("by", [None, PGD(threat=Threat(eps=0.4), steps=5), Gaussian(std=0.3)])
@pytest.mark.parametrize("group", [7, 60, 1024])
def test_the_file_holds_what_one_call_of_the_attack_makes(run, tmp_path, by, group):
    heard = Heard()
    path = attack(run, out=tmp_path / "new", by=by, group=group, seed=3, reporter=heard)
    test = moons(**ARGUMENTS).test
    made = by or PGD(steps=20)
    if by is None or isinstance(by, PGD):
        made = PGD(threat=Threat(eps=made.within().threat.eps, box=None), steps=made.steps)
    else:
        made = Gaussian(std=0.3, box=None)
    expected = made(load(run), test.x, test.y, seed=3, ids=test.ids)
    found = load_file(path)
    assert set(found) == {"x_adv", "y", "ids", "beaten", "distance"}
    torch.testing.assert_close(found["x_adv"], expected.x_adv)
    torch.testing.assert_close(found["distance"], expected.distance, rtol=1e-4, atol=1e-7)
    assert torch.equal(found["beaten"], expected.success.to(torch.uint8))
    assert torch.equal(found["ids"], test.ids)
    assert torch.equal(found["y"], test.y)
    facts = json.loads((tmp_path / "new" / "examples.json").read_text())
    assert (facts["inputs"], facts["beaten"], facts["seed"]) == (60, int(expected.success.sum()), 3)
    assert facts["forwards"] == float(expected.forwards.double().mean())
    assert facts["run"]["inputs"] == 60
    assert names(tmp_path / "new") == DONE
    device, first, last = heard.lines
    assert device.startswith("on ")
    assert first.startswith("Before anything else: 50.0% of 60 inputs are classified correctly")  # it was not trained
    assert last == f"{facts['attack']} is successful on {facts['beaten']} of 60 inputs; written to {path}"


def test_a_command_that_was_stopped_goes_on(run, tmp_path):
    threat = Threat(eps=0.3)
    out = tmp_path / "new"
    heard = Heard()
    with pytest.raises(KeyboardInterrupt):
        attack(run, out=out, by=Stops(threat=threat, after=2), group=20, reporter=heard)
    assert heard.lines[0].startswith("on ")
    assert heard.lines[2:] == [f"finished groups are kept in {out / 'groups'}; go on with --resume"]
    assert names(out) == ["groups/group-000000.safetensors", "groups/group-000001.safetensors", "groups/manifest.json"]
    with pytest.raises(UserError, match="exists and is not empty: choose another output folder"):
        attack(run, out=out, by=Stops(threat=threat), group=20)
    with pytest.raises(UserError, match="with group 20, the settings now have 10"):
        attack(run, out=out, by=Stops(threat=threat), group=10, resume=True)
    with pytest.raises(UserError, match="by this attack with other settings, or by another version"):
        attack(run, out=out, by=Stops(threat=Threat(eps=0.2)), group=20, resume=True)
    attack(run, out=out, by=Stops(threat=threat), group=20, resume=True)
    assert len(SEEN) == len(set(SEEN)) == 3
    attack(run, out=tmp_path / "whole", by=Stops(threat=threat), group=20, resume=True)
    assert SEEN[3:] == SEEN[:3]
    one, other = (load_file(folder / "examples.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert names(out) == names(tmp_path / "whole") == DONE


@pytest.mark.parametrize("group", [20, 100])
def test_what_is_finished_is_not_done_again(run, tmp_path, group):
    out, threat = tmp_path / "new", Threat(eps=0.3)
    attack(run, out=out, by=Stops(threat=threat), group=group)
    before = {path: path.read_bytes() for path in out.iterdir()}
    again, heard, done = Stops(threat=threat), Heard(), len(SEEN)
    attack(run, out=out, by=again, group=group, resume=True, reporter=heard)
    assert len(SEEN) == done > 0
    assert heard.lines[0].startswith("on ")
    assert heard.lines[1:] == [f"{out} is finished already; written to {out / 'examples.safetensors'}"]
    for change, told in (
        ({"seed": 1}, "with seed 0"),
        ({"inputs": 30}, "with inputs 60"),
        ({"by": FGSM()}, "with atta"),
        ({"precision": "bf16"}, "with precision 'fp32', the settings now have 'bf16'"),
    ):
        with pytest.raises(UserError, match=told):
            attack(run, out=out, group=group, resume=True, **{"by": again, **change})
    with pytest.raises(UserError, match="exists and is not empty"):
        attack(run, out=out, by=again, group=group)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    (out / "examples.json").write_text("[]")
    with pytest.raises(UserError, match=r"examples.json cannot be read"):
        attack(run, out=out, by=again, group=group, resume=True)


def test_a_stop_while_the_whole_is_written_costs_no_group(run, tmp_path, monkeypatch):
    out, threat = tmp_path / "new", Threat(eps=0.3)
    with monkeypatch.context() as patch:
        patch.setattr(
            sys.modules["buttress.jobs.attack"], "write_text", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            attack(run, out=out, by=Stops(threat=threat), group=20)
    assert "examples.safetensors" in names(out)
    attack(run, out=out, by=Stops(threat=threat), group=20, resume=True)
    assert len(SEEN) == 3
    assert names(out) == DONE


def test_foreign_files_are_left_alone(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty"):
        attack(run, out=tmp_path, resume=True)
    assert names(tmp_path) == ["notes.txt"]


def test_a_file_written_in_parts_is_one_of_safetensors(run, tmp_path):
    """Read by the library itself, also tensor by tensor, with the types kept."""
    path = attack(run, out=tmp_path / "new", group=9)
    whole = attack(run, out=tmp_path / "whole")
    assert path.read_bytes() == whole.read_bytes()
    with safe_open(path, framework="pt") as file:
        types = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118  (the file is no dict)
    assert types == {
        "x_adv": torch.float32,
        "y": torch.int64,
        "ids": torch.int64,
        "beaten": torch.uint8,
        "distance": torch.float64,
    }


def test_a_file_that_cannot_be_finished_does_not_appear(tmp_path):
    def parts():
        raise OSError("no disk")
        yield

    with pytest.raises(OSError, match="no disk"):
        save_file(tmp_path / "a.safetensors", parts(), 3, ["y"])
    assert list(tmp_path.iterdir()) == []
    assert list(grouped([], 3)) == []


@pytest.mark.parametrize("content", [b"", b"junk", None])
def test_a_finished_attack_whose_examples_are_damaged_is_not_called_finished(run, tmp_path, content):
    out, by = tmp_path / "new", Stops(threat=Threat(eps=0.3))
    attack(run, out=out, by=by, group=100)
    file = out / "examples.safetensors"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"examples\.safetensors is damaged or gone"):
        attack(run, out=out, by=by, group=100, resume=True)
