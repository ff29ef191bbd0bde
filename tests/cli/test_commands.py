"""The commands as a user types them, from training to comparison."""

import json
import re
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from buttress import registry
from buttress.attacks import PGD, Ensemble
from buttress.audits.base.finding import read
from buttress.cli.commands import JOBS, job
from buttress.data.sets.moons import moons
from buttress.threat import Threat
from buttress.training import load

MOONS = "--data moons --data-args.samples 200 --data-args.test 60 --model mlp --seed 3"


def findings(folder):
    networks, facts = read(folder / "findings.json")
    return next(iter(networks.values())), facts


def test_no_words_or_help_name_the_commands(done):
    text = done("")
    assert done("--help") == done("-h") == text
    assert all(f"  {name} " in text for name in [*JOBS, "list"])
    assert done("--version").startswith("buttress 0.")


def test_train_says_what_it_did_and_leaves_a_run(here, done):
    text = done(f"train run {MOONS} --epochs 2 --defence at --defence.attack pgd --defence.attack.steps 2")
    assert text.startswith("on cpu, 1 thread\nmlp on moons (200 inputs), at, 2 epochs\nbest epoch, ")
    assert "robust " in text
    settings = json.loads((here / "run" / "run.json").read_text())["settings"]
    assert settings["epochs"] == 2
    assert settings["defence"]["attack"]["steps"] == 2
    assert settings["defence"]["attack"]["threat"]["box"] is None  # the data's own
    assert (here / "run" / "model.safetensors").is_file()


def test_a_run_names_its_defence_with_all_that_it_goes_around(here, done):
    nested = "--defence awp --defence.base eps-warmup --defence.base.base at --defence.base.base.attack fgsm"
    nested += " --defence.base.epochs 0.5"
    text = done(f"train run {MOONS} --epochs 1 {nested}")
    assert "\nmlp on moons (200 inputs), awp(eps-warmup(at)), 1 epochs\n" in text
    assert json.loads((here / "run" / "model.json").read_text())["defence"] == "awp(eps-warmup(at))"
    done("audit run --out seen --audits robustness --attacks fgsm --inputs 20")
    assert findings(here / "seen")[1]["settings"]["defence"] == "awp(eps-warmup(at))"


def test_a_training_is_watched_and_averaged_as_asked(here, done):
    done(
        f"train run {MOONS} --epochs 2 --defence at --average SWA --average.start 0.25 "
        "--monitors early-stopping,catastrophic-overfitting --monitors.then stop --monitors.threat.eps 0.2"
    )
    settings = json.loads((here / "run" / "run.json").read_text())["settings"]
    stopping, collapse = settings["monitors"]
    assert stopping["patience"] == 10
    assert (collapse["then"], collapse["threat"]["eps"], collapse["threat"]["box"]) == ("stop", 0.2, None)
    assert settings["average"]["start"] == 0.25
    (here / "job.yaml").write_text("monitors: [early-stopping, {name: catastrophic-overfitting, threat: {eps: 0.2}}]")
    done(f"train again {MOONS} --epochs 1 --defence at --config job.yaml")
    assert len(json.loads((here / "again" / "run.json").read_text())["settings"]["monitors"]) == 2


def test_the_output_folder_may_be_named_or_come_first(here, done):
    done(f"train {MOONS} --epochs 1 --out run")
    done(f"train {MOONS} other --epochs 1")
    assert (
        load_file(here / "run" / "model.safetensors").keys() == load_file(here / "other" / "model.safetensors").keys()
    )


def test_audit_writes_the_report_it_speaks_of(here, runs, done):
    text = done(f"audit {runs}/moons --out audit --inputs 30")
    found, facts = findings(here / "audit")
    assert [f.kind for f in found] == ["robustness", "layers", "boundary", "masking"]
    _, warning, heading = text.splitlines()[:3]  # one epoch taught it nothing
    assert warning.startswith("Before anything else: 50.0% of 60 inputs are classified correctly, which one answer for")
    assert facts["headline"].startswith(warning)
    assert heading == f"audit of {runs}/moons on 30 test inputs of moons"
    assert all(f"{f.title}: {f.verdict}\n" in text for f in found)
    assert text.endswith("report: audit/report.html\n")
    assert "linf eps 8/255" in found[0].verdict
    assert facts["command"] == f"buttress audit {runs}/moons --out audit --inputs 30"
    assert facts["settings"]["threat"] == {"norm": "linf", "eps": 8 / 255, "box": None}
    page = (here / "audit" / "report.html").read_text()
    assert found[0].verdict in page


