"""A run's folder: whose it is, and the model back from it."""

import json

import pytest
import torch
from torch import nn

from buttress import load, models
from buttress.data.sets.moons import moons
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.training import Interrupted, Optimiser, read_facts, run_folder, versions
from buttress.training.cost import read_cost


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_model_of_ours_comes_back_by_itself(mlp, points, train, same, tmp_path):
    trained = train(mlp(), points, out=tmp_path / "run", facts={"note": "first"})
    again = load(tmp_path / "run")
    same(again.state_dict(), trained.model.state_dict())
    assert not any(m.training for m in again.modules())
    same(again(points.val.x), trained.model(points.val.x))
    facts = read_facts(tmp_path / "run")
    expected = {"data": "moons", "classes": ["upper", "lower"], "seed": 3, "note": "first"}
    assert {key: facts[key] for key in expected} == expected
    assert facts["best_epoch"] == trained.best_epoch
    assert json.loads((tmp_path / "run" / "run.json").read_text())["versions"] == versions("cpu")


def test_a_model_of_the_users_own_needs_its_module(network, images, train, same, tmp_path):
    trained = train(network(), images, out=tmp_path / "run", epochs=1)
    with pytest.raises(UserError, match=r"not made by models\.create: give the module, load\(folder, model\)"):
        load(tmp_path / "run")
    given = network(seed=9)
    assert load(tmp_path / "run", given) is given
    same(given.state_dict(), trained.model.state_dict())
    with pytest.raises(UserError, match="does not fit"):
        load(tmp_path / "run", nn.Linear(2, 2))


def test_the_last_weights_lie_beside_the_best(monkeypatch, mlp, points, train, same, tmp_path):
    last = train(mlp(), points, keep="last")
    train(mlp(), points, out=tmp_path / "run")
    model = mlp(seed=4)
    models.load_weights(model, tmp_path / "run" / "last.safetensors")
    same(model.state_dict(), last.model.state_dict())


def test_nothing_and_unfinished_runs_are_told_apart(mlp, points, train, stop_at, tmp_path):
    with pytest.raises(UserError, match=r"holds no trained model \(no run is there\)"):
        load(tmp_path)
    with pytest.raises(Interrupted):
        train(mlp(), points, out=tmp_path / "run", progress=stop_at(2))
    with pytest.raises(UserError, match=r"holds no trained model \(its run is not finished: resume it\)"):
        load(tmp_path / "run")


def test_a_run_says_what_its_training_took(mlp, points, train, tmp_path):
    threat = Threat(eps=0.1, box=None)
    train(mlp(), points, TRADES(threat, steps=2), out=tmp_path / "run", epochs=3)
    told = read_cost(tmp_path / "run")
    assert (told["inputs"], told["epochs"]) == (len(points.train), 3)
    assert told["passes"] == 3 * (2 * 2 + 1 + 4)  # two steps, their reference, and two passes of each kind
    assert told["relative"] == 4.5
    assert told["seconds"] > 0
    assert told["preparing"] >= 0
    before = (tmp_path / "run" / "cost.json").read_bytes()
    train(mlp(), points, TRADES(threat, steps=2), out=tmp_path / "run", epochs=3, resume=True)
    assert (tmp_path / "run" / "cost.json").read_bytes() == before


def test_time_is_counted_on_after_an_interruption(mlp, points, train, stop_at, tmp_path):
    with pytest.raises(Interrupted):
        train(mlp(), points, out=tmp_path / "run", progress=stop_at(2))
    (tmp_path / "run" / "cost.json").write_text('{"seconds": 1000.0}')
    train(mlp(), points, out=tmp_path / "run", resume=True)
    assert 1000 < read_cost(tmp_path / "run")["seconds"] < 2000


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"seconds": "a"}'])
def test_a_damaged_record_of_the_time_is_as_none(tmp_path, text):
    (tmp_path / "cost.json").write_text(text)
    assert read_cost(tmp_path) == {}


def test_damaged_files_of_a_run_are_told(mlp, points, train, tmp_path):
    train(mlp(), points, out=tmp_path / "run", epochs=1)
    file = tmp_path / "run" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="no whole safetensors file"):
        load(tmp_path / "run")
    (tmp_path / "run" / "model.json").write_text("{")
    with pytest.raises(UserError, match=r"model\.json cannot be read"):
        load(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"run\.json cannot be read: choose another output folder"):
        train(mlp(), points, out=tmp_path / "run", epochs=1, resume=True)


@pytest.mark.parametrize("text", ["{}", "[]", "null", "3", '{"source": {}}', '{"model": null, "source": 3}'])
def test_a_model_json_of_another_form_is_told(mlp, points, train, tmp_path, text):
    train(mlp(), points, out=tmp_path / "run", epochs=1)
    (tmp_path / "run" / "model.json").write_text(text)
    with pytest.raises(UserError, match=r"model\.json does not say how the network is made"):
        load(tmp_path / "run")


@pytest.mark.parametrize("text", ["{}", "[]", "null", "3"])
@pytest.mark.parametrize("name", ["run.json", "progress.json"])
def test_a_run_whose_files_have_another_form_is_not_resumed(mlp, points, train, tmp_path, name, text):
    train(mlp(), points, out=tmp_path / "run", epochs=1)
    (file,) = (tmp_path / "run").rglob(name)
    file.write_text(text)
    with pytest.raises(UserError, match=r"cannot be read|is of another model or training method"):
        train(mlp(), points, out=tmp_path / "run", epochs=1, resume=True)


