"""Evaluation in groups: the same result in one go, in pieces, resumed, and streamed."""

import dataclasses
import gc
import itertools
import json
import math

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from buttress import tasks
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import subject
from buttress.audits.base.evaluation import evaluate
from buttress.audits.base.evaluation.groups import files_in, grouped, read_group
from buttress.audits.base.evaluation.manifest import MARK
from buttress.data.dataset import Split
from buttress.engine.composition import staged
from buttress.errors import UserError
from buttress.threat import Threat

SMALL = PGD(threat=Threat(eps=0.3, box=None), steps=3)


@pytest.fixture
def split(line):
    _, x, y, _ = line
    return Split(x, y, torch.arange(1000, 1200))


def same(one, other):
    """Equal groups, time aside."""
    for first, second in zip(one, other, strict=True):
        assert first.index == second.index
        assert first.inputs == second.inputs
        for name in ("y", "ids"):
            assert torch.equal(getattr(first, name), getattr(second, name))
        for field in dataclasses.fields(first.outcome):
            mine, theirs = getattr(first.outcome, field.name), getattr(second.outcome, field.name)
            assert torch.equal(mine, theirs) if isinstance(mine, torch.Tensor) else mine == theirs


def timeless(found):
    return dataclasses.replace(found, seconds=0.0, reused=0, folder=None)


@pytest.mark.parametrize("attack", [SMALL, FGSM(threat=Threat(eps=0.3, box=None)), Gaussian(std=0.4, box=None)])
@pytest.mark.parametrize("search", ["first", "full"])
def test_it_counts_what_one_call_of_the_attack_finds(line, split, attack, search):
    model, x, y, _ = line
    whole = attack(model, x, y, seed=2, ids=split.ids, search=search)
    found = evaluate(model, split, attack, group=64, seed=2, search=search)
    assert (found.inputs, found.groups, found.reused) == (200, 4, 0)
    assert found.successes == int(whole.success.sum())
    assert (found.forwards, found.backwards) == (int(whole.forwards.sum()), int(whole.backwards.sum()))
    assert found.accuracy == 1 - int(whole.success.sum()) / 200
    assert found.interval[0] < found.accuracy < found.interval[1]
    assert found.wrong == (int((model(x).argmax(1) != y).sum()) if search == "first" else None)
    assert found.seconds > 0


def test_what_is_kept_is_what_one_call_of_the_attack_makes(line, split, tmp_path):
    model, x, y, _ = line
    whole = SMALL(model, x, y, ids=split.ids, search="first")
    found = evaluate(model, split, SMALL, group=64, out=tmp_path / "out")
    parts = list(found.parts())
    assert [len(part.y) for part in parts] == [64, 64, 64, 8]
    assert torch.equal(torch.cat([part.ids for part in parts]), split.ids)
    for name in ("x_adv", "loss", "distance"):
        torch.testing.assert_close(torch.cat([getattr(p.outcome, name) for p in parts]), getattr(whole, name))
    for name in ("success", "forwards", "backwards"):
        assert torch.equal(torch.cat([getattr(p.outcome, name) for p in parts]), getattr(whole, name))


@pytest.mark.parametrize("size", [1, 17, 256])
def test_neither_batch_size_nor_group_changes_the_result(pictures, size):
    model, split = pictures
    attack = PGD(threat=Threat(eps=0.2), steps=4, restarts=2)
    seen = {}
    for batch_size, group in ((size, 5), (24, 24)):
        parts = []
        evaluate(model, split, attack, group=group, batch_size=batch_size, search="full", each=parts.append)
        seen[batch_size] = {name: torch.cat([getattr(p.outcome, name) for p in parts]) for name in ("x_adv", "success")}
    torch.testing.assert_close(seen[size]["x_adv"], seen[24]["x_adv"], rtol=0, atol=1e-5)
    assert torch.equal(seen[size]["success"], seen[24]["success"])


@pytest.mark.parametrize("size", [1, 7, 64, 200, 300])
def test_batches_of_any_size_are_cut_into_the_same_groups(line, size):
    _, x, y, _ = line
    expected = list(grouped(Split(x, y, torch.arange(200)), 64))
    found = list(grouped(DataLoader(TensorDataset(x, y), batch_size=size), 64))
    assert [given.index for given in found] == [0, 1, 2, 3]
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("x", "y", "ids"))
        assert one.digest == other.digest