def test_images_come_with_a_gallery(here, runs, done):
    done(f"audit {runs}/digits --out audit --inputs 20 --attacks fgsm --threat.eps 0.1")
    assert [f.kind for f in findings(here / "audit")[0]] == ["robustness", "layers", "examples", "masking"]


def test_limit_and_inputs_take_stratified_samples(here, runs, done):
    done(f"audit {runs}/digits --out audit --limit 30 --inputs 20 --audits robustness --attacks fgsm")
    assert findings(here / "audit")[0][0].data["inputs"] == 20
    assert "(30 inputs)" in done("train run --data digits --limit 30 --model cnn --model-args.width 2 --epochs 1")


def test_attacks_of_two_norms_are_scored_apart(here, runs, done):
    done(f"audit {runs}/moons --out audit --inputs 20 --attacks fgsm --attacks pgd --attacks.threat.norm l2")
    found = findings(here / "audit")[0]
    assert [f.title for f in found[:2]] == ["Robustness (linf)", "Robustness (l2)"]
    assert [row["norm"] for f in found[:2] for row in f.data["attacks"]] == ["linf", "l2"]


def test_attacks_serve_the_audits_that_name_none(here, runs, run, done):
    words = "--audits robustness,layers --audits.tolerance-inputs 0 --attacks fgsm --threat.eps 0.3 --inputs 20"
    done(f"audit {runs}/moons --out audit {words}")
    robustness, layers = findings(here / "audit")[0]
    assert [row["label"] for row in robustness.data["attacks"]] == ["FGSM"]
    assert robustness.data["main_eps"] == 0.3
    assert layers.data["perturbations"] == ["fgsm", "gaussian"]
    words = f"audit {runs}/moons --out own --audits robustness --audits.attacks pgd --inputs 20"
    told = run(f"{words} --attacks fgsm")
    assert told.status == 2
    assert told.err.startswith("buttress: --attacks has no effect on the audits robustness, which take none or have")
    done(words)
    assert [row["label"] for row in findings(here / "own")[0][0].data["attacks"]] == ["PGD-10"]


def test_fail_under_is_a_gate_after_the_report(here, runs, run, done):
    words = f"audit {runs}/moons --inputs 30 --audits robustness --attacks fgsm --out"
    done(f"{words} low --fail-under 0")
    robust = findings(here / "low")[0][0].data["worst"][3]["accuracy"]
    assert 0 < robust < 1
    done(f"{words} equal --fail-under {100 * robust - 0.001}")
    told = run(f"{words} high --fail-under 100")
    assert told.status == 3
    assert told.err == f"buttress: robust accuracy {100 * robust:.1f}% is under the gate of 100%\n"
    assert (here / "high" / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("", "without layers, named as in --defence.layers NAME,NAME,"),
        ("--defence.layers act1 --defence.gamma 0", "with"),
    ],
)
def test_a_layer_regularisation_of_nothing_is_told(options, reason, here, done):
    text = done(f"train new {MOONS} --epochs 1 --defence layer-regularised {options} --dry-run")
    assert f"\n{reason} " in text
    assert "layer-regularised regularises nothing: this is at alone\n" in text


@pytest.mark.parametrize(
    "words",
    [
        f"train new {MOONS}",
        f"train new {MOONS} --defence layer-regularised --defence.layers act1 --defence.base at",
        "audit {runs}/moons --out new --fail-under 99",
        "harden --out new --data digits --limit 60 --model cnn",
        "harden {runs}/moons --out new",
        "attack {runs}/moons --out new --by square",
    ],
)
def test_a_dry_run_estimates_and_writes_nothing(words, here, runs, done):
    before = sorted(here.rglob("*"))
    text = done(words.replace("{runs}", str(runs)) + " --dry-run")
    assert "about " in text
    assert sorted(here.rglob("*")) == before
    if words.startswith("audit"):  # one epoch taught it nothing, which is told before the hours
        assert "\nBefore anything else: 50.0% of 60 inputs are classified correctly, which one answer for" in text
    if words.startswith("train"):
        assert "160 steps of " in text or "40 steps of " in text
    if words.startswith("harden --"):
        assert sum(line.startswith("training ") for line in text.splitlines()) == 3
        assert re.search(
            r"each of three audits: about [\d.]+ \w+ for 3 audits, cheapest first: examples [\d.]+ \w+, ", text
        )
        assert "from base on all trainings together: about " in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("compare {runs}/audit {runs}/audit --out new", "From moons to moons (2): clean accuracy"),
        ("export {runs}/moons --onnx new.onnx", "would be written to new.onnx: x (N, 2) to logits (N, classes)"),
        ("reproduce lsa-table2-moon --work new", "jobs, 0 of them done before; nothing is run"),
    ],
)
def test_a_dry_run_of_no_attack_or_training_says_what_would_be_done(words, told, here, runs, done):
    before = sorted(here.rglob("*"))
    assert told in done(words.replace("{runs}", str(runs)) + " --dry-run")
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", JOBS)
def test_every_command_has_a_dry_run(name):
    assert "dry_run" in job(name).__annotations__


