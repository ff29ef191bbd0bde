"""Members of every role from a file outside the package, named on the command line."""

import json
import os
import sys

import pytest
import yaml
from tests import forked

from buttress.audits.base.finding import read
from buttress.cli import main

pytestmark = pytest.mark.usefixtures("_short_searches")
DATA = "--data mine.py:data --model mine.py:net"


def own(folder):
    networks, _ = read(folder / "findings.json")
    return next(iter(networks.values()))


@pytest.fixture
def trained(here, done):
    """A run on the user's data with the user's network and defence."""
    words = "--defence mine.py:Mine --defence.x 3 --defence.nudge mine.py:Nudge --defence.nudge.share 0.25"
    text = done(f"train run {DATA} --model-args.hidden 6 --data-args.inputs 60 --epochs 2 --threat.eps 0.3 {words}")
    assert "\nmine.py:net on mine.py:data (54 inputs), Mine, 2 epochs\n" in text
    return here / "run"


def test_a_defence_with_options_and_an_attack_of_the_users_inside(trained):
    defence = json.loads((trained / "run.json").read_text())["settings"]["defence"]
    assert defence["x"] == 3
    assert defence["nudge"]["share"] == 0.25
    threat = {"class": "buttress.Threat", "norm": "linf", "eps": 0.3, "box": None, "mask": None, "shares": None}
    assert defence["nudge"]["threat"] == threat


def test_an_attack_and_its_options(trained, here, done):
    done("audit run --out a --attacks mine.py:Nudge --attacks.share 0.125 --threat.eps 0.5 --audits robustness")
    (finding,) = own(here / "a")
    assert [row["label"] for row in finding.data["attacks"]] == ["Nudge"]
    assert finding.data["main_eps"] == 0.5
    assert "Nudge is successful on " in done("attack run --out b --by mine.py:Nudge --by.share 1")
    done("audit run --out c --attacks pgd,mine.py:Nudge --attacks.share 1 --threat.eps 0.5 --audits robustness")
    assert [row["label"] for row in own(here / "c")[0].data["attacks"]] == ["PGD-10", "Nudge"]


def test_an_audit_and_its_options(trained, here, done):
    text = done("audit run --out a --audits mine.py:Count,robustness --audits.attacks mine.py:Nudge")
    assert "Count: There are 24.\n" in text
    assert [finding.kind for finding in own(here / "a")] == ["count", "robustness"]
    assert "There are 24." in (here / "a" / "report.html").read_text()
    assert "Count: There are 72.\n" in done("audit run --out b --audits mine.py:Count --audits.times 3")


def test_harden_takes_all_of_them(here, done):
    words = f"{DATA} --base mine.py:Mine --base.x 2 --attacks mine.py:Nudge --epochs 1 --layers 2,4"
    text = done(f"harden --out job {words}")
    assert "training base: MINE\n" in text
    assert "training hardened: MINE-LR\n" in text
    networks, _ = read(here / "job" / "report" / "findings.json")
    assert list(networks) == ["original", "MINE", "MINE-LR"]
    assert all(found[0].data["attacks"][0]["label"] == "Nudge" for found in networks.values())


def test_harden_starts_from_a_users_network_with_weights(trained, here, done):
    words = "harden mine.py:net --weights run/model.safetensors --model-args.hidden 6 --data mine.py:data --layers 2"
    done(f"{words} --out job --epochs 1 --attacks fgsm --inputs 12 --base at --base.attack fgsm --gamma 0.5")
    done("audit run --out audit --attacks fgsm --inputs 12 --data mine.py:data")
    networks, _ = read(here / "job" / "report" / "findings.json")
    assert networks["original"][0].data["stands"] == own(here / "audit")[0].data["stands"]


def test_a_module_in_the_working_directory_will_do(here, done, monkeypatch):
    (here / "mine.py").rename(here / "mine_as_a_module.py")
    where = "mine_as_a_module"
    done(f"train run --data {where}:data --model {where}:net --defence {where}:Mine --epochs 1")
    done(f"audit run --out a --attacks {where}:Nudge --audits {where}:Count,robustness")
    monkeypatch.delitem(sys.modules, where)


def test_a_configuration_names_them_too(here, done):
    for name, nudge in (("one", "mine.py:Nudge"), ("two", "{name: 'mine.py:Nudge', share: 1/8}")):
        defence = f"{{name: 'mine.py:Mine', x: 5, nudge: {nudge}}}"
        (here / "job.yaml").write_text(f"data: mine.py:data\nmodel: mine.py:net\nepochs: 1\ndefence: {defence}\n")
        done(f"train {name} --config job.yaml")
        settings = json.loads((here / name / "run.json").read_text())["settings"]["defence"]
        assert (settings["x"], settings["nudge"]["share"]) == (5, 0.5 if name == "one" else 0.125)


def train_as_printed(folder):
    os.chdir(folder)
    assert "mine" not in sys.modules
    assert main(["train", "run", "--config", "printed.yaml"]) == 0


def test_a_printed_configuration_names_the_file_and_works_in_another_process(here, done):
    text = done(f"train {DATA} --epochs 1 --defence mine.py:Mine --defence.x 7 --print-config")
    assert yaml.safe_load(text)["defence"]["class_path"] == f"{here}/mine.py:Mine"
    (here / "printed.yaml").write_text(text)
    forked.run(train_as_printed, here)
    assert json.loads((here / "run" / "run.json").read_text())["settings"]["defence"]["x"] == 7


@pytest.mark.parametrize(
    ("words", "rivals", "opponent"),
    [
        ("--audits.rivals pgd,fgsm", [["PGD", 10], ["FGSM", None]], None),
        ("--audits.rivals fgsm,pgd --audits.rivals.steps 3", [["FGSM", None], ["PGD", 3]], None),
        ("--audits.rivals '{name: pgd, steps: 3}' --audits.rivals fgsm", [["PGD", 3], ["FGSM", None]], None),
        ("--audits.opponent bim --audits.opponent.steps 2", [], ["BIM", 2]),
        ("--audits.opponent '{name: bim, steps: 2}'", [], ["BIM", 2]),
    ],
)
def test_an_audits_attacks_are_known_by_their_types_whatever_they_are_called(words, rivals, opponent, here, runs, done):
    done(f"audit {runs}/moons --out a --audits mine.py:Duel {words} --inputs 8")
    assert own(here / "a")[0].data == {"rivals": rivals, "opponent": opponent}


def test_a_configuration_names_an_audits_attacks_too(here, runs, done):
    audit = "{name: mine.py:Duel, rivals: [pgd, {name: fgsm}], opponent: {name: pgd, steps: 2}}"
    (here / "job.yaml").write_text(f"audits: [{audit}]")
    done(f"audit {runs}/moons --out a --config job.yaml --inputs 8")
    assert own(here / "a")[0].data == {"rivals": [["PGD", 10], ["FGSM", None]], "opponent": ["PGD", 2]}
    (here / "printed.yaml").write_text(done(f"audit {runs}/moons --out b --config job.yaml --inputs 8 --print-config"))
    done("audit --config printed.yaml")
    assert own(here / "b")[0].data == own(here / "a")[0].data
