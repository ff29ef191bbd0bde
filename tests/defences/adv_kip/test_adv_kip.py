"""Learned training sets: how they are learned, what a network makes of them, and their files."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from buttress import data, models
from buttress.attacks.corruptions.noises import Gaussian
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Split
from buttress.defences import Batch
from buttress.defences.adv_kip.defence import AdvKIP, normalisation, probabilities
from buttress.defences.adv_kip.files import free_id, grid, learned, read_set, write_picture, write_set
from buttress.defences.adv_kip.kernel_inducing_points import (
    LearningSettings,
    balanced_rows,
    first_points,
    learn,
    outer_loss,
    predictor,
    squared_error,
)
from buttress.errors import UserError
from buttress.models.blocks.kernel_regression import Kernel, KernelRegression, centred
from buttress.random import derive
from buttress.threat import Threat

FACTORY = "buttress.models.blocks.kernel_regression:kernel_regression"
ATTACK = PGD(threat=Threat(eps=0.1), steps=3)
NONE = PGD(threat=Threat(eps=0.0), steps=3)
AS_IT_IS = nn.Identity()


class Refusing(PGD):
    """An attack that must not run."""

    def perturb(self, oracle, x, y, random):
        raise UserError("it ran")


def recipe(**changes):
    usual = {"attack": ATTACK, "inner": "own", "points": 8, "steps": 6, "batch": 36, "lr": 0.02, "learn_labels": False}
    return LearningSettings(**{"kernel": Kernel(), **usual, **changes})


def learned_set(images, view=AS_IT_IS, seed=0, **changes):
    return learn(images.train, 4, recipe(**changes), box=images.box, view=view, seed=seed)


def flat_split(images):
    x, y, ids = images.train.take(torch.arange(36))
    return Split(x.flatten(1), y, ids)


@pytest.fixture
def kernel():
    def make(points=8, **options):
        return models.create(FACTORY, features=36, classes=4, points=points, seed=0, **options)

    return make


@pytest.mark.parametrize("attack", [ATTACK, NONE])
@pytest.mark.parametrize("learn_labels", [False, True])
def test_learning_equals_its_loop(attack, learn_labels, images):
    """Attack on the regression of the present set, a constant; Adam on half the mean squared error; clipped."""
    found = learned_set(images, attack=attack, learn_labels=learn_labels, seed=5, steps=3)
    split, kernel = images.train, Kernel()
    x0, y0, _ = split.take(first_points(split, 4, 8, derive(5, "points")))
    s = x0.double().requires_grad_()
    t = (F.one_hot(y0, 4).double() - 0.25).requires_grad_(learn_labels)
    optimizer = torch.optim.Adam([s, t] if learn_labels else [s], lr=0.02)
    values = []
    for step in range(3):
        x, y, ids = split.take(balanced_rows(split.y, 4, 36, derive(5, "target", step)))
        model = KernelRegression(s.detach(), t.detach())
        if attack is ATTACK:
            # on the regression in float64, whose inputs and outputs are float32
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            x = ATTACK.craft(lambda z, model=model: model(z), x, y, seed=derive(5, "attack", step), ids=ids)
        gram = kernel(s, s)
        gram = gram + 1e-6 * gram.trace() / 8 * torch.eye(8, dtype=torch.float64)
        outputs = kernel(x.double(), s) @ torch.linalg.inv(gram) @ t
        value = 0.5 * ((outputs - (F.one_hot(y, 4).double() - 0.25)) ** 2).mean()
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        with torch.no_grad():
            s.clamp_(0, 1)
    torch.testing.assert_close(found.outer, torch.tensor(values), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.images, s.detach().float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.labels, t.detach().float(), rtol=1e-5, atol=1e-6)


def test_the_outer_gradient_is_that_of_finite_differences():
    random = torch.Generator().manual_seed(0)
    s, x = (torch.rand(n, 5, generator=random, dtype=torch.float64) for n in (4, 6))
    labels, y = centred(torch.tensor([0, 1, 0, 1]), 2), torch.tensor([0, 1, 1, 0, 1, 0])
    s, labels = s.requires_grad_(), labels.requires_grad_()
    kernel = Kernel(ridge=1e-3)
    assert torch.autograd.gradcheck(lambda a, b: outer_loss(kernel, a, b, AS_IT_IS, x, y), (s, labels))


def test_the_objective_falls_and_the_attacked_one_gives_the_more_robust_kernel(images):
    """At the budget that one of them was learned for, on the inputs that it was learned from."""
    accuracy, threat = {}, Threat(eps=0.15)
    x, y, _ = images.train.take(torch.arange(36))
    for name, attack in (("kip", NONE), ("adv-kip", PGD(threat=threat, steps=3))):
        found = learned_set(images, attack=attack, steps=60)
        assert found.outer[-1] < 0.8 * found.outer[0]
        model = predictor(Kernel(), found.images, found.labels, AS_IT_IS)
        attacked = PGD(threat=threat, steps=10)(model, x, y)
        accuracy[name] = 1 - float(attacked.success.double().mean())
    assert accuracy["adv-kip"] > accuracy["kip"] + 0.25


def test_no_budget_means_no_attack(images):
    learned_set(images, attack=Refusing(threat=Threat(eps=0.0), steps=1))
    with pytest.raises(UserError, match="it ran"):
        learned_set(images, attack=Refusing(threat=Threat(eps=0.1), steps=1))


def test_the_squared_error_can_lead_the_attack(images):
    outputs = torch.tensor([[0.5, 0.0], [0.1, -0.2]], dtype=torch.float64)
    by_hand = torch.tensor([0.25 * (0.0**2 + 0.5**2), 0.25 * (0.6**2 + 0.7**2)], dtype=torch.float64)
    torch.testing.assert_close(squared_error(outputs, torch.tensor([0, 1])), by_hand)
    own, mse = (learned_set(images, inner=inner) for inner in ("own", "mse"))
    assert own.outer[0] != mse.outer[0]
    told = learned_set(images, attack=PGD(threat=Threat(eps=0.1), steps=3, loss=squared_error))
    torch.testing.assert_close(mse.images, told.images, rtol=0, atol=0)


def test_the_set_stays_in_the_box(images):
    found = learned_set(images, lr=0.5)
    assert found.images.dtype == torch.float32
    assert found.images.min() == 0
    assert found.images.max() == 1


def test_labels_are_learned_where_asked_for(images):
    fixed, moving = learned_set(images), learned_set(images, learn_labels=True)
    torch.testing.assert_close(fixed.labels, centred(torch.arange(4).repeat_interleave(2), 4).float())
    assert (moving.labels - fixed.labels).abs().amax(1).min() > 0


def test_the_same_seed_gives_the_same_set(images, same):
    same(vars(learned_set(images, seed=3)), vars(learned_set(images, seed=3)))
    assert not torch.equal(learned_set(images, seed=3).images, learned_set(images, seed=4).images)


@pytest.mark.parametrize(("size", "each"), [(8, 2), (11, 2), (3, 1), (500, 20)])
def test_target_batches_are_balanced(size, each):
    y = torch.arange(4).repeat_interleave(torch.tensor([20, 10, 5, 1]))
    rows = balanced_rows(y, 4, size, 0)
    assert torch.bincount(y[rows]).tolist() == [each] * 4
    assert len(set(rows[y[rows] == 0].tolist())) == each, "a class that is large enough gives each row once"
    assert not torch.equal(rows, balanced_rows(y, 4, size, 1))


def test_the_set_begins_as_balanced_real_inputs():
    y = torch.arange(4).repeat_interleave(torch.tensor([20, 10, 5, 1]))
    split = Split(torch.zeros(36, 2), y, torch.arange(36))
    rows = first_points(split, 4, 10, 0)
    assert torch.bincount(y[rows]).tolist() == [3, 3, 2, 1]
    assert len(set(rows.tolist())) == 9
    assert y[rows].tolist() == sorted(y[rows].tolist())


def test_the_kernel_sees_what_the_network_sees(network, images):
    model = models.Normalized(network(), mean=0.3, std=0.5)
    view, inner = normalisation(models.Output(model, 0))
    x = torch.rand(2, 1, 6, 6)
    torch.testing.assert_close(view(x), (x - 0.3) / 0.5)
    assert inner is model.model
    found = learned_set(images, view=view, steps=2)
    defence = AdvKIP(ATTACK, points=8, steps=2, batch=36, lr=0.02)
    defence.prepare(model, images, 9)
    again = learned_set(images, view=view, steps=2, seed=derive(9, "adv-kip"))
    torch.testing.assert_close(defence.learned, again.images, rtol=0, atol=0)
    assert not torch.equal(found.outer, learned_set(images, steps=2).outer)


def test_the_data_are_the_set_and_real_inputs_for_the_rest(network, images):
    defence = AdvKIP(ATTACK, points=8, steps=2)
    found = defence.prepare(network(), images, 1)
    assert found.val is images.val
    assert found.test is images.test
    assert found.augment is None
    assert found.train.x.dtype == torch.float32
    assert torch.equal(found.train.x, defence.learned)
    assert found.train.y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found.train.ids.tolist() == list(range(64, 72)), "behind the ids of all three splits"


@pytest.mark.parametrize("objective", ["mse", "cross_entropy"])
@pytest.mark.parametrize("learn_labels", [False, True])
def test_the_loss_by_hand(objective, learn_labels, network, images, context):
    model = network(dropout=0.0, dtype=torch.float64)
    defence = AdvKIP(ATTACK, points=8, steps=3, learn_labels=learn_labels, objective=objective)
    defence.prepare(model, images, 1)
    x, y = torch.rand(4, 1, 6, 6, dtype=torch.float64), torch.tensor([0, 2, 3, 1])
    batch = Batch(x, y, torch.tensor([65, 69, 64, 3]))  # rows 1, 5 and 0 of the set, and a real input
    known = defence.targets.double()[[1, 5, 0]]
    labels = torch.cat([known, torch.tensor([[-0.25, 0.75, -0.25, -0.25]], dtype=torch.float64)])
    logits = copy.deepcopy(model)(x)
    if objective == "mse":
        expected = ((logits - labels) ** 2).sum() / 16
    else:
        shares = (labels + 0.25).clamp(min=0)
        expected = -(shares / shares.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(defence.loss(model, batch, context(model, batch)).value, expected, rtol=1e-5, atol=0)


def test_fixed_labels_are_one_hot_as_probabilities():
    y = torch.tensor([2, 0, 1])
    torch.testing.assert_close(probabilities(centred(y, 3)), F.one_hot(y, 3).double())
    assert probabilities(torch.full((1, 3), -1.0)).isfinite().all()


def test_a_kernel_as_the_model_holds_the_set(kernel, images, train, same):
    model = kernel(mean=0.4, std=0.5)
    trained = train(model, AdvKIP(ATTACK, points=8, steps=3, batch=36), epochs=2)
    defence = AdvKIP(ATTACK, points=8, steps=3, batch=36)
    defence.prepare(kernel(mean=0.4, std=0.5), images, 3)
    x = images.test.take(torch.arange(16))[0]
    expected = predictor(Kernel(), (defence.learned - 0.4) / 0.5, defence.targets, AS_IT_IS)((x - 0.4) / 0.5)
    torch.testing.assert_close(trained.model(x), expected, rtol=1e-3, atol=1e-4)
    same(model.model.labels.detach(), defence.targets)
    assert len(trained.history) == 2


def test_a_kernel_as_the_model_brings_its_own_kernel(kernel, images):
    sets = []
    for depth in (1, 3):
        defence = AdvKIP(ATTACK, points=8, steps=2)
        defence.prepare(kernel(depth=depth), images, 3)
        sets.append(defence.learned)
    assert not torch.equal(*sets)
    direct = AdvKIP(ATTACK, points=8, steps=2, kernel=Kernel(depth=1))
    direct.prepare(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), images, 3)
    assert torch.equal(direct.learned, sets[0])


def test_a_convolutional_kernel_learns_and_is_learned_for(kernel, images, network):
    """The same set whichever way the kernel is named; another than the fully connected kernel's."""
    conv = Kernel(kind="conv", depth=1)
    defence = AdvKIP(ATTACK, points=8, steps=4, batch=36, kernel=conv)
    defence.prepare(network(), images, 3)
    model = kernel(kernel="conv", depth=1)
    own = AdvKIP(ATTACK, points=8, steps=4, batch=36)
    own.prepare(model, images, 3)
    assert torch.equal(own.learned, defence.learned)
    other = AdvKIP(ATTACK, points=8, steps=4, batch=36, kernel=Kernel(depth=1))
    other.prepare(network(), images, 3)
    assert not torch.equal(other.learned, defence.learned)
    assert defence.outer[-1] < defence.outer[0]
    x = images.test.take(torch.arange(16))[0]
    expected = predictor(conv, defence.learned, defence.targets, AS_IT_IS)(x)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"compares images \(N, C, H, W\)"):
        learn(flat_split(images), 4, recipe(kernel=conv), box=None, view=AS_IT_IS, seed=0)


