import copy
import dataclasses

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from buttress import audits
from buttress.attacks.composed.autoattack import AutoAttack
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.audits import Subject, subject
from buttress.audits.base.subject import Stored, digest, same_inputs
from buttress.audits.channels import Channels
from buttress.audits.end_time import EndTime
from buttress.audits.examples import Examples
from buttress.audits.layers import Layers
from buttress.audits.lipschitz.audit import Lipschitz
from buttress.audits.robustness import Robustness
from buttress.audits.zero_stability import ZeroStability
from buttress.data.dataset import Split
from buttress.errors import UserError
from buttress.threat import Threat


def all_of(attack):
    return [
        Robustness(attacks=[attack]),
        Layers(perturbations=[attack], tolerance_inputs=4, tolerance_steps=1, bisections=1),
        Examples(attack=attack, count=2),
    ]


def timeless(finding):
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "total")} for row in finding.data.get("attacks", [])]
    return dataclasses.replace(finding, data={**finding.data, "attacks": rows})


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_nothing_is_attacked_twice(pictures, counted, precision):
    """Once for each budget of the evaluation what stands so far, and once in full for layers and examples together."""
    model, split = pictures
    right = int((model(split.x).argmax(1) == split.y).sum())
    findings = audits.run(model, split, [*all_of(counted), *all_of(counted)], precision=precision)
    share = [0.25, 0.5, 1.0, 1.5, 2.0]
    stand = [round(24 * point["accuracy"]) for point in findings[0].data["attacks"][0]["curve"]]
    *first, full = counted.runs
    assert first == [(0.1 * s, count) for s, count in zip(share, [24, *stand[1:-1]], strict=True) if count]
    assert full == (0.1, 24)
    assert 0 < right < 24


def test_another_model_seed_or_input_is_another_matter(pictures, counted):
    model, split = pictures
    other = copy.deepcopy(model)
    nn.init.zeros_(other[0].bias)
    about = subject(model, split)
    about.attacked(counted)
    for change in ({"seed": 1}, {"model": other}, {"ids": about.ids + 1}):
        seen = len(counted.runs)
        for again in range(2):
            dataclasses.replace(about, **change).attacked(counted)
            assert len(counted.runs) == seen + 1, (change, again)


def test_the_same_seed_gives_the_same_findings_and_another_one_others(pictures):
    model, split = pictures
    questions = all_of(PGD(threat=Threat(eps=0.2), steps=3))
    first, again, other = (
        [timeless(finding) for finding in audits.run(model, split, questions, seed=seed)] for seed in (4, 4, 5)
    )
    assert first == again
    assert first[1].data["mean"] != other[1].data["mean"]


def test_the_batch_size_changes_no_verdict(pictures):
    model, split = pictures
    found = [
        audits.run(model, split, [Robustness(attacks=[PGD(threat=Threat(eps=0.2), steps=3)])], batch_size=size)[0]
        for size in (5, 24)
    ]
    assert found[0].data["stands"] == found[1].data["stands"]


def test_large_data_are_attacked_in_groups(line, monkeypatch):
    model, x, y, _ = line
    attack = PGD(threat=Threat(eps=0.2, box=None), steps=3)
    whole = subject(model, [(x, y)]).attacked(attack).outcome
    monkeypatch.setattr("buttress.audits.base.subject._GROUP", 64)
    seen = []
    parts = subject(model, [(x, y)], watch=lambda what, done: seen.append((what, done))).attacked(attack).outcome
    torch.testing.assert_close(parts.x_adv, whole.x_adv)
    assert parts.success.equal(whole.success)
    assert {what for what, _ in seen} == {"PGD-3"}
    shares = [done for _, done in seen]
    assert shares == sorted(shares)
    assert {0.32, 0.64, 0.96, 1.0} <= set(shares)
    assert len(shares) > 4  # and within each group


def test_which_audit_is_at_work_is_told_before_between_and_within_its_attacks(line):
    model, x, y, _ = line
    pgd = PGD(threat=Threat(eps=0.2, box=None), steps=8)
    seen, answers = [], []
    questions = [Robustness(attacks=[pgd]), Robustness(attacks=[dataclasses.replace(pgd, steps=9)])]
    audits.run(model, [(x, y)], questions, watch=lambda *told: seen.append(told), answered=answers.append)
    places = [what for what, _ in seen]
    assert places[0] == "robustness (1 of 2)"
    assert set(places) == {f"robustness ({k} of 2){rest}" for k in (1, 2) for rest in ("", f": PGD-{k + 7}")}
    assert all(done == 0 for what, done in seen if what.endswith("of 2)"))
    assert [seen[k + 1] for k, (what, done) in enumerate(seen) if done == 1] == [
        (what.partition(":")[0], 0.0) for what, done in seen if done == 1
    ]
    assert len(answers) == 2


@pytest.mark.parametrize("kind", [list, lambda data: DataLoader(TensorDataset(*data[0]), batch_size=7)])
def test_data_may_be_any_iterable_of_pairs(line, kind):
    model, x, y, _ = line
    attack = FGSM(threat=Threat(eps=0.2, box=None))
    expected = audits.run(model, Split(x, y, torch.arange(len(y))), [Robustness(attacks=[attack])])
    found = audits.run(model, kind([(x, y)]), [Robustness(attacks=[attack])])
    assert [timeless(f) for f in found] == [timeless(f) for f in expected]


def test_labels_of_smaller_integers_and_numpy_will_do(line):
    model, x, y, _ = line
    about = subject(model, [(x.numpy(), y.to(torch.int32).numpy())], limit=50)
    assert about.y.dtype == torch.int64
    assert len(about.x) == 50
    assert torch.equal(about.x, x[about.ids])