def test_a_group_exactly_full_is_no_two(line):
    _, x, y, _ = line
    assert [len(given.y) for given in grouped([(x[:128], y[:128])], 64)] == [64, 64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stops(FGSM):
    """Fails when it is given the group that begins with this id, unless the file is there."""

    at: int = -1
    seen: list = dataclasses.field(default_factory=list, compare=False)

    def perturb(self, oracle, x, y, random):
        if int(random.ids[0]) == self.at:
            raise RuntimeError("stopped")
        self.seen.append(int(random.ids[0]))
        return super().perturb(oracle, x, y, random)

    def fingerprint(self):
        return "stops"


@pytest.mark.parametrize("streamed", [False, True])
def test_what_was_stopped_goes_on_where_it_was(line, split, tmp_path, streamed):
    model, x, y, _ = line
    data = [(x[:90], y[:90]), (x[90:], y[90:])] if streamed else split
    begin = 0 if streamed else 1000
    threat = Threat(eps=0.3, box=None)
    with pytest.raises(RuntimeError, match="stopped"):
        evaluate(model, data, Stops(threat=threat, at=begin + 128), out=tmp_path / "out", group=64)
    assert len(files_in(tmp_path / "out")) == 2
    attack = Stops(threat=threat)
    found = evaluate(model, data, attack, out=tmp_path / "out", group=64, resume=True)
    assert attack.seen == [begin + 128, begin + 192]
    assert found.reused == 2
    whole = evaluate(model, data, Stops(threat=threat), out=tmp_path / "whole", group=64, resume=True)
    assert whole.reused == 0
    assert timeless(found) == timeless(whole)
    same(found.parts(), whole.parts())
    again = evaluate(model, data, Stops(threat=threat, at=begin), out=tmp_path / "out", group=64, resume=True)
    assert timeless(again) == timeless(whole)
    assert again.seconds == found.seconds
    assert again.reused == 4


def test_the_precision_is_settled_once_and_kept(line, split, tmp_path, monkeypatch):
    """Timed before the first group; a resumed evaluation does not time again."""
    model = line[0]
    chosen = iter(["bf16", "folded"])

    def choose(oracle, gradient):
        oracle.runner.precision = next(chosen)

    monkeypatch.setattr("buttress.engine.oracle.Oracle.settle_precision", choose)
    first = evaluate(model, split, SMALL, out=tmp_path / "out", group=64, precision="auto")
    files_in(tmp_path / "out")[2].unlink()
    again = evaluate(model, split, SMALL, out=tmp_path / "out", group=64, precision="auto", resume=True)
    assert first.precision == again.precision == "bf16"
    assert {part.outcome.precision for part in again.parts()} == {"bf16"}
    assert next(chosen) == "folded"


def test_auto_finds_a_precision_for_a_model_without_a_gradient(split):
    found = evaluate(lambda x: torch.stack([-x[:, 0], x[:, 0]], 1).round(), split, Gaussian(box=None), precision="auto")
    assert found.precision in ("fp32", "bf16")


class Lenient(type(tasks.classification)):
    """Another task."""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, "with seed 0, the settings now have 1: resume with the same settings"),
        ({"group": 32}, "with group 64, the settings now have 32"),
        ({"search": "full"}, "with search 'first', the settings now have 'full'"),
        ({"precision": "bf16"}, "with precision 'fp32', the settings now have 'bf16'"),
        ({"attack": FGSM(threat=Threat(eps=0.3, box=None))}, "with attack 'PGD-3', the settings now have 'FGSM'"),
        (
            {"attack": PGD(threat=Threat(eps=0.2, box=None), steps=3)},
            "by this attack with other settings, or by another version",
        ),
        ({"model": torch.nn.Linear(3, 2)}, "with model"),
        ({"task": Lenient()}, "with task"),
        ({"resume": False}, "holds an evaluation already: resume it"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_touched(line, split, tmp_path, change, told):
    out = tmp_path / "out"
    evaluate(line[0], split, SMALL, out=out, group=64)
    before = {path: path.read_bytes() for path in out.iterdir()}
    settings = {"model": line[0], "attack": SMALL, "group": 64, "resume": True} | change
    with pytest.raises(UserError, match=told):
        evaluate(settings.pop("model"), split, settings.pop("attack"), out=out, **settings)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: Split(s.x + 0.01, s.y, s.ids), "group-000000.safetensors is about other inputs than now"),
        (lambda s: Split(s.x, 1 - s.y, s.ids), "other inputs"),
        (lambda s: Split(s.x, s.y, s.ids + 1), "other inputs"),
        (lambda s: s.subset(torch.arange(100)), "group-000001.safetensors is about other inputs"),
        (lambda s: s.subset(torch.arange(128)), "beyond the 128 inputs"),
    ],
)
def test_other_inputs_are_refused(line, split, tmp_path, change, told):
    evaluate(line[0], split, SMALL, out=tmp_path / "out", group=64)
    with pytest.raises(UserError, match=told):
        evaluate(line[0], change(split), SMALL, out=tmp_path / "out", group=64, resume=True)