def test_harden_trains_what_is_missing_and_compares(here, done):
    words = (
        f"harden --out job {MOONS} --epochs 1 --inputs 30 --attacks fgsm --base at --base.attack.steps 2 --gamma 0.5"
    )
    text = done(words)
    networks, facts = read(here / "job" / "report" / "findings.json")
    assert list(networks) == ["original", "AT", "AT-LR"]
    names = facts["settings"]["regularised layers"]
    assert set(names) <= set(networks["original"][1].data["layers"])
    assert f"regularised: {', '.join(names)}\n" in text
    assert "displaced most on validation data of what can be regularised, the published choice; no measure" in text
    assert facts["headline"] in text
    assert "From original to AT-LR: clean accuracy" in text
    settings = json.loads((here / "job" / "hardened" / "run.json").read_text())["settings"]
    assert settings["defence"]["base"]["attack"]["steps"] == 2
    assert (settings["defence"]["layers"], settings["defence"]["gamma"]) == (names, [0.5] * len(names))
    again = done(f"{words} --resume")
    assert again.splitlines()[-2:] == text.splitlines()[-2:]


def test_harden_starts_from_a_run_and_takes_layers_and_eta(here, runs, done):
    words = f"harden {runs}/moons --epochs 1 --inputs 20 --attacks fgsm --base trades --base.steps 1"
    assert "regularised: act2, act1\n" in done(f"{words} --out one --layers act2,act1 --gamma 0.5")
    assert "regularised: act" in done(f"{words} --out two --eta 0.1 --measure relative_error")
    networks, _ = read(here / "one" / "report" / "findings.json")
    assert list(networks) == ["original", "TRADES", "TRADES-LR"]
    original = findings(runs / "audit")[0][0].data["attacks"][0]["curve"][0]
    assert 0 < original["accuracy"] < 1


def test_compare_tells_what_became_of_the_accuracy(here, runs, done):
    done(f"audit {runs}/moons --out b --audits robustness --attacks fgsm --inputs 40")
    done(f"audit {runs}/moons --out c --audits robustness --attacks fgsm --inputs 40 --threat.eps 0.3")
    done(f"audit {runs}/moons --out d --audits robustness --attacks fgsm --inputs 30")
    text = done(f"compare {runs}/audit b --out both")
    assert text.startswith("From moons to moons (2): clean accuracy ")
    assert "under linf eps 8/255, the same inputs." in text
    networks, facts = read(here / "both" / "findings.json")
    assert list(networks) == ["moons", "moons (2)"]
    assert facts["command"] == f"buttress compare {runs}/audit b --out both"
    assert facts["settings"]["moons (2)"]["from"] == "b"
    assert "is not compared, being under linf eps 8/255 and linf eps 0.3" in done("compare b c --out eps")
    assert "on different inputs" in done("compare b/findings.json d --out inputs")
    assert done("compare b c d --out three").count("accuracy") == 3


def test_attack_writes_tensors_that_beat_the_network(here, runs, done):
    words = f"attack {runs}/moons --out new --by pgd --by.steps 5 --threat.eps 0.4 --inputs 30 --seed 2"
    text = done(words)
    tensors = load_file(here / "new" / "examples.safetensors")
    facts = json.loads((here / "new" / "examples.json").read_text())
    assert set(tensors) == {"x_adv", "y", "ids", "beaten", "distance"}
    assert tensors["x_adv"].shape == (30, 2)
    assert float(tensors["distance"].max()) <= 0.4
    count = int(tensors["beaten"].sum())
    assert text.endswith(f"\nPGD-5 is successful on {count} of 30 inputs; written to new/examples.safetensors\n")
    assert (facts["attack"], facts["seed"], facts["settings"]["steps"]) == ("PGD-5", 2, 5)
    done(words.replace("new", "again"))
    assert all(load_file(here / "again" / "examples.safetensors")[name].equal(value) for name, value in tensors.items())