@pytest.mark.parametrize("data", [[], [(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))]])
def test_no_inputs_are_refused(line, data):
    with pytest.raises(UserError, match="at least one input"):
        audits.run(line[0], data, [Robustness()])


def test_what_is_no_pair_is_refused(line):
    with pytest.raises(UserError, match=r"batches of \(inputs, labels\); got a Tensor"):
        audits.run(line[0], [torch.zeros(2, 3)], [Robustness()])


def test_the_model_comes_back_as_it_was(nets, pictures):
    model = nets.awkward(36)
    before = nets.state(model)
    audits.run(model, pictures[1], all_of(PGD(threat=Threat(eps=0.1), steps=2)))
    nets.assert_state(model, before)


class Sized(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda x: (x[:, :2], x), "it returned a tuple of 0 .*--output 0,"),
        (lambda x: x[:, :2].softmax(1), "returns probabilities"),
        (lambda x: x[:, :2] * torch.nan, "NaN or infinite"),
        (lambda x: x[:, :1].expand(-1, 1), None),
        (nn.Linear(5, 2), "cannot take inputs of shape"),
    ],
)
def test_outputs_that_are_no_logits_are_told_by_the_first_question(line, answer, told):
    _, x, y, _ = line
    if told is None:  # one logit is read as two
        assert subject(Sized(answer), [(x, y)]).logits.shape == (200, 2)
        return
    with pytest.raises(UserError, match=told):
        subject(Sized(answer), [(x, y)]).logits  # noqa: B018  (the property is what is tried)


def test_labels_out_of_range_are_told_by_the_first_question(line):
    model, x, y, _ = line
    with pytest.raises(UserError, match="labels must be 0 to 1, the model's classes; got 0 to 4"):
        audits.run(model, [(x, 4 * y)], [Robustness(attacks=[FGSM(threat=Threat(box=None))])])


def test_a_stored_perturbation_finds_its_points_by_id():
    stored = Stored(torch.tensor([7, 3, 5]), torch.tensor([[70.0], [30.0], [50.0]]))
    found = stored(lambda x: x.expand(-1, 2), torch.zeros(2, 1), torch.zeros(2).long(), ids=torch.tensor([5, 7]))
    assert found.x_adv.tolist() == [[50.0], [70.0]]


def test_a_digest_tells_weights_buffers_and_classes_apart(nets):
    model = nets.awkward(4)
    assert digest(model) == digest(copy.deepcopy(model))
    for change in (lambda m: nn.init.zeros_(m[1].bias), lambda m: m[2].running_mean.fill_(3)):
        other = copy.deepcopy(model)
        with torch.no_grad():
            change(other)
        assert digest(other) != digest(model)
    assert digest(nn.Sequential()) != digest(nn.ReLU())


def test_the_same_inputs_are_known_by_their_values_labels_ids_and_order(line):
    model, x, y, _ = line
    about = subject(model, [(x, y)])
    marks = {same_inputs(about)}
    for change in ({"x": x + 1e-6}, {"y": 1 - y}, {"ids": about.ids + 1}, {"x": x.flip(0)}):
        marks.add(same_inputs(dataclasses.replace(about, **change)))
    assert len(marks) == 5
    assert same_inputs(subject(model, [(x[:90], y[:90]), (x[90:], y[90:])])) in marks
    assert isinstance(about, Subject)


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (FGSM(), "FGSM"),
        (PGD(steps=40, restarts=5), "PGD-40 x 5"),
        (PGD(loss="margin"), "PGD-10 (margin)"),
        (PGD(loss="cross_entropy"), "PGD-10"),
        (AutoAttack(), "AutoAttack (standard)"),
        (AutoAttack(steps=20, queries=300, targets=3), "AutoAttack (standard, 20 steps, 300 queries, 3 targets)"),
        (AutoAttack(version="rand", draws=10), "AutoAttack (rand, 10 draws)"),
        (AutoAttack(parts=("apgd-ce", "square")), "AutoAttack (standard, apgd-ce + square)"),
        (Gaussian(), "gaussian"),
    ],
)
def test_attacks_are_described_in_a_few_words(attack, text):
    assert attack.label() == text


def test_a_users_attack_keeps_its_own_name(counted):
    assert counted.label() == "Counted"


@pytest.mark.parametrize("wrong", [ZeroStability(), EndTime(), Channels(classes=["x"]), Lipschitz(blocks=["nowhere"])])
def test_what_cannot_be_asked_is_refused_before_anything_is(line, wrong):
    """Not after an hour of attacks, whose figures would be lost."""

    class First(Robustness):
        def ask(self, subject):
            raise AssertionError("asked too soon")

    model, x, y, _ = line
    with pytest.raises(UserError):
        audits.run(model, [(x, y)], [First(), wrong])


@pytest.mark.parametrize(
    ("y", "hint"),
    [(torch.tensor(1), r"\(4, 2\) and \(\): use y.expand\(4\)$"), (torch.zeros(3, 4), r"\(3, 4\): use y.T$")],
)
def test_labels_that_are_not_one_for_each_input(y, hint):
    model, x = nn.Linear(2, 2), torch.full((4, 2), 0.5)
    for ask in (
        lambda: audits.run(model, [(x, y)], [Robustness(attacks=[FGSM()])]),
        lambda: audits.evaluate(model, [(x, y)], FGSM()),
    ):
        with pytest.raises(UserError, match="^a batch holds as many inputs as labels; got .*" + hint):
            ask()
    with pytest.raises(UserError, match=r"^expected labels of type int64 and shape .*: use y\.(expand\(4\)|T)$"):
        Split(x, y, torch.arange(4))
