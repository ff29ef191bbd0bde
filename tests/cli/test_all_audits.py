"""`buttress audit --audits all` from its words to its page."""

import json

import torch

from buttress import models, registry
from buttress.audits import Finding
from buttress.cli.main import main

TINY = ["--limit", "30", "--inputs", "6", "--precision", "fp32", "--threat.eps", "0.1", "--attacks", "fgsm"]


def test_all_audits_within_a_time(tmp_path, capsys):
    """What was asked, what was left out and why stand in the terminal, in the file and on the page."""
    model, weights = models.create("mlp", classes=2, features=2, seed=0), tmp_path / "weights.pt"
    torch.save(model.state_dict(), weights)
    words = ["audit", "mlp", "--weights", str(weights), "--data", "moons", *TINY, "--budget", "3s"]
    assert main([*words, "--audits", "all,weights", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "findings.json").read_text())
    findings = [Finding(**finding) for finding in next(iter(content["networks"].values()))]
    rows = {row["audit"]: row for finding in findings if finding.kind == "plan" for row in finding.data["rows"]}
    assert sorted(rows) == registry.audit.names()
    assert rows["weights"]["state"] == "answered"
    page = (tmp_path / "out" / "report.html").read_text().replace("&#39;", "'").replace("&gt;", ">")
    for audit, row in rows.items():
        assert audit in told
        if row["state"] != "answered":
            assert row["reason"] in page