def test_noises_are_attacks_too_in_the_datas_own_box(here, runs, done):
    assert "\ngaussian is successful" in done(f"attack {runs}/moons --out new --by gaussian --by.std 0.5 --inputs 20")
    done(f"audit {runs}/moons --out audit --audits layers --inputs 10")


@pytest.mark.parametrize("role", [*sorted(registry.ROLES), "recipes"])
def test_list_names_every_member(role, done):
    text, rows = done(f"list {role}"), json.loads(done(f"list {role} --json"))
    names = [row["name"] for row in rows]
    assert names == sorted(names)
    assert role == "recipes" or names == registry.ROLES[role].names()
    for row in rows:
        assert f"{row['name']} " in text
        assert row["summary"] in text
        assert row["summary"]
    if role == "attacks":
        (pgd,) = [row for row in rows if row["name"] == "pgd"]
        assert pgd["options"]["steps"] == 10
        assert pgd["options"]["step_size"] is None
        assert pgd["class"] == "buttress.attacks.gradient.pgd.PGD"
        assert "threat, steps=10, step_size, restarts=1, start=uniform, loss, box_first=False\n" in text
    if role == "defences":
        assert "12 x the passes of standard training, and first trains a generator and a classifier; recon" in text
        assert "2024; a pass for each pixel's window, so 396 x the passes of standard training at 28x28; recon" in text
        assert "unknown cost" not in text


YAML = """
data: moons
data_args: {samples: 200, test: 60}
model: mlp
model-args: {hidden: [12]}
seed: 3
epochs: 2
batch-size: 64
threat: {eps: 8/255}
defence: {name: at, attack: {name: pgd, steps: 3}}
optimiser: {name: sgd, lr: 1/50}
schedule: {name: piecewise, milestones: [1/4, 0.5]}
"""
FLAGS = (
    "--data moons --data-args.samples 200 --data-args.test 60 --model mlp --model-args '{hidden: [12]}' --seed 3 "
    "--epochs 2 --batch-size 64 --threat.eps 8/255 --defence at --defence.attack pgd --defence.attack.steps 3 "
    "--optimiser.name sgd --optimiser.lr 1/50 --schedule.name piecewise --schedule.milestones 1/4,0.5"
)


def settings(folder):
    return json.loads((folder / "run.json").read_text())["settings"]


def test_a_configuration_file_equals_flags(here, done):
    (here / "job.yaml").write_text(YAML)
    done("train file --config job.yaml")
    done(f"train flags {FLAGS}")
    assert settings(here / "file") == settings(here / "flags")
    assert (here / "file" / "model.safetensors").read_bytes() == (here / "flags" / "model.safetensors").read_bytes()


@pytest.mark.parametrize("order", ["{flags} --config job.yaml", "--config job.yaml {flags}"])
def test_flags_beat_the_file_wherever_they_stand(order, here, done):
    (here / "job.yaml").write_text(YAML)
    flags = "--epochs 1 --defence.attack.steps 2 --optimiser.lr 0.5 --schedule.milestones 0.9"
    done(f"train run {order.format(flags=flags)}")
    found = settings(here / "run")
    assert (found["epochs"], found["batch_size"]) == (1, 64)
    assert (found["defence"]["attack"]["steps"], found["defence"]["class"].rpartition(".")[2]) == (
        2,
        "AdversarialTraining",
    )
    assert (found["optimiser"]["lr"], found["optimiser"]["name"]) == (0.5, "sgd")
    assert found["schedule"]["milestones"] == [0.9]
    done(f"train other {order.format(flags='--defence trades --epochs 1')}")
    assert settings(here / "other")["defence"]["class"].endswith("TRADES")


