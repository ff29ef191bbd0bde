import errno
import json
from dataclasses import replace

import pytest

from buttress import report
from buttress.audits.base.finding import read
from buttress.errors import UserError

WORDS = {"title": "An audit", "headline": "It gives way."}


def test_findings_and_facts_come_back(tmp_path, two, facts):
    html = report.write(tmp_path / "new" / "folder", two, facts, **WORDS)
    assert html == tmp_path / "new" / "folder" / "report.html"
    networks, about = read(html.with_name("findings.json"))
    assert networks == two
    assert about == {**facts, **WORDS}
    assert sorted(path.name for path in html.parent.iterdir()) == ["findings.json", "report.html"]


def test_the_page_is_drawn_again_from_json_alone(tmp_path, two, facts):
    html = report.write(tmp_path, two, facts, **WORDS, severity="warning")
    written = html.read_bytes()
    html.unlink()
    assert report.rewrite(tmp_path / "findings.json") == html
    assert html.read_bytes() == written


def test_the_same_findings_give_the_same_bytes(tmp_path, one, facts):
    first, second = (report.write(tmp_path / name, one, facts, **WORDS) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_report_of_ours_is_replaced(tmp_path, one, two, facts):
    report.write(tmp_path, one, facts, **WORDS)
    html = report.write(tmp_path, two, facts, **WORDS)
    assert "hardened" in html.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["report.html", "findings.json"])
def test_a_file_of_the_users_is_left_alone(tmp_path, one, facts, name):
    mine = tmp_path / name
    mine.write_text("<h1>mine</h1>")
    with pytest.raises(UserError, match=name):
        report.write(tmp_path, one, facts, **WORDS)
    assert mine.read_text() == "<h1>mine</h1>"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_leaves_the_old_report(tmp_path, one, two, facts, monkeypatch):
    html = report.write(tmp_path, one, facts, **WORDS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("buttress.training.checkpoint.os.replace", full)
    with pytest.raises(UserError, match="no space left"):
        report.write(tmp_path, two, facts, **WORDS)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert html.exists()


def test_what_cannot_be_drawn_writes_nothing(tmp_path, one, facts):
    broken = replace(one["network"][0], data={"attacks": [{"label": "PGD", "curve": [{"eps": 0.1}]}]})
    with pytest.raises(KeyError):
        report.write(tmp_path / "out", {"network": [broken]}, facts, **WORDS)
    odd = replace(one["network"][0], data={"main_eps": object()})
    with pytest.raises(UserError, match="plain data"):
        report.write(tmp_path / "out", {"network": [odd]}, facts, **WORDS)
    assert not (tmp_path / "out").exists()


def test_no_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="at least one network"):
        report.write(tmp_path, {}, {}, **WORDS)


def test_rewriting_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no"):
        report.rewrite(tmp_path / "findings.json")
    (tmp_path / "findings.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match=r"no findings\.json"):
        report.rewrite(tmp_path / "findings.json")
