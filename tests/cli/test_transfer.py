"""compare --transfer: audits and runs are opened again, what was kept is not crafted again, the rest is refused."""

import json
import shlex

import pytest
import torch
from torch import nn

from buttress.audits.base.finding import read


@pytest.fixture(scope="module")
def pair(run, tmp_path_factory):
    """Two runs on the same points, and an audit of each, the first with its examples kept."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("a", "b"):
        data = "--data moons --data-args.samples 200 --data-args.test 60 --model mlp --epochs 2"
        told = run(f"train {folder}/{name} {data} --seed 3 --model-args.hidden {'[8]' if name == 'a' else '[16,16]'}")
        assert told.status == 0, told.err
        kept = "--keep-examples true" if name == "a" else ""
        words = f"audit {folder}/{name} --out {folder}/audit-{name} --audits examples,layers --attacks fgsm --inputs 40"
        told = run(f"{words} --threat.eps 0.3 {kept}")
        assert told.status == 0, told.err
    return folder


def matrix(folder):
    networks, facts = read(folder / "findings.json")
    found = {name: next(f for f in findings if f.kind == "transfer") for name, findings in networks.items()}
    return {name: finding.data["attacks"] for name, finding in found.items()}, facts


def test_audits_of_runs_side_by_side(pair, here, done):
    text = done(f"compare {pair}/audit-a {pair}/audit-b --out both --transfer --attacks fgsm")
    rows, facts = matrix(here / "both")
    assert {name: row[0]["kept"] for name, row in rows.items()} == {"a": True, "b": False}
    assert {target: cell["inputs"] <= 40 for target, cell in rows["a"][0]["cells"].items()} == {"a": True, "b": True}
    assert rows["a"][0]["threat"] == "linf eps 0.3"
    assert "Of FGSM's examples those crafted on " in text
    assert facts["headline"] in text
    page = (here / "both" / "report.html").read_text()
    assert "Transfer between networks" in page
    assert "FGSM (linf eps 0.3)" in page
    assert sorted(path.name for path in (pair / "audit-b").iterdir()) == ["findings.json", "report.html"]


def test_kept_examples_and_new_ones_are_the_same(pair, here, done):
    done(f"compare {pair}/audit-a {pair}/audit-b --out kept --transfer --attacks fgsm")
    done(f"compare {pair}/a {pair}/b --out new --transfer --attacks fgsm --inputs 40 --threat.eps 0.3")
    kept, new = matrix(here / "kept")[0], matrix(here / "new")[0]
    assert [row["kept"] for rows in new.values() for row in rows] == [False, False]
    for name in kept:
        assert kept[name][0]["cells"] == new[name][0]["cells"]


def test_a_dry_run_says_what_is_left_to_craft(pair, here, done):
    text = done(f"compare {pair}/audit-a {pair}/audit-b --out both --transfer --attacks fgsm --dry-run")
    assert "\na: all examples were kept\nb: at most about " in text
    assert not (here / "both").exists()


def test_a_network_of_a_users_own_is_opened_as_it_was_audited(here, done):
    layers = [nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)]
    torch.save(nn.Sequential(nn.Flatten(), *layers).state_dict(), "w.pt")
    words = "--weights w.pt --data mine.py:data --audits examples --attacks fgsm --threat.eps 0.5 --threat.box none"
    for name in ("one", "two"):
        done(f"audit mine.py:net --out {name} {words}")
    done("compare one two --out both --transfer --attacks fgsm")
    rows, _ = matrix(here / "both")
    cells = [cell for row in rows.values() for cell in row[0]["cells"].values()]
    assert all(cell == cells[0] for cell in cells)
    opened = json.loads((here / "one" / "findings.json").read_text())["facts"]["settings"]["opened as"]
    assert opened["architecture"] == {"weights": str(here / "w.pt")}
    assert opened["source"] == {"data": f"{here / 'mine.py'}:data"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("{pair}/audit-a {pair}/audit-b --attacks pgd", "--attacks has no effect without --transfer: leave it out"),
        ("{pair}/audit-a {pair}/audit-b --inputs 3", "--inputs has no effect without --transfer: leave it out"),
        ("{pair}/audit-a {pair}/audit-b --threat.eps 0.1", "--threat has no effect without --transfer: leave it out"),
        ("{pair}/audit-a {pair}/b", "findings.json: audit the network first"),
        ("{pair}/audit-a {runs}/audit-digits --transfer --attacks fgsm", "compare like data"),
        (
            "{pair}/audit-a {runs}/audit --transfer --attacks fgsm",
            "a linf eps 0.3, moons linf eps 8/255): give one for all",
        ),
        ("{pair}/audit-a nowhere --transfer --attacks fgsm", "there is no nowhere: audit the network first"),
        ("{pair}/audit-a {pair} --transfer --attacks fgsm", "holds no trained model (no run is there)"),
        ("{pair}/audit-a {pair}/audit-b --transfer --attacks fgsm,fgsm", "--attacks has FGSM twice"),
    ],
)
def test_what_cannot_be_tried_is_refused_in_one_line(words, told, pair, runs, refused):
    line = refused(f"compare {words.format(pair=shlex.quote(str(pair)), runs=runs)} --out new")
    assert told in line


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        (["seed"], "x", "records the seed 'x', which is none: audit the network again"),
        (["settings", "inputs"], 0, "records the inputs 0, which is none"),
        (["settings", "threat"], {"norm": "linf", "size": 1}, "records the threat {'norm': 'linf', 'size': 1}, which"),
        (["settings", "threat"], {"norm": "l7"}, "l7"),
        (["settings", "opened as"], [], "does not say how its network is opened"),
        (["settings", "opened as", "network"], 3, "does not say how its network is opened: audit it again"),
        (["settings", "opened as", "network"], "nowhere/at/all", "'nowhere/at/all' is no run's folder and no model"),
        (["settings", "opened as"], {"network": "cnn", "architecture": {"weights": 3}}, "weights"),
        (["settings", "opened as"], {"network": "cnn", "source": {"limits": 3}}, "limits"),
    ],
)
def test_a_record_that_was_changed_is_told_in_one_line(where, value, told, pair, here, refused):
    record = json.loads((pair / "audit-b" / "findings.json").read_text())
    inside = record["facts"]
    for name in where[:-1]:
        inside = inside[name]
    inside[where[-1]] = value
    (here / "changed").mkdir()
    (here / "changed" / "findings.json").write_text(json.dumps(record))
    assert told in refused(f"compare {pair}/audit-a changed --out new --transfer --attacks fgsm")