def test_a_set_is_written_and_taken_again(network, images, tmp_path, train, same):
    defence = AdvKIP(ATTACK, points=8, steps=3, learn_labels=True)
    first = defence.prepare(network(), images, 1)
    defence.save(tmp_path)
    second = AdvKIP(Refusing(threat=Threat(eps=0.1)), dataset=str(tmp_path / "dataset.safetensors"))
    again = second.prepare(network(1), images, 2)
    same([again.train.x, again.train.y, again.train.ids], [first.train.x, first.train.y, first.train.ids])
    same(second.targets, defence.targets)
    with Image.open(tmp_path / "dataset.png") as picture:
        assert picture.mode == "L"
        assert picture.size == (10 * 38, 38), "ten 6 x 6 images, magnified 6 times, with a line around each"
        assert picture.getpixel((1, 1)) == round(float(defence.learned[0, 0, 0, 0]) * 255)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset.png", "dataset.safetensors"]


def test_rows_of_numbers_have_no_picture(tmp_path):
    defence = AdvKIP()
    with pytest.raises(UserError, match="call prepare first"):
        defence.save(tmp_path)
    defence.learned, defence.targets = torch.rand(4, 2), torch.zeros(4, 2)
    defence.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.safetensors"]
    with pytest.raises(UserError, match="a picture is made of images"):
        defence.save_images(tmp_path / "x.png")