def test_a_folder_with_a_run_is_not_written_to_again(mlp, points, train, tmp_path):
    train(mlp(), points, out=tmp_path / "run", epochs=1)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds a run already: resume it"):
        train(mlp(), points, out=tmp_path / "run", epochs=1)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_foreign_files_is_left_alone(resume, mlp, points, train, tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match="exists and holds no run of ours: choose an empty or new output folder"):
        train(mlp(), points, out=tmp_path, resume=resume)
    with pytest.raises(UserError, match=r"nothing can be written to .*thesis.tex: it is a file"):
        train(mlp(), points, out=tmp_path / "thesis.tex", resume=resume)
    assert {p.name: text for p, text in contents(tmp_path).items()} == {"thesis.tex": b"all of it"}


def test_an_empty_folder_and_one_of_a_run_killed_at_birth_are_free(mlp, points, train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".run.json.tmp").write_text('{"sett')
    assert train(mlp(), points, out=tmp_path / "run", resume=True, epochs=1).best_epoch == 1


CHANGES = {
    "seed": {"seed": 4},
    "epochs": {"epochs": 2},
    "batch_size": {"batch_size": 10},
    "optimiser": {"optimiser": Optimiser(lr=0.02)},
    "clip": {"clip": 1.0},
    "average": {"average": 0.9},
    "precision": {"precision": "bf16-mixed"},
    "validate_with": {"validate_with": "none"},
    "validate_on": {"validate_on": 5},
}


@pytest.mark.parametrize("name", CHANGES)
def test_resuming_with_another_setting_names_it(name, mlp, points, train, stop_at, tmp_path):
    with pytest.raises(Interrupted):
        train(mlp(), points, out=tmp_path / "run", progress=stop_at(2))
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"holds a run with {name}\S* .*resume with the same settings"):
        train(mlp(), points, out=tmp_path / "run", resume=True, **CHANGES[name])
    assert contents(tmp_path) == before


def test_resuming_with_another_model_data_or_defence_names_it(mlp, points, train, stop_at, tmp_path):
    threat = Threat(eps=0.1, box=None)
    with pytest.raises(Interrupted):
        train(mlp(), points, TRADES(threat, beta=2.0), out=tmp_path / "run", progress=stop_at(2))
    others = {
        "model": (models.create("mlp", hidden=[9]), points, TRADES(threat, beta=2.0)),
        "content": (mlp(), moons(samples=60, val=20, test=4, noise=0.3), TRADES(threat, beta=2.0)),
        "inputs": (mlp(), moons(samples=70, val=20, test=4), TRADES(threat, beta=2.0)),
        "defence": (mlp(), points, TRADES(threat, beta=3.0)),
    }
    for name, (model, data, defence) in others.items():
        with pytest.raises(UserError) as caught:
            train(model, data, defence, out=tmp_path / "run", resume=True)
        assert ("content" if name == "inputs" else name) in str(caught.value).split(" the settings now have")[0]


def test_a_run_that_recorded_classes_by_their_modules_goes_on(mlp, points, train, stop_at, tmp_path, same):
    """As earlier versions did."""
    defence, mark = TRADES(Threat(eps=0.1, box=None)), tmp_path / "run" / "run.json"
    whole = train(mlp(), points, defence, out=tmp_path / "whole").model.state_dict()
    with pytest.raises(Interrupted):
        train(mlp(), points, defence, out=tmp_path / "run", progress=stop_at(2))
    mark.write_text(mark.read_text().replace('"buttress.TRADES"', '"buttress.defences.trades.TRADES"'))
    assert "defences.trades" in mark.read_text()
    same(whole, train(mlp(), points, defence, out=tmp_path / "run", resume=True).model.state_dict())


def test_a_checkpoint_of_another_network_of_the_same_name_is_told(points, train, stop_at, tmp_path):
    def own(width):
        return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 2))

    with pytest.raises(Interrupted):
        train(own(4), points, Standard(), out=tmp_path / "run", progress=stop_at(2))
    with pytest.raises(UserError, match=r"is of another model or training method: .*size mismatch") as caught:
        train(own(5), points, Standard(), out=tmp_path / "run", resume=True)
    assert "\n" not in str(caught.value)


def test_versions_name_what_ran():
    assert versions()["torch"] == torch.__version__


def test_versions_name_the_device_that_ran_and_not_the_one_that_exists(points, train, mlp, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"GPU {device}")
    assert "device" not in versions()  # nobody said
    assert versions("cpu")["device"] == "CPU"
    assert versions(torch.device("cuda:1"))["device"] == "GPU cuda:1"
    assert versions("meta")["device"] == "META"
    train(mlp(), points, out=tmp_path / "run", epochs=1, accelerator="cpu")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["versions"]["device"] == "CPU"


def test_what_loggers_left_of_a_run_that_came_to_nothing_is_cleared_away(tmp_path):
    (tmp_path / "wandb").mkdir()
    for name in (run_folder.MARK, run_folder.LOGGED, "wandb/debug.log"):
        (tmp_path / name).write_text("{}")
    run_folder.release_run(tmp_path)
    assert list(tmp_path.iterdir()) == []
    for name in (run_folder.MARK, run_folder.LOGGED, "metrics.csv"):
        (tmp_path / name).write_text("{}")
    run_folder.release_run(tmp_path)  # figures are there
    assert len(list(tmp_path.iterdir())) == 3