def test_lists_on_the_command_line_replace_those_of_the_file(here, runs, done):
    members = "attacks: [fgsm, {name: pgd, steps: 2}]\naudits: [robustness]\n"
    (here / "job.yaml").write_text(f"network: {runs}/moons\nout: from-file\ninputs: 20\n{members}")
    done("audit --config job.yaml")
    labels = [row["label"] for row in findings(here / "from-file")[0][0].data["attacks"]]
    assert labels == ["FGSM", "PGD-2"]
    done("audit --config job.yaml --out flags --attacks bim --attacks.steps 3 --attacks fgsm")
    assert [row["label"] for row in findings(here / "flags")[0][0].data["attacks"]] == ["BIM-3", "FGSM"]


def test_a_member_written_out_needs_no_brackets_around_it(here, runs, done):
    asked = "--audits robustness --attacks '{name: pgd, steps: 2}' --inputs 20"
    done(f"audit {runs}/moons --out one {asked}")
    assert [row["label"] for row in findings(here / "one")[0][0].data["attacks"]] == ["PGD-2"]
    done(f"audit {runs}/moons --out two {asked} --attacks '{{name: bim, steps: 3}}' --attacks fgsm")
    assert [row["label"] for row in findings(here / "two")[0][0].data["attacks"]] == ["PGD-2", "BIM-3", "FGSM"]


def test_later_files_beat_earlier_ones(here, done):
    (here / "one.yaml").write_text(YAML)
    (here / "two.yaml").write_text("epochs: 1\nthreat: {norm: l2}\n")
    done("train run --config one.yaml --config two.yaml")
    assert settings(here / "run")["epochs"] == 1
    threat = settings(here / "run")["defence"]["attack"]["threat"]
    assert (threat["norm"], threat["eps"]) == ("l2", 8 / 255)


@pytest.mark.parametrize("spelling", ["--print-config", "--print_config"])
def test_a_printed_configuration_can_be_given_again(spelling, here, done):
    (here / "printed.yaml").write_text(done(f"train {FLAGS} {spelling}"))
    assert yaml.safe_load((here / "printed.yaml").read_text())["epochs"] == 2
    assert not (here / "run").exists()
    done("train run --config printed.yaml")
    done(f"train flags {FLAGS}")
    assert settings(here / "run") == settings(here / "flags")


def test_values_in_every_spelling(here, done):
    words = f"train {MOONS} --print-config"
    for text, expected in (("inf", float("inf")), ("8/255", 8 / 255), ("1e-2", 0.01), (".5", 0.5)):
        assert yaml.safe_load(done(f"{words} --threat.eps {text}"))["threat"]["eps"] == expected
    for text, expected in (("none", None), ("null", None), ("-1,1", [-1, 1]), ("[0,2]", [0, 2])):
        assert yaml.safe_load(done(f"{words} --threat.box={text}"))["threat"]["box"] == expected
    for text, expected in ((" --resume", True), (" --resume true", True), (" --resume=false", False), ("", False)):
        assert yaml.safe_load(done(f"{words}{text}"))["resume"] is expected
    for text, expected in (("", "auto"), (" --normalise false", "false"), (" --normalise 0.5,0.1/1", "0.5,0.1/1")):
        assert yaml.safe_load(done(f"{words}{text}"))["normalise"] == expected
    deep = "--defence at --defence.attack pgd --defence.attack.threat.box none --defence.attack.threat.eps 1/2"
    threat = yaml.safe_load(done(f"{words} {deep}"))["defence"]["init_args"]["attack"]["init_args"]["threat"]
    assert threat == {"norm": "linf", "eps": 0.5, "box": None, "mask": None, "shares": None}
    for deep in ("--by.step-size", "--by.threat.box"):
        again = yaml.safe_load(done(f"attack run --out new --by pgd --by.steps 3 {deep} none --print-config"))["by"]
        assert again["init_args"]["step_size" if "size" in deep else "threat"] in (None, {**threat, "eps": 8 / 255})
    several = done(
        "audit run --out new --attacks fgsm,pgd --attacks.step-size none --attacks.threat.box none --print-config"
    )
    assert [a["init_args"]["threat"] for a in yaml.safe_load(several)["attacks"]] == [None, {**threat, "eps": 8 / 255}]
    listed = "--defence '{name: at, attack: {name: fgsm, threat: {eps: 1/4}}}'"
    attack = yaml.safe_load(done(f"{words} {listed}"))["defence"]["init_args"]["attack"]
    assert attack["class_path"].endswith("FGSM")
    assert attack["init_args"]["threat"]["eps"] == 0.25


