"""How a trust audit is drawn: every check with its verdict, what was compared, and what to run next."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from buttress import report
from buttress.audits.base.finding import Finding, read
from buttress.audits.masking.audit import Masking
from buttress.report.kinds import draw
from buttress.threat import Threat


@pytest.fixture(scope="module")
def finding():
    """Of a network whose input is rounded to halves: no gradient, and easily beaten without one."""

    class Rounded(nn.Module):
        def forward(self, x):
            value = torch.round(2 * x[:, :1]) / 2 - 0.75
            return torch.cat([torch.zeros_like(value), value + 0 * x[:, :1]], 1)

    x = torch.full((60, 1), 0.6) + torch.linspace(0, 0.1, 60)[:, None]
    audit = Masking(threat=Threat(eps=0.3), queries=20, draws=5)
    return audit(Rounded(), [(x, torch.zeros(60, dtype=torch.int64))], classes=("<low>", "high"))


def test_every_check_is_a_row(finding):
    html = draw({"network": finding}).html
    for check in finding.data["checks"]:
        assert check["name"] in html
        assert check["reason"].replace("'", "&#39;") in html
    count = {word: html.count(f'<span class="word">{word}</span>') for word in ("Pass", "Warning", "Fail", "Not run")}
    verdicts = [check["verdict"] for check in finding.data["checks"]]
    kinds = {"Pass": "pass", "Warning": "warn", "Fail": "fail", "Not run": "not run"}
    assert count == {word: verdicts.count(kind) for word, kind in kinds.items()}
    assert count["Fail"] >= 2
    assert 'class="bad"><span class="word">Fail' in html
    assert f"Run next: {finding.data['next_label']}" in html
    pair = next(check for check in finding.data["checks"] if check["name"] == "black box")["comparisons"][0]
    assert pair["won"] > 10
    assert f"only the first is successful on {pair['won']}, only the second on {pair['lost']} (p = " in html
    assert "60 inputs, seed 0; 30 exact one-sided tests share a level of 0.01" in html


def test_the_verdict_is_a_key_figure(finding):
    (key,) = draw({"network": finding}).keys
    assert key.values == {"network": "not trustworthy"}
    assert key.note == "robust accuracy under PGD-20"


def test_networks_stand_below_each_other(finding):
    other = replace(finding, data={**finding.data, "verdict": "trustworthy"})
    section = draw({"before": finding, "after": other})
    assert section.html.index("<h3>before</h3>") < section.html.index("<h3>after</h3>")
    assert section.keys[0].values == {"before": "not trustworthy", "after": "trustworthy"}
    assert "<h3>" not in draw({"network": finding}).html


def test_texts_are_escaped(finding):
    checks = [{**finding.data["checks"][0], "reason": "<script>alert(1)</script>"}]
    html = draw({"network": replace(finding, data={**finding.data, "checks": checks})}).html
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_a_finding_without_verdicts_of_checks_is_a_table():
    other = Finding("masking", "Trust", "", "info", {"checks": [{"name": "own", "share": 0.25}]})
    section = draw({"network": other})
    assert "own" in section.html
    assert "0.25" in section.html
    assert section.keys == ()


def test_it_is_drawn_again_from_its_file(finding, tmp_path):
    page = report.write(tmp_path, {"net": [finding]}, {}, title="t", headline="h").read_text()
    assert "Can the figure be trusted?" in page
    (again,) = read(tmp_path / "findings.json")[0]["net"]
    assert draw({"net": again}).html == draw({"net": finding}).html
