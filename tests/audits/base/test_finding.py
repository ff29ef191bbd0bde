import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.attacks.gradient.pgd import PGD
from buttress.audits.base.finding import Finding, read, to_json
from buttress.errors import UserError

NUMBERS = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False))
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=6)),
    lambda inside: st.one_of(st.lists(inside, max_size=3), st.dictionaries(st.text(max_size=5), inside, max_size=3)),
    max_leaves=8,
)
SEVERITIES = st.sampled_from(["good", "info", "warning", "bad"])
FINDINGS = st.builds(
    Finding,
    kind=st.text(min_size=1, max_size=5),
    title=st.text(max_size=5),
    verdict=st.text(max_size=9),
    severity=SEVERITIES,
    data=st.dictionaries(st.text(max_size=5).filter(lambda key: not key.endswith("eps")), PLAIN, max_size=3),
)


@settings(max_examples=settings.default.max_examples * 2 // 5)
@given(networks=st.dictionaries(st.text(max_size=5), st.lists(FINDINGS, max_size=2), max_size=2))
def test_findings_come_back(networks, tmp_path_factory):
    path = tmp_path_factory.mktemp("findings") / "findings.json"
    path.write_text(to_json(networks, {"seed": 3, "box": (0.0, 1.0)}), encoding="utf-8")
    found, facts = read(path)
    assert found == networks
    assert facts == {"seed": 3, "box": [0.0, 1.0]}


def finding(**data):
    return Finding("x", "X", "Said.", "info", data)


def test_an_infinite_budget_comes_back_and_is_standard_json(tmp_path):
    path = tmp_path / "findings.json"
    written = finding(main_eps=math.inf, curve=[{"eps": math.inf, "accuracy": 0.5}], name="inf")
    path.write_text(to_json({"net": [written]}, {"threat": {"eps": math.inf}}))
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    found, facts = read(path)
    assert found["net"][0] == written
    assert facts["threat"]["eps"] == math.inf


@pytest.mark.parametrize("value", [torch.zeros(2), np.float32(0.5), np.arange(2), {1, 2}, object()])
def test_what_is_no_plain_data_is_named(value):
    with pytest.raises(UserError, match=rf"findings\.networks\.net\.data\.a\.b is a {type(value).__name__}"):
        to_json({"net": [finding(a={"b": [value]})]}, {})


def test_what_is_not_defined_is_null():
    text = to_json({"net": [finding(a=math.nan, b=[-math.inf])]}, {})
    assert json.loads(text)["networks"]["net"][0]["data"] == {"a": None, "b": [None]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        '{"facts": {}}',
        '{"facts": {}, "networks": {"n": [{"kind": "x"}]}}',
        '{"facts": {}, "networks": {"n": [{"kind": "x", "title": "", "verdict": "", "severity": "dire", "data": {}}]}}',
        '{"facts": {}, "networks": 3',
    ],
)
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / "findings.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"findings\.json is no findings\.json of buttress"):
        read(path)


def test_what_is_to_be_run_next_is_for_who_asked_and_in_no_file(tmp_path):
    told = Finding("x", "X", "Said.", "info", {"a": 1}, PGD(loss=lambda logits, y: logits[:, 0]))
    text = to_json({"net": [told]}, {})
    assert "next" not in text
    (tmp_path / "findings.json").write_text(text)
    (back,) = read(tmp_path / "findings.json")[0]["net"]
    assert back == told
    assert (told.next.steps, back.next) == (10, None)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="audit the network first"):
        read(tmp_path / "findings.json")