def test_a_grid_in_colour():
    images = torch.rand(12, 3, 40, 40)
    pixels = grid(images, (0.0, 1.0))
    assert pixels.shape == (2 * 42, 10 * 42, 3)
    expected = (images[11].double() * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(pixels[43:83, 43:83], expected), "the twelfth is the second one of the second row"
    assert (pixels[42:, 84:] == 255).all()
    assert grid(4 * images - 2, None).min() == 0


def test_a_set_is_data_for_any_method(tmp_path):
    real = data.load("digits", seed=2)
    file = tmp_path / "dataset.safetensors"
    write_set(file, torch.rand(20, 1, 8, 8), centred(torch.arange(20) % 10, 10))
    made = data.load("buttress.defences.adv_kip.files:learned", data_dir=file, real="digits", seed=2)
    assert made.train.y.tolist() == [n % 10 for n in range(20)]
    assert torch.equal(made.val.x, real.val.x)
    assert int(made.train.ids.min()) == free_id(real) == 1797


def test_files_that_do_not_fit_are_told(tmp_path, network, images):
    file = tmp_path / "dataset.safetensors"
    with pytest.raises(UserError, match="No such file"):
        read_set(file)
    file.write_bytes(b"no tensors at all")
    with pytest.raises(UserError, match="damaged"):
        read_set(file)
    write_set(file, torch.rand(5, 1, 6, 6), torch.zeros(5, 3))
    with pytest.raises(UserError, match=r"expected inputs \(1, 6, 6\) of 4 classes, got \(1, 6, 6\) of 3"):
        AdvKIP(dataset=str(file)).prepare(network(), images, 0)
    with pytest.raises(UserError, match="as data_dir"):
        learned()
    with pytest.raises(UserError, match="1 or 3, H, W"):
        write_picture(tmp_path / "x.png", torch.rand(5, 2))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"points": 1}, "points"),
        ({"batch": 0}, "batch"),
        ({"steps": -1}, "steps"),
        ({"lr": 0.0}, "lr must be"),
        ({"inner": "ce"}, "inner must be"),
        ({"objective": "ce"}, "objective must be"),
        ({"attack": Gaussian(std=0.1), "inner": "mse"}, "takes no loss"),
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong, told):
    with pytest.raises(UserError, match=told):
        AdvKIP(**wrong)


def test_what_does_not_fit_is_told(network, kernel, images, context):
    with pytest.raises(UserError, match="4 classes at least; got points=3"):
        AdvKIP(points=3).prepare(network(), images, 0)
    with pytest.raises(UserError, match=r"holds points \(9, 36\), the learned set is \(8, 36\)"):
        AdvKIP(points=8, steps=0).prepare(kernel(points=9), images, 0)
    with pytest.raises(UserError, match="none of 3"):
        first_points(images.train.subset((images.train.y != 3).nonzero().flatten()), 4, 8, 0)
    defence, other = AdvKIP(points=8, steps=0), nn.Sequential(nn.Flatten(), nn.Linear(36, 5))
    batch = Batch(*defence.prepare(network(), images, 0).train.take(torch.arange(8)))
    with pytest.raises(UserError, match="tells 5 classes apart, the learned labels 4"):
        defence.loss(other, batch, context(other, batch))


def test_without_preparation_labels_are_those_of_the_classes(context, single):
    """As when a job's time is estimated."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    expected = F.mse_loss(model(single.x), F.one_hot(single.y, 4).float() - 0.25)
    torch.testing.assert_close(AdvKIP().loss(model, single, context(model, single)).value, expected)
