"""`fit`: reproducible, leaves the world alone, keeps the best weights by validation, answers bad input by name."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

from buttress.data.dataset import Dataset
from buttress.defences import Defence, Loss
from buttress.defences.standard import Standard
from buttress.defences.trades import TRADES
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.training import Optimiser, fit
from buttress.training import loop as loop_file
from buttress.training.validation import Validation, default_attack, validate


def test_the_same_seed_gives_the_same_bits_and_another_does_not(network, images, train, same):
    """With augmentation, dropout, BatchNorm and random starts, whatever the global random state is."""
    runs = []
    for start, seed in ((1, 3), (2, 3), (1, 4)):
        with torch.random.fork_rng([]):
            torch.manual_seed(start)
            runs.append(train(network(), images, seed=seed))
    same(runs[0].model.state_dict(), runs[1].model.state_dict())
    same(runs[0].history, runs[1].history)
    assert not torch.equal(runs[0].model[0].weight, runs[2].model[0].weight)


def test_random_states_are_left_alone(network, images, train, tmp_path, same):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002  (is looked at)
    train(network(), images, epochs=1, out=tmp_path / "run")
    after = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002  (is looked at)
    same(before[0], after[0])
    assert before[1] == after[1]
    np.testing.assert_equal(before[2], after[2])


def test_the_result_is_the_callers_module_in_eval_mode_and_nothing_is_written(network, images, train, tmp_path):
    model = network()
    trained = train(model, images, epochs=1)
    assert trained.model is model
    assert not any(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_the_caller_left_behind_does_not_count(network, images, train, same):
    clean, used = network(), network()
    for p in used.parameters():
        p.grad = torch.full_like(p, 1e3)
    same(train(used, images, epochs=1).model.state_dict(), train(clean, images, epochs=1).model.state_dict())


def test_frozen_weights_stay(network, images, train):
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    train(model, images, epochs=1)
    assert torch.equal(model[0].weight, before)


class Recorded(Dataset):
    """A data set whose test split cannot be looked at once it is made."""

    def __getattribute__(self, name):
        if name in ("test", "splits") and "sealed" in object.__getattribute__(self, "__dict__"):
            raise AssertionError("training looked at the test split")
        return object.__getattribute__(self, name)


def test_the_test_split_is_never_touched(mlp, points, train, tmp_path):
    sealed = Recorded(**{f.name: getattr(points, f.name) for f in dataclasses.fields(points)})
    object.__setattr__(sealed, "sealed", True)
    with pytest.raises(AssertionError, match="looked at the test split"):
        _ = sealed.test
    assert len(train(mlp(), sealed, out=tmp_path / "run").history) == 3


def scripted(monkeypatch, *found):
    answers = iter(Validation(clean, robust) for clean, robust in found)
    monkeypatch.setattr(loop_file, "validate", lambda *_: next(answers))


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([(0.5, 0.1), (0.6, 0.4), (0.9, 0.3)], 2),  # robust accuracy counts, not clean
        ([(0.5, 0.4), (0.6, 0.4), (0.55, 0.4)], 2),  # clean accuracy decides between equals
        ([(0.5, 0.4), (0.5, 0.4), (0.5, 0.4)], 1),  # the first of equals
        ([(0.5, None), (0.4, None), (0.6, None)], 3),  # clean accuracy where nothing attacks
    ],
)
def test_the_best_epoch_by_robust_accuracy_is_kept(found, best, monkeypatch, mlp, points, train, same, tmp_path):
    scripted(monkeypatch, *found)
    kept = train(mlp(), points, out=tmp_path / "run")
    assert kept.best_epoch == best
    assert [(row["clean"], row.get("robust")) for row in kept.history] == found
    scripted(monkeypatch, *found)
    last = train(mlp(), points, keep="last", resume=True, out=tmp_path / "run")
    scripted(monkeypatch, *found)
    alone = train(mlp(), points, epochs=3, keep="last")
    same(last.model.state_dict(), alone.model.state_dict())
    if best < 3:
        weights = []

        def noted(*_):
            weights.append({k: v.clone() for k, v in model.state_dict().items()})
            return Validation(0.0, 0.0)

        model = mlp()
        monkeypatch.setattr(loop_file, "validate", noted)
        train(model, points)
        same(dict(kept.model.state_dict()), weights[best - 1])


def test_a_network_that_breaks_late_is_not_what_is_kept(mlp, points, train):
    class Late(Standard):
        """Standard training that turns the answers round in the last step."""

        def step(self, step):
            super().step(step)
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 20:
                with torch.no_grad():
                    step.model.fc2.weight.neg_()
                    step.model.fc2.bias.neg_()

    found = train(mlp(), points, Late(), epochs=4)
    assert found.best_epoch < 4
    assert found.history[-1]["clean"] < 0.5 < found.history[found.best_epoch - 1]["clean"]
    right = (found.model(points.val.x).argmax(1) == points.val.y).float().mean()
    assert float(right) == pytest.approx(found.history[found.best_epoch - 1]["clean"])


def test_validation_counts_right_answers_clean_and_attacked(mlp, points, attack, train):
    model = train(mlp(), points, Standard(), optimiser=Optimiser(lr=0.1)).model
    found = validate(model, points.val, attack, 0, torch.device("cpu"))
    clean = (model(points.val.x).argmax(1) == points.val.y).float().mean()
    result = attack(model, points.val.x, points.val.y, seed=0, ids=points.val.ids, search="first")
    assert found.clean == pytest.approx(float(clean))
    assert found.robust == pytest.approx(float((~result.success).float().mean()))
    assert found.robust < found.clean


def test_the_attack_of_validation_is_pgd_10_in_the_threat_of_training(attack):
    threat = Threat(eps=0.3)
    chosen = default_attack(TRADES(threat))
    assert (type(chosen).__name__, chosen.threat, chosen.steps, chosen.loss) == ("PGD", threat, 10, None)
    assert default_attack(Standard()) is None


def test_history_and_progress_tell_losses_and_accuracies(mlp, points, train):
    seen = []
    threat = Threat(eps=0.1, box=None)
    progress = lambda done, figures: seen.append((done, dict(figures)))  # noqa: E731  (short)
    trained = train(mlp(), points, TRADES(threat, steps=2, beta=2.0), progress=progress)
    for row in trained.history:
        assert list(row) == ["epoch", "loss", "natural", "boundary", "clean", "robust"]
        assert row["loss"] == pytest.approx(row["natural"] + 2.0 * row["boundary"], rel=1e-5)
    done = [share for share, _ in seen]
    assert done == sorted(done)
    assert done[0] == pytest.approx(1 / 15)
    assert done[-1] == 1.0
    assert seen[0][1] == {}
    assert seen[-1][1] == trained.history[-1]


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_train_to_finite_weights(precision, network, images, train):
    plain = train(network(), images, epochs=1)
    found = train(network(), images, epochs=1, precision=precision)
    state = found.model.state_dict()
    assert all(torch.isfinite(v).all() for v in state.values())
    assert state["0.weight"].dtype == (torch.float64 if precision == "64-true" else torch.float32)
    assert found.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.05)
    assert found.history[0]["loss"] != plain.history[0]["loss"]


def test_a_float64_network_is_trained_as_it_is(network, images, train):
    found = train(network().double(), images, epochs=1)
    assert found.model[0].weight.dtype == torch.float64


class Broken(Defence):
    """Cross-entropy that stops to be a number at one step."""

    def loss(self, model, batch, context):
        value = nn.functional.cross_entropy(context.clean(batch.x), batch.y)
        return Loss(value * float("nan") if context.index == 7 else value)


def test_a_loss_that_is_not_finite_is_told_and_the_checkpoint_is_good(mlp, points, train, state_of, tmp_path, same):
    line = r"the loss is nan at step 7 \(epoch 2\): training diverged; lower the learning rate \(--"
    with pytest.raises(UserError, match=line):
        train(mlp(), points, Broken(), out=tmp_path / "run")
    weights, _, progress = state_of(tmp_path / "run")
    assert progress["index"] == 5
    assert all(torch.isfinite(v).all() for v in weights.values())
    with pytest.raises(UserError, match=line):
        train(mlp(), points, Broken(), out=tmp_path / "run", resume=True)
    same(state_of(tmp_path / "run")[0], weights)


@pytest.mark.parametrize("out", [True, False])
def test_weights_that_are_not_finite_are_never_kept(out, mlp, points, train, state_of, tmp_path):
    class Poisoned(Standard):
        """The loss stays finite, the last step of the second epoch writes what is no number."""

        def step(self, step):
            super().step(step)
            self.steps = getattr(self, "steps", 0) + 1
            if self.steps == 10:
                step.model.fc1.weight.data[0, 0] = float("inf")

    with pytest.raises(UserError, match=r"weight 'model\.fc1\.weight' is not finite at step 10"):
        train(mlp(), points, Poisoned(), out=tmp_path / "run" if out else None)
    if out:
        weights, _, progress = state_of(tmp_path / "run")
        assert progress["index"] == 5
        assert all(torch.isfinite(v).all() for v in weights.values())


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"epochs": 0}, "epochs must be a whole number of 1 or more; got 0"),
        ({"resume": True}, "resuming needs the run's output folder; got none"),
        ({"clip": 0.0}, "clip must be a number above 0; got 0.0"),
        ({"keep": "first"}, "keep must be one of best, last; got 'first'"),
        ({"validate_with": "pgd"}, "validate_with must be an attack, auto or none; got 'pgd'"),
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more; got 0"),
        ({"average": 1.5}, "the moving average's decay must be a number in (0, 1); got 1.5"),
        ({"accelerator": "abacus"}, "accelerator must be one of auto, cpu, cuda, mps; got 'abacus'"),
        ({"precision": "7-bit"}, "precision '7-bit' cannot be had"),
    ],
)
def test_settings_that_mean_nothing_are_one_line_and_claim_no_folder(options, line, mlp, points, train, tmp_path):
    out = {} if options.get("resume") else {"out": tmp_path / "run"}
    with pytest.raises(UserError) as caught:
        train(mlp(), points, **out, **options)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_model_without_weights_is_refused(points, train):
    with pytest.raises(UserError, match="no parameters that can be trained"):
        train(nn.Identity(), points, Standard())


@pytest.mark.parametrize("defence", [None, Standard()])
@pytest.mark.parametrize(
    ("last", "line"),
    [
        (nn.Linear(36, 3), "labels must be 0 to 2, the model's classes; got 0 to 3"),
        (nn.Sequential(nn.Linear(36, 4), nn.Softmax(1)), "the model returns probabilities"),
        (nn.Identity(), "no parameters"),
        (nn.LSTM(36, 4), "the model must return logits (inputs, classes); it returned a tuple"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_told_before_anything_is_kept(
    last, line, defence, images, train, tmp_path
):
    with pytest.raises(UserError) as caught:
        train(nn.Sequential(nn.Flatten(), last), images, defence, out=tmp_path / "run")
    assert line in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_mixed_precision_does_not_round_the_inputs_that_a_defence_sees(mlp, points):
    """Perturbed inputs are crafted from the batch as it is, so the clean ones beside them are that batch, too."""
    seen = []

    class Looking(Standard):
        def loss(self, model, batch, context):
            seen.append(batch.x.dtype is torch.float32 and torch.equal(batch.x, context.batch.x))
            return super().loss(model, batch, context)

    fit(mlp(), points, Looking(), epochs=1, precision="bf16-mixed", validate_with="none")
    assert seen
    assert all(seen)


def test_a_figure_that_some_updates_log_is_the_mean_over_those(mlp, points):
    class Twice(Standard):
        def step(self, step):
            step.update(step.loss())
            loss = step.loss()
            step.update(Loss(loss.value, {"late": torch.tensor(3.0)}))

    (row,) = fit(mlp(), points, Twice(), epochs=1, validate_with="none").history
    assert row["late"] == 3.0