def test_foreign_and_damaged_files_are_told(line, split, tmp_path):
    model = line[0]
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a").touch()
    with pytest.raises(UserError, match="holds no evaluation of ours"):
        evaluate(model, split, SMALL, out=tmp_path / "foreign", resume=True)
    out = tmp_path / "out"
    evaluate(model, split, SMALL, out=out, group=64)
    damaged = files_in(out)[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UserError, match=r"group-000001.safetensors cannot be read .*: remove it"):
        evaluate(model, split, SMALL, out=out, group=64, resume=True)
    damaged.unlink()
    assert evaluate(model, split, SMALL, out=out, group=64, resume=True).reused == 3
    (out / MARK).write_text("{")
    with pytest.raises(UserError, match=r"manifest.json cannot be read"):
        evaluate(model, split, SMALL, out=out, group=64, resume=True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"data": []}, "at least one input"),
        ({"data": [torch.zeros(2, 3)]}, r"batches of \(inputs, labels\); got a Tensor"),
        ({"data": [(torch.zeros(2, 3), torch.zeros(3))]}, "as many inputs as labels"),
        ({"group": 0}, "group must be a whole number of 1 or more; got 0"),
        ({"resume": True}, "resuming needs the evaluation's output folder"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(line, split, settings, told):
    with pytest.raises(UserError, match=told):
        evaluate(line[0], settings.pop("data", split), SMALL, **settings)


def test_a_folder_in_which_nothing_was_finished_is_free_again(line, split, tmp_path):
    with pytest.raises(UserError, match="labels must be"):
        evaluate(line[0], Split(split.x, split.y + 7, split.ids), SMALL, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_folder_no_examples_are_kept(line, split):
    with pytest.raises(UserError, match="were not kept"):
        evaluate(line[0], split, SMALL).parts()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoParts(FGSM):
    """A first step by FGSM, and another on what stands."""

    def perturb(self, oracle, x, y, random):
        points = x
        for name in ("one", "two"):
            rows = oracle.alive.nonzero().squeeze(1)
            found, _ = staged(oracle, FGSM(threat=self.threat), rows, random, name)
            points = points.index_put((rows,), found)
        return points


def test_parts_of_a_composed_attack_are_added_up_and_kept(line, split, tmp_path):
    model, x, y, _ = line
    attack = TwoParts(threat=Threat(eps=0.3, box=None))
    whole = attack(model, x, y, ids=split.ids, search="first").stages
    found = evaluate(model, split, attack, out=tmp_path / "out", group=64)
    assert found.stages == whole
    assert [stage.name for stage in whole] == ["one", "two"]
    assert evaluate(model, split, attack, out=tmp_path / "out", group=64, resume=True).stages == whole


def test_a_watcher_is_told_of_the_share_that_is_done(line, split):
    seen = []
    evaluate(line[0], split, SMALL, group=64, watch=lambda what, done: seen.append((what, done)))
    assert {what for what, _ in seen} == {"PGD-3"}
    shares = [done for _, done in seen]
    assert shares == sorted(shares)
    assert {0.32, 0.64, 0.96, 1.0} <= set(shares)


def test_a_group_file_says_what_is_in_it(line, split, tmp_path):
    found = evaluate(line[0], split, SMALL, out=tmp_path / "out", group=128)
    path = tmp_path / "out" / "group-000001.safetensors"
    assert sorted(entry.name for entry in path.parent.iterdir()) == [
        "group-000000.safetensors",
        path.name,
        "manifest.json",
    ]
    group = read_group(path)
    assert (group.index, len(group.y), group.outcome.x_adv.shape) == (1, 72, (72, 3))
    settings = json.loads((path.parent / MARK).read_text())["settings"]
    assert (settings["attack"], settings["group"], settings["seed"]) == ("PGD-3", 128, 0)
    assert math.isclose(sum(part.seconds for part in found.parts()), found.seconds)


def bytes_of_tensors():
    """How many bytes the tensors that this process has at this moment take."""
    tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())


def test_memory_does_not_grow_with_the_number_of_inputs(tmp_path):
    """From the sixth batch of 1.6 MB to the fortieth, no more than the numbers about each input are added."""
    held = []

    def batches():
        for k in range(40):
            yield torch.rand(50, 8_000, generator=torch.Generator().manual_seed(k)), torch.arange(50) % 2
            held.append(bytes_of_tensors())

    attack = FGSM(threat=Threat(eps=0.1))
    evaluate(torch.nn.Linear(8_000, 2), batches(), attack, group=100, batch_size=50, out=tmp_path / "out")
    assert max(held[:6]) > 1.5 * 2**20
    assert max(held) < max(held[:6]) + 2**20
    assert sum(path.stat().st_size for path in tmp_path.glob("out/group-*")) > 60 * 2**20


def test_a_subject_can_keep_what_it_crafts(line, split, tmp_path):
    """Stopped in its second group, an audit's crafting goes on there in the next process."""
    model, threat = line[0], Threat(eps=0.3, box=None)
    plain = subject(model, split).attacked(Stops(threat=threat), search="first").outcome
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("buttress.audits.base.subject._GROUP", 64)
        with pytest.raises(RuntimeError, match="stopped"):
            subject(model, split, folder=tmp_path).attacked(Stops(threat=threat, at=1064), search="first")
        attack = Stops(threat=threat)
        found = subject(model, split, folder=tmp_path).attacked(attack, search="first").outcome
        assert attack.seen == [1064, 1128, 1192]
        torch.testing.assert_close(found.x_adv, plain.x_adv)
        assert torch.equal(found.success, plain.success)
        again = Stops(threat=threat)
        subject(model, split, folder=tmp_path).attacked(again, search="first")
        assert again.seen == []
        for kind in ({"search": "full"}, {"search": "first", "rows": torch.arange(70)}):
            subject(model, split, folder=tmp_path).attacked(again, **kind)
        assert again.seen == [1000, 1064, 1128, 1192, 1000, 1064]
    assert len(list(itertools.chain(*(files_in(folder) for folder in tmp_path.iterdir())))) == 4 + 4 + 2


@pytest.mark.parametrize("precisions", [("auto", "auto"), ("fp32", "auto"), ("auto", "bf16")])
def test_what_a_subject_kept_serves_another_whatever_their_precision_and_order(line, split, tmp_path, precisions):
    model, attacks = line[0], [Stops(threat=Threat(eps=0.3, box=None)), Gaussian(std=0.2, box=None)]
    first, second = (subject(model, split, folder=tmp_path, precision=precision) for precision in precisions)
    kept = [first.attacked(attack).outcome for attack in attacks]
    again = [second.attacked(attack).outcome for attack in reversed(attacks)]
    assert attacks[0].seen == [1000]
    for one, other in zip(kept, reversed(again), strict=True):
        assert torch.equal(one.x_adv, other.x_adv)
    assert second.precision == (precisions[1] if precisions[1] != "auto" else kept[1].precision)


@pytest.mark.parametrize("kept", [False, True])
def test_told_is_the_precision_that_ran(nets, tmp_path, kept):
    model = nets.conv(seed=3)
    model.register_forward_hook(lambda *_: None)  # such a network has no twin
    x = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    out = tmp_path / "new" if kept else None
    found = evaluate(model, [(x, model(x).argmax(1))], FGSM(), precision="twin", group=2, out=out, search="full")
    assert found.precision == "bf16"
    if kept:  # again, from the files
        again = evaluate(
            model, [(x, model(x).argmax(1))], FGSM(), precision="twin", group=2, out=out, search="full", resume=True
        )
        assert (again.precision, again.reused) == ("bf16", 3)
