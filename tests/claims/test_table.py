"""A miniature claim from end to end, in this process: choices, results, resuming, the record and the page."""

import json
import math

import pytest
import yaml

from buttress import models
from buttress.claims import worker_pool as work_module
from buttress.claims.jobs import run_job
from buttress.claims.reproduce import reproduce
from buttress.errors import UserError

MOONS = {"data": "moons", "data_args": {"noise": "$noise", "samples": 96, "val": 48, "test": 64}}
RECIPE = {
    "summary": "a miniature",
    "claim": {
        "source": "nobody, table 0",
        "statement": "It helps.",
        "kind": "table",
        "published": {"AT": [90.0, 70.0], "AT-LR": [91.0, 75.0]},
        "checks": [
            {"better": "AT-LR", "than": "AT", "at": "R&G"},
            {"better": "AT", "than": "AT-LR", "at": 0.2},
        ],
        "experiment": {
            "setups": {
                "A": {
                    "source": MOONS,
                    "architecture": {"model": "lsa-a", "model_args": {"width": 8}},
                    "training": {"epochs": 9, "batch_size": 16, "keep": "last", "optimiser": {"lr": 0.02}},
                }
            },
            "eps": [0, 0.2],
            "attacks": [{"attack": "fgsm"}, {"attack": {"name": "pgd", "steps": 3, "restarts": 2}, "inputs": 32}],
            "sweep": {"attack": {"name": "pgd", "steps": 2}, "seeds": 2},
            "match": {"name": "noise", "values": [0.1, 0.6], "row": "AT", "attack": "fgsm"},
            "rows": [
                # The second row builds on the first, which is listed after it.
                {
                    "name": "AT-LR",
                    "choose": {"gamma": [0.1, 5.0]},
                    "defence": {
                        "name": "layer-regularised",
                        "base": "$AT",
                        "layers": ["elu3"],
                        "gamma": "$gamma",
                        "measure": "centred",
                    },
                },
                {
                    "name": "AT",
                    "defence": {"name": "at", "attack": {"name": "fgsm", "threat": {"eps": 0.1, "box": None}}},
                },
            ],
        },
        "scales": {"small": {"setups": {"A": {"training": {"epochs": 3}}}, "note": "A third."}, "full": {}},
    },
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The claim reproduced, and where."""
    folder = tmp_path_factory.mktemp("claims")
    (folder / "mini.yaml").write_text(yaml.safe_dump(RECIPE))
    returned = reproduce(str(folder / "mini.yaml"), **options(folder, resume=False))
    written = json.loads((folder / "claims" / "mini.json").read_text())
    assert written == json.loads(json.dumps(returned))
    return folder, written


def options(folder, **changes):
    usual = {"seeds": 2, "workers": 0, "out": folder / "claims", "work": folder / "work", "resume": True}
    return {**usual, "document": folder / "docs" / "claims.md", **changes}


def kept(folder):
    return [json.loads(path.read_text()) for path in sorted((folder / "work").glob("*.json"))]


def test_every_network_is_kept_once(done):
    folder, _ = done
    jobs = [entry["job"] for entry in kept(folder)]
    test = [job for job in jobs if job["split"] == "test"]
    val = [job for job in jobs if job["split"] == "val"]
    assert len(test) == 2 * 2  # rows x seeds
    assert len(val) == 2 * 2 + 2 * 2  # noises x seeds, gammas x seeds
    assert {job["seed"] for job in test}.isdisjoint(job["seed"] for job in val)
    assert {job["setup"]["training"]["epochs"] for job in jobs} == {3}


def test_choices_are_the_best_on_validation_data(done):
    folder, claim = done
    noise, gamma = claim["sweeps"]
    val = [entry for entry in kept(folder) if entry["job"]["split"] == "val"]

    def scores(pick):
        sums = [sum(next(iter(e["result"]["accuracy"].values()))) for e in val if pick(e["job"])]
        assert len(sums) == 2
        return sum(sums) / 2

    for entry in gamma["tried"]:
        mine = scores(lambda job, g=entry["choice"]["gamma"]: job["defence"].get("gamma") == g)
        assert entry["score"] == pytest.approx(mine)
    assert gamma["chosen"]["score"] == max(entry["score"] for entry in gamma["tried"])
    for entry in noise["tried"]:
        runs = [
            e["result"]["accuracy"]["FGSM"]
            for e in val
            if "gamma" not in e["job"]["defence"]
            and e["job"]["setup"]["source"]["data_args"]["noise"] == entry["choice"]["noise"]
        ]
        means = [sum(column) / 2 for column in zip(*runs, strict=True)]
        assert entry["score"] == pytest.approx(-(abs(means[0] - 90) + abs(means[1] - 70)) / 2)
    assert noise["chosen"]["score"] == max(entry["score"] for entry in noise["tried"])
    chosen = noise["chosen"]["choice"]["noise"]
    assert claim["setups"]["A"]["source"]["data_args"]["noise"] == chosen
    assert all(
        entry["job"]["setup"]["source"]["data_args"]["noise"] == chosen
        for entry in kept(folder)
        if entry["job"]["split"] == "test"
    )


def test_rows_and_checks_follow_from_the_single_networks(done):
    folder, claim = done
    runs = {}
    for entry in kept(folder):
        if entry["job"]["split"] == "test":
            name = "AT-LR" if "gamma" in entry["job"]["defence"] else "AT"
            runs[name, entry["job"]["seed"]] = entry["result"]["accuracy"]
    assert [row["name"] for row in claim["rows"]] == ["AT-LR", "AT"]
    size = sum(weight.numel() for weight in models.create("lsa-a", width=8).parameters())
    for row in claim["rows"]:
        assert row["parameters"] == size
        for label in ("FGSM", "PGD-3 x 2"):
            mine = [runs[row["name"], seed][label] for seed in (0, 1)]
            assert row["accuracy"][label]["0"]["seeds"] == [mine[0][0], mine[1][0]]
            assert row["accuracy"][label]["0.2"]["mean"] == pytest.approx((mine[0][1] + mine[1][1]) / 2)
            assert row["accuracy"][label]["R&G"]["seeds"] == pytest.approx([sum(mine[0]), sum(mine[1])])
    first, second = claim["checks"]
    for label in ("FGSM", "PGD-3 x 2"):
        seeds = [sum(runs["AT-LR", s][label]) - sum(runs["AT", s][label]) for s in (0, 1)]
        assert first["under"][label]["seeds"] == pytest.approx(seeds)
        mean, half = sum(seeds) / 2, 12.706 * abs(seeds[0] - seeds[1]) / 2  # t of one degree of freedom; sd / sqrt(2)
        assert first["under"][label]["mean"] == pytest.approx(mean)
        assert first["under"][label]["high"] == pytest.approx(mean + half, rel=1e-3)
        at = [runs["AT", s][label][1] - runs["AT-LR", s][label][1] for s in (0, 1)]
        assert second["under"][label]["seeds"] == pytest.approx(at)
    assert first["published"] == pytest.approx(6.0)
    assert second["published"] == pytest.approx(-5.0)
    (pair,) = claim["regularised"]
    assert (pair["row"], pair["base"], pair["measure"]) == ("AT-LR", "AT", "centred")
    assert pair["under"]["FGSM"] == {k: v for k, v in first["under"]["FGSM"].items() if k != "verdict"}


def test_the_record_says_how_it_was_made(done):
    _, claim = done
    assert claim["note"] == "A third."
    assert (claim["scale"], claim["seeds"], claim["recipe"]) == ("small", 2, "mini")
    assert set(claim["verdicts"]) == {"FGSM", "PGD-3 x 2"}
    assert claim["verdict"] == claim["verdicts"]["FGSM"]
    assert claim["versions"]["torch"]
    assert claim["cpus"] >= 1
    assert claim["commit"]
    assert claim["command"] == "buttress reproduce mini --scale small --seeds 2"
    jobs = claim["job_seconds"]
    assert 0 < jobs < math.inf


def test_an_interrupted_reproduction_goes_on(done, monkeypatch):
    folder, claim = done
    files = sorted((folder / "work").glob("*.json"))
    before = {path: path.read_text() for path in files}
    files[0].unlink()
    files[1].write_text("{")  # cut off
    run = []
    monkeypatch.setattr(work_module, "run_job", lambda job, *where: run.append(job) or run_job(job, *where))
    again = reproduce(str(folder / "mini.yaml"), **options(folder))
    assert len(run) == 2
    for path in files:
        assert json.loads(path.read_text())["job"] == json.loads(before[path])["job"]
        assert json.loads(path.read_text())["result"]["accuracy"] == json.loads(before[path])["result"]["accuracy"]
    assert again["rows"][0]["accuracy"] == claim["rows"][0]["accuracy"]
    assert again["checks"] == claim["checks"]


def test_workers_give_the_same_numbers_as_this_process(done):
    folder, claim = done
    victim = next(path for path in sorted((folder / "work").glob("*.json")))
    accuracy = json.loads(victim.read_text())["result"]["accuracy"]
    victim.unlink()
    again = reproduce(str(folder / "mini.yaml"), **options(folder, workers=1))
    assert json.loads(victim.read_text())["result"]["accuracy"] == accuracy
    assert again["checks"] == claim["checks"]


def test_nothing_of_somebody_elses_is_overwritten(tmp_path):
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "claims").mkdir()
    foreign = tmp_path / "claims" / "mini.json"
    foreign.write_text('{"mine": 1}')
    with pytest.raises(UserError, match=r"mini\.json is no result of a claim"):
        reproduce(str(tmp_path / "mini.yaml"), **options(tmp_path))
    foreign.rename(tmp_path / "notes.md")
    with pytest.raises(UserError, match="is no page of claims"):
        reproduce(str(tmp_path / "mini.yaml"), **options(tmp_path, document=tmp_path / "notes.md"))
    assert (tmp_path / "notes.md").read_text() == '{"mine": 1}'
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": False}, "go on with what is in it"),
        ({"seeds": 0}, "seeds must be a whole number of 1 or more"),
        ({"scale": "smal"}, "did you mean 'small'"),
        ({"workers": -1}, "workers must be a whole number of 0 or more"),
    ],
)
def test_wrong_options_are_answered_before_anything_runs(done, changes, message):
    folder, _ = done
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(UserError, match=message):
        reproduce(str(folder / "mini.yaml"), **options(folder, **changes))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def changed(path, value):
    """The recipe with one entry of its claim replaced."""
    tree = json.loads(json.dumps(RECIPE))
    place = tree["claim"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["checks"], [], "at least one"),
        (["checks", 0, "better"], "AT-RL", "did you mean 'AT-LR'"),
        (["checks", 0, "at"], 0.3, "at must be one of R&G, 0, 0.2"),
        (["published", "AT"], [1.0], "needs a number for each"),
        (["experiment", "rows", 0, "defence", "base"], "$TA", "a blank .TA that nothing fills"),
        (["experiment", "rows", 1, "defence"], "$AT-LR", "in a circle"),
        (["experiment", "rows", 1, "setup"], "Z", "no setup 'Z'"),
        (["experiment", "match"], None, "setups have a blank .noise"),
        (["experiment", "match", "row"], "Normal", "there is no row 'Normal'"),
        (["experiment", "sweeep"], {}, "did you mean 'sweep'"),
    ],
)
def test_a_wrong_claim_is_answered_before_anything_runs(tmp_path, path, value, message):
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(changed(path, value)))
    settings = options(tmp_path)
    if message == "in a circle":  # found after the noise has been matched
        tree = changed(path, value)
        tree["claim"]["experiment"] |= {"match": None, "setups": {"A": {"source": {"data": "moons"}}}}
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=message):
        reproduce(str(tmp_path / "wrong.yaml"), **settings)
    assert not (tmp_path / "claims").exists()
    assert not (tmp_path / "work").exists()


def test_a_recipe_without_a_claim_names_those_that_have_one(tmp_path):
    with pytest.raises(UserError, match=r"'demo' holds no claim: buttress list recipes"):
        reproduce("demo", **options(tmp_path))
