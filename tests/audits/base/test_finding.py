import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buttress.attacks.gradient.pgd import PGD
from buttress.audits import Audit, run
from buttress.audits.base.finding import Finding, read, to_json
from buttress.errors import UserError
from buttress.report.page import page

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


def some(networks):
    """Whether there is a finding at all."""
    return any(networks.values())


@settings(max_examples=settings.default.max_examples * 2 // 5)
@given(networks=st.dictionaries(st.text(max_size=5), st.lists(FINDINGS, max_size=2), max_size=2).filter(some))
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


class Wrong(Audit):
    def __init__(self, answer):
        self.answer = answer

    def ask(self, subject):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "answered with a NoneType: ask must return an audits.Finding"),
        ([Finding("a", "b", "c", "good", {})], "answered with a list"),
        (Finding("a", 3, "c", "good", {}), "the finding's title must be a text; got 3"),
        (Finding("a", "b", None, "good", {}), "the finding's verdict must be a text; got None"),
        (Finding("a", "b", "c", "awful", {}), "severity must be one of good, info, warning, bad; got 'awful'"),
        (Finding("a", "b", "c", "good", None), "data must map names to figures; got a NoneType"),
        (Finding("a", "b", "c", "good", {"a": torch.ones(1)}), "data.a is a Tensor"),
    ],
)
def test_what_is_no_finding_is_told_as_it_is_answered(answer, told):
    x, y = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.raises(UserError, match=f"test_finding:Wrong.*{told}"):
        run(torch.nn.Linear(2, 2), [(x, y)], [Wrong(answer)])


def test_figures_of_numpy_are_figures():
    x, y = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    answer = Finding("a", "b", "c", "good", {"share": np.float64(0.5)})
    (found,) = run(torch.nn.Linear(2, 2), [(x, y)], [Wrong(answer)])
    assert "0.5" in page({"net": [found]}, {})