def test_a_run_knows_its_data_and_takes_other_options_of_it(here, runs, done):
    done(f"audit {runs}/moons --out audit --audits robustness --attacks fgsm --data-args.test 24")
    assert findings(here / "audit")[0][0].data["inputs"] == 24
    shutil.copytree(runs / "moons", here / "copy")
    done("audit copy --out again --audits robustness --attacks fgsm")
    assert findings(here / "again")[0][0].data["inputs"] == 60


def test_a_threat_that_is_said_holds_also_where_it_equals_the_default(here, runs, done):
    words = f"audit {runs}/digits --audits robustness --inputs 20 --threat.eps 0.1"
    done(f"{words} --out a --attacks fgsm --attacks.threat.eps 8/255 --attacks pgd")
    done(f"{words} --out b --attacks fgsm")
    assert findings(here / "a")[0][0].data["main_eps"] == 8 / 255
    assert findings(here / "b")[0][0].data["main_eps"] == 0.1


def test_an_audit_of_a_run_takes_the_threat_of_its_training(here, runs, done):
    done(
        "train run --data digits --model mlp --epochs 1 --defence at --defence.attack fgsm --threat.eps 0.2 --limit 40"
    )
    done("audit run --out a --audits robustness --inputs 20 --attacks fgsm")
    assert findings(here / "a")[0][0].data["main_eps"] == 0.2


def test_attacks_around_attacks_are_typed_as_they_are_nested(here, runs, done):
    text = done(f"attack {runs}/digits --out eot --inputs 6 --by eot --by.draws 2 --by.attack pgd --by.attack.steps 3")
    assert "EoT of PGD-3 is successful" in text
    wrapped = f"--by transfer --by.surrogate {runs}/digits --by.attack bpda --by.attack.attack fgsm"
    wrapped += " --by.attack.layers model.relu1"
    assert "Transfer of BPDA of FGSM is successful" in done(f"attack {runs}/digits --out transfer --inputs 6 {wrapped}")


def test_a_nested_attack_has_settings_of_its_own_not_those_of_the_default_in_its_place(here, runs, done):
    """PGD stands there by default, with 10 steps in linf."""
    wrapped = f"attack {runs}/digits --inputs 3 --by eot --by.draws 1 --by.attack"
    assert "EoT of APGD-100 is successful" in done(f"{wrapped} apgd --out apgd")
    assert "EoT of DeepFool-50 is successful" in done(f"{wrapped} deepfool --out deepfool")  # l2 by itself
    (here / "job.yaml").write_text(yaml.safe_dump({"by": {"name": "eot", "draws": 1, "attack": {"name": "apgd"}}}))
    assert "EoT of APGD-100 is successful" in done(f"attack {runs}/digits --inputs 3 --config job.yaml --out file")
    text = done("train --data digits --defence at --defence.attack apgd --print-config")
    assert yaml.safe_load(text)["defence"]["init_args"]["attack"]["init_args"]["steps"] == 100


def test_an_ensemble_names_its_networks_by_their_folders(here, runs, done):
    done("train other --data moons --data-args.samples 200 --data-args.test 60 --model mlp --epochs 1 --seed 4")
    words = f"attack {runs}/moons --inputs 12 --threat.eps 0.4 --by ensemble --by.attack.steps 3"
    done(f"{words} --out two --by.models {runs}/moons,other")
    done(f"{words} --out twice --by.models {runs}/moons --by.models other")
    job = {"name": "ensemble", "models": [str(runs / "moons"), "other"], "attack": {"name": "pgd", "steps": 3}}
    (here / "job.yaml").write_text(yaml.safe_dump({"by": job}))
    done(f"attack {runs}/moons --inputs 12 --threat.eps 0.4 --out file --config job.yaml")
    done(f"attack {runs}/moons --inputs 12 --threat.eps 0.4 --out none --by pgd --by.steps 3")
    found = {name: load_file(here / name / "examples.safetensors") for name in ("two", "twice", "file", "none")}
    test = moons(samples=200, test=60, seed=3).test.stratified(12, 0)
    attack = PGD(threat=Threat(eps=0.4, box=None), steps=3)
    models = [load(runs / "moons"), load("other")]
    expected = Ensemble(attack=attack, models=models)(models[0], test.x, test.y, ids=test.ids)
    for name in ("two", "twice", "file"):
        assert torch.equal(found[name]["x_adv"], expected.x_adv)
    assert not torch.equal(found["none"]["x_adv"], expected.x_adv)
