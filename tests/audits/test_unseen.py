"""Corruptions, styles and unseen attacks in one table, against counts made here."""

import math
from dataclasses import dataclass

import pytest
import torch

from buttress import audits
from buttress.attacks import FGSM, JPEG, PGD, Brightness, Gaussian, Invert, Latent, Rotation
from buttress.attacks.corruptions.blur_and_compression import GaussianBlur
from buttress.attacks.corruptions.corruption import Corruption
from buttress.audits.base.finding import to_json
from buttress.audits.robustness import interval
from buttress.audits.unseen import Unseen
from buttress.data.dataset import Split
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.threat import Threat

QUICK = {
    "styles": (),
    "attacks": (FGSM(threat=Threat(eps=0.02)),),
    "unseen": (
        PGD(threat=Threat(eps=0.3), steps=2),
        PGD(threat=Threat(norm="l2", eps=0.1), steps=2),
        PGD(threat=Threat(norm="l1", eps=0.5), steps=2),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Fade(Corruption):
    """Values times 1 - severity / 10."""

    levels = (0.9, 0.8, 0.7, 0.6, 0.5)

    def corrupt(self, x, random):
        return self.strength * x


@pytest.fixture(scope="module")
def bright(nets):
    """(model, split): class 1 where the mean exceeds 0.5; of 40 flat images one half is brighter, some mislabelled."""
    model = nets.linear(torch.stack([torch.zeros(36), torch.ones(36) / 36]), torch.tensor([0.5, 0.0]))
    value = torch.arange(40) / 40 + 0.0125
    x = value[:, None, None, None].expand(-1, 1, 6, 6).contiguous()
    y = (value > 0.5).long()
    y[[3, 30]] = 1 - y[[3, 30]]
    return model, Split(x, y, torch.arange(40)), value, y


def ask(model, split, audit, **settings):
    return audits.run(model, split, [audit], **settings)[0]


def test_accuracies_of_a_corruption_are_counted_by_severity_and_their_mean_by_input(bright):
    model, split, value, y = bright
    finding = ask(model, split, Unseen(corruptions=[Fade(), Gaussian(std=0.0)], severities=[5, 2], **QUICK))
    right = torch.stack([(level * value > 0.5).long() == y for level in (0.8, 0.5)]).double()
    fade, still = finding.data["rows"][:2]
    assert [p["severity"] for p in fade["severities"]] == [2, 5]
    for point, one in zip(fade["severities"], right, strict=True):
        assert point["accuracy"] == pytest.approx(float(one.mean()))
        assert (point["low"], point["high"]) == interval(int(one.sum()), 40)
    assert fade["accuracy"] == pytest.approx(float(right.mean()))
    assert fade["low"] < fade["accuracy"] < fade["high"]
    assert still["severities"][0]["severity"] is None
    assert still["accuracy"] == finding.data["clean"]["accuracy"] == 38 / 40
    mean = finding.data["mean_corruption"]
    assert mean["accuracy"] == pytest.approx((float(right.mean()) + 0.95) / 2)
    each = torch.stack([right.mean(0), ((value > 0.5).long() == y).double()]).mean(0)
    half = 1.96 * float(each.std()) / math.sqrt(40)
    assert mean["low"] == pytest.approx(mean["accuracy"] - half, abs=0.03)
    assert mean["high"] == pytest.approx(mean["accuracy"] + half, abs=0.03)
    assert finding.data["severities"] == [2, 5]


def test_styles_are_a_family_of_their_own_and_are_not_judged(bright):
    model, split, value, y = bright
    quiet = {**QUICK, "unseen": (), "attacks": ()}
    audit = Unseen(corruptions=[Gaussian(std=0.0)], **{**quiet, "styles": [Invert(), Fade()]}, severities=[2, 5])
    finding = ask(model, split, audit)
    rows = {row["kind"]: [r for r in finding.data["rows"] if r["kind"] == row["kind"]] for row in finding.data["rows"]}
    assert [len(rows[kind]) for kind in ("corruption", "style")] == [1, 2]
    negative = ((1 - value > 0.5).long() == y).double()
    dark = torch.stack([(level * value > 0.5).long() == y for level in (0.8, 0.5)]).double()
    invert, fade = rows["style"]
    assert (invert["name"], invert["accuracy"]) == ("invert", pytest.approx(float(negative.mean())))
    assert [point["severity"] for point in invert["severities"]] == [None]
    assert fade["accuracy"] == pytest.approx(float(dark.mean()))
    expected = (float(negative.mean()) + float(dark.mean())) / 2
    assert finding.data["mean_style"]["accuracy"] == pytest.approx(expected)
    assert finding.data["mean_corruption"]["accuracy"] == 0.95
    assert f"{expected:.1%} (" in finding.verdict
    assert f"on average under 2 styles, least under {invert['label']}: {invert['accuracy']:.1%}" in finding.verdict
    assert float(negative.mean()) < 0.1
    assert finding.severity == "good"
    assert {Invert().fingerprint(), Fade().fingerprint()} <= set(finding.data["fingerprints"])
    alone = ask(model, split, Unseen(corruptions=(), **{**quiet, "styles": [Invert()]}))
    assert alone.data["mean_corruption"] is None
    assert alone.data["mean_style"]["accuracy"] == pytest.approx(float(negative.mean()))


def test_a_wrong_input_that_a_corruption_puts_right_counts(bright):
    """The mislabelled input 30 is right when it is dark."""
    model, split, _, _ = bright
    one = split.subset(torch.tensor([30]))
    row = ask(model, one, Unseen(corruptions=[Fade()], severities=[5], **QUICK)).data["rows"][0]
    assert row["accuracy"] == 1


def test_attacks_are_those_of_robustness_audits_and_seen_norms_are_left_out(pictures):
    model, split = pictures
    finding = ask(model, split, Unseen(corruptions=[JPEG()], severities=[1], **QUICK), seed=3)
    rows = [row for row in finding.data["rows"] if row["kind"] != "corruption"]
    assert [(row["kind"], row["norm"], row["eps"]) for row in rows] == [
        ("seen attack", "linf", 0.02),
        ("unseen attack", "l2", 0.1),
        ("unseen attack", "l1", 0.5),
    ]
    x, y, ids = split.x, split.y, split.ids
    stands = []
    for attack, row in zip((QUICK["attacks"][0], *QUICK["unseen"][1:]), rows, strict=True):
        result = attack(model, x, y, seed=3, ids=ids, search="first")
        stands.append((model(x).argmax(1) == y) & ~result.success)
        assert row["accuracy"] == pytest.approx(float(stands[-1].double().mean()))
        assert (row["low"], row["high"]) == interval(int(stands[-1].sum()), 24)
    assert finding.data["seen"]["accuracy"] == rows[0]["accuracy"]
    assert finding.data["unseen"]["accuracy"] == pytest.approx(float((stands[1] & stands[2]).double().mean()))


def test_the_defaults_ask_of_eight_corruptions_and_two_other_norms():
    audit = Unseen()
    assert len(audit.corruptions) == 8
    assert len(audit.styles) == 5
    assert [attack.threat.norm for attack in audit.foreign] == ["l2", "l1"]
    trained = Unseen(attacks=[PGD(threat=Threat(norm="l2", eps=0.5))])
    assert [attack.threat.norm for attack in trained.foreign] == ["linf", "l1"]
    assert [attack.threat.norm for attack in Unseen(attacks=[]).foreign] == ["linf", "l2", "l1"]
    assert [type(a) for a in Unseen(attacks=[Latent()], unseen=[Latent(level="low")]).foreign] == [Latent]


def test_a_jobs_threat_replaces_the_seen_attacks_and_no_other():
    audit = resolve_threats(Unseen(), Threat(norm="linf", eps=0.1, box=(-1.0, 1.0)))
    assert audit.attacks[0].threat.eps == 0.1
    assert [attack.threat.eps for attack in audit.unseen] == [8 / 255, 0.5, 12.0]
    assert all(change.box == (-1.0, 1.0) for change in (*audit.corruptions, *audit.styles))


def test_the_sentence_and_the_severity_follow_the_figures(bright, pictures):
    model, split, _, _ = bright
    finding = ask(model, split, Unseen(corruptions=[Fade()], severities=[1], **QUICK))
    assert finding.verdict.startswith("95.0% of 40 inputs are classified correctly; ")
    assert "on average under 1 corruption, least under" in finding.verdict
    assert "FGSM at linf eps 0.02" in finding.verdict
    assert "PGD-2 at l2 eps 0.1, PGD-2 at l1 eps 0.5" in finding.verdict
    assert finding.severity == "good"
    harmless = {**QUICK, "unseen": ()}
    deep = split.subset((split.y == 1).nonzero().flatten())
    assert ask(model, deep, Unseen(corruptions=[Fade()], severities=[5], **harmless)).severity == "bad"
    one_of_five = Unseen(corruptions=[Fade(), *[Gaussian(std=0.0)] * 4], severities=[5], **harmless)
    assert ask(model, deep, one_of_five).severity == "warning"
    hard = {"attacks": (), "unseen": (PGD(threat=Threat(eps=1.0), steps=3),)}
    assert ask(model, split, Unseen(corruptions=[], **hard)).severity == "warning"


def test_parts_may_be_missing_and_the_data_are_plain(pictures):
    model, split = pictures
    none = {"styles": (), "attacks": (), "unseen": ()}
    corruptions = ask(model, split, Unseen(corruptions=[Rotation()], severities=[3], **none))
    assert corruptions.data["seen"] is corruptions.data["unseen"] is None
    attacks = ask(model, split, Unseen(corruptions=[], **QUICK))
    assert attacks.data["mean_corruption"] is attacks.data["mean_style"] is None
    latent = ask(model, split, Unseen(corruptions=[Brightness()], severities=[1], **{**none, "unseen": [Latent()]}))
    assert "unseen attacks (latent)" in latent.verdict
    assert to_json({"a": [corruptions, attacks, latent]}, {})
    for wrong in ({"severities": []}, {"severities": [0]}, {"corruptions": [], **none}):
        with pytest.raises(UserError, match=r"severities|corruptions"):
            Unseen(**wrong)
    flat = torch.nn.Linear(3, 2)
    with pytest.raises(UserError, match="needs images"):
        ask(flat, Split(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), torch.arange(2)), Unseen(attacks=[]))


def test_corruptions_that_cannot_be_told_apart_are_both_named(bright):
    """Noise of no size and a blur of flat images do nothing; fading makes bright images dark."""
    model, split, _, _ = bright
    alike = [Gaussian(std=0.0), GaussianBlur()]
    settings = {"severities": [5], "styles": (), "attacks": (), "unseen": ()}
    faded = ask(model, split, Unseen(corruptions=[Fade(), *alike], **settings))
    assert faded.data["hardest"]["corruption"] == ["Fade"]
    assert "told from" not in faded.verdict
    found = ask(model, split, Unseen(corruptions=alike, **settings))
    worst, other = found.data["hardest"]["corruption"]
    assert f"least under {worst}: 95.0% ({other} cannot be told from it)" in found.verdict
