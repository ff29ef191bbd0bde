import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks.unrestricted.latent_step import Ladder, LatentSpace, RandomDirections
from buttress.defences import Batch, StepContext
from buttress.defences.base.pretraining import pretrain
from buttress.defences.ladder.defence import LADDER
from buttress.defences.ladder.directions import BoundaryDirections, ClosestDirections, fit_directions, linear, pairs
from buttress.defences.ladder.latent_space import Encoder, fit_decoder, fit_space, latent_layer, some_of_each
from buttress.defences.ladder.support_vector_machines import AttentionSVM, SVMSettings, fit, start
from buttress.errors import UserError
from buttress.random import Random, derive, generator

LIGHT = {"pretrain_epochs": 2, "decoder_epochs": 3, "svm_epochs": 1}


def rand(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def double(machine):
    return AttentionSVM(*(None if value is None else value.double() for value in vars(machine).values()))


@pytest.fixture
def machines():
    """Three pairs in five dimensions, far from their start."""
    return AttentionSVM(rand(3, 5, seed=1), rand(3, seed=2), rand(3, 5, 5, seed=3), rand(3, 5, seed=4))


@pytest.fixture(scope="module")
def lit(images):
    """A classifier that has learnt the images, and a space of it whose decoder has had time."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 4))
    pretrain(model, images.train, epochs=120, seed=0, lr=1e-2)
    return model, fit_space(model, images.train, 4, decoder_epochs=250, svm=SVMSettings(c=1.0, epochs=20))


# -- the machines ------------------------------------------------------------------------------------------------------


def test_the_score_and_the_objective_are_written_out(machines):
    z, sign = rand(3, 7, 5), torch.where(rand(3, 7, seed=9) > 0, 1.0, -1.0).double()
    score, objective = machines.score(z), machines.objective(z, sign, 0.3)
    for p in range(3):
        losses = []
        for n in range(7):
            logits = [math.tanh(float(machines.A[p, i] @ z[p, n] + machines.b[p, i])) for i in range(5)]
            whole = sum(math.exp(value) for value in logits)
            a = [math.exp(math.exp(value) / whole) for value in logits]
            h = sum(float(machines.w[p, i]) * a[i] * float(z[p, n, i]) for i in range(5)) + float(machines.bias[p])
            assert float(score[p, n]) == pytest.approx(h, rel=1e-9)
            losses.append(max(0.0, 1 - float(sign[p, n]) * h))
        expected = 0.3 * sum(losses) / 7 + sum(float(w) ** 2 for w in machines.w[p]) / 5
        assert float(objective[p]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("attention", ["pairwise", "none"])
def test_a_step_is_that_of_sgd_on_the_objective(machines, attention):
    if attention == "none":
        machines = AttentionSVM(machines.w, machines.bias)
    z, sign = rand(3, 5, seed=7), torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    leaves = AttentionSVM(*(v if v is None else v.clone().requires_grad_() for v in vars(machines).values()))
    value = leaves.objective(z[:, None], sign[:, None], 0.7)[:2].sum()  # the third pair has no vector
    wanted = [v for v in vars(leaves).values() if v is not None]
    expected = [v.detach() - 0.05 * g for v, g in zip(wanted, torch.autograd.grad(value, wanted), strict=True)]
    assert (1 - sign * leaves.score(z[:, None])[:, 0] > 0)[:2].any()
    machines.step(z, sign, 0.7, 0.05)
    found = [v for v in vars(machines).values() if v is not None]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_fitting_is_torchs_sgd_vector_by_vector():
    svm, z = SVMSettings(c=0.5, lr=0.1, epochs=2), rand(2, 4, 3, seed=5)
    sign = torch.tensor([[1.0, -1.0, 1.0, -1.0], [-1.0, 1.0, 1.0, 0.0]], dtype=torch.float64)
    found = fit(z, sign, svm, 11)
    begin = double(start(2, 3, svm, 11))
    for p in range(2):
        leaves = AttentionSVM(*(v[p : p + 1].clone().requires_grad_() for v in vars(begin).values()))
        optimizer = torch.optim.SGD(vars(leaves).values(), lr=0.1)
        for epoch in range(2):
            for n in torch.rand(2, 4, generator=generator(11, "order", epoch)).argsort(1)[p].tolist():
                if sign[p, n] != 0:
                    optimizer.zero_grad()
                    leaves.objective(z[p : p + 1, n : n + 1], sign[p : p + 1, n : n + 1], 0.5).sum().backward()
                    optimizer.step()
        expected = [v.detach() for v in vars(leaves).values()]
        torch.testing.assert_close([v[p : p + 1] for v in vars(found).values()], expected, rtol=1e-9, atol=1e-12)


def test_attention_lies_between_1_and_e_under_its_bound_and_none_is_ones(machines):
    for size in (2, 5, 64):
        drawn = AttentionSVM(rand(1, size), rand(1), 100 * rand(1, size, size), rand(1, size))
        a = drawn.attention(rand(1, 50, size, seed=1))
        assert (a > 1).all()
        assert (a < math.e).all()
        assert float(a.max()) <= math.exp(math.e / (math.e + (size - 1) / math.e)) + 1e-12
    none = AttentionSVM(machines.w, machines.bias).attention(rand(3, 4, 5))
    assert (none == 1).all()


def test_the_score_rises_linearly_along_a_w_where_a_is_fixed(machines):
    z = rand(3, 1, 5, seed=8)
    a = machines.attention(z)
    scores = [
        ((a * (z + t * a * machines.w[:, None])) @ machines.w[:, :, None])[:, 0, 0] + machines.bias
        for t in (0.0, 1.0, 2.0, 5.0)
    ]
    slope = (a[:, 0] * machines.w).square().sum(1)
    torch.testing.assert_close(scores[0], machines.score(z)[:, 0])
    for t, score in zip((1.0, 2.0, 5.0), scores[1:], strict=True):
        torch.testing.assert_close(score - scores[0], t * slope)
    plain = AttentionSVM(machines.w, machines.bias)
    rise = plain.score(z + 3 * machines.w[:, None]) - plain.score(z)
    torch.testing.assert_close(rise[:, 0], 3 * machines.w.square().sum(1))


# -- directions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clouds():
    """Three classes of well separated vectors."""
    y = torch.arange(60) % 3
    return 4 * torch.eye(3, 6)[y] + 0.3 * rand(60, 6, dtype=torch.float32), y


@pytest.mark.parametrize("kind", ["attention", "svm", "svm-noise"])
def test_machines_tell_the_classes_and_lead_to_the_target(clouds, kind):
    z, y = clouds
    directions, accuracy = fit_directions(kind, z, y, 3, seed=0, svm=SVMSettings(c=1.0, lr=0.05, epochs=20))
    assert accuracy > 0.95
    assert pairs(3) == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)]
    for source, target in pairs(3):
        rows = y == source
        machine, goal = directions.machine(source, target), torch.full_like(y[rows], target)
        moves = directions(z[rows], y[rows], goal, Random(0, torch.arange(int(rows.sum()))))
        before, after = machine.score(z[None])[0, rows], machine.score((z[rows] + 0.1 * moves)[None])[0]
        assert (after > before).all()
        assert (machine.score(z[None])[0, y == target] > 0).float().mean() > 0.9


def test_moves_are_a_w_of_the_own_pair(clouds):
    z, y = clouds
    drawn = AttentionSVM(*(rand(*s, dtype=torch.float32) for s in ((6, 6), (6,), (6, 6, 6), (6, 6))))
    target = (y + 1 + (torch.arange(60) // 3) % 2) % 3
    for normalize in (False, True):
        moves = BoundaryDirections(drawn, 3, normalize)(z, y, target, Random(0, torch.arange(60)))
        for n in range(60):
            machine = BoundaryDirections(drawn, 3).machine(int(y[n]), int(target[n]))
            w = machine.w[0] / (machine.w[0].norm() if normalize else 1)
            torch.testing.assert_close(moves[n], machine.attention(z[n][None, None])[0, 0] * w)
    stay = BoundaryDirections(drawn, 3)(z, y, y, Random(0, torch.arange(60)))
    assert (stay == 0).all()


def test_both_orders_of_a_pair_have_an_attention_of_their_own_and_a_linear_machine_in_common(clouds):
    z, y = clouds
    ours, _ = fit_directions("attention", z, y, 3, seed=0)
    assert not torch.equal(ours.machine(0, 1).A, ours.machine(1, 0).A)
    theirs, _ = fit_directions("svm", z, y, 3, seed=0)
    assert torch.equal(theirs.machine(0, 1).w, -theirs.machine(1, 0).w)
    assert theirs.A is None


def test_the_linear_machine_has_the_wide_margin_of_two_points():
    machine = linear(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([-1.0, 1.0]), 0)
    # min w^2/2 + b^2/2 + sum of squared hinges at symmetric points: w (1 + 4) = 4 and b = 0
    torch.testing.assert_close(machine.w, torch.tensor([[0.8, 0.0]]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(machine.bias, torch.tensor([0.0]), rtol=0, atol=1e-3)


def test_the_closest_direction_leads_to_the_nearest_of_the_target(clouds):
    known, labels = clouds
    z, y = rand(9, 6, seed=3, dtype=torch.float32), torch.arange(9) % 3
    target, random = (y + 1) % 3, Random(0, torch.arange(9))
    moves = ClosestDirections(known, labels)(z, y, target, random)
    for n in range(9):
        others = known[labels == target[n]]
        nearest = min(others, key=lambda other, n=n: float((other - z[n]).norm()))
        torch.testing.assert_close(moves[n], nearest - z[n])
    ones = ClosestDirections(known, labels, normalize=True)(z, y, target, random).norm(dim=1)
    torch.testing.assert_close(ones, torch.ones(9))
    assert (ClosestDirections(known, labels)(z, y, torch.full_like(y, 7), random) == 0).all()


def test_random_directions_are_a_tenth_of_normal_numbers(clouds):
    z, y = torch.zeros(400, 20), torch.zeros(400, dtype=torch.long)
    moves = RandomDirections()(z, y, y + 1, Random(5, torch.arange(400)))
    assert float(moves.std()) == pytest.approx(0.1, rel=0.05)
    assert abs(float(moves.mean())) < 0.005
    found, accuracy = fit_directions("random", *clouds, 3, seed=0)
    assert isinstance(found, RandomDirections)
    assert accuracy is None


def test_noise_moves_the_linear_direction_by_a_hundredth(clouds):
    z, y = clouds
    plain, _ = fit_directions("svm", z, y, 3, seed=0)
    noisy, _ = fit_directions("svm-noise", z, y, 3, seed=0)
    target, random = (y + 1) % 3, Random(0, torch.arange(60))
    difference = noisy(z, y, target, random) - plain(z, y, target, random)
    assert float(difference.std()) == pytest.approx(0.01, rel=0.15)


def test_a_class_of_one_input_is_refused():
    with pytest.raises(UserError, match="need 2 or more inputs of each; class 1 has 1"):
        fit_directions("attention", rand(4, 3), torch.tensor([0, 0, 0, 1]), 2, seed=0)


# -- encoder, decoder, moves -------------------------------------------------------------------------------------------


def test_the_latent_layer_is_before_the_activation_or_the_input_of_the_last(network, nets):
    x = torch.zeros(1, 1, 6, 6)
    assert latent_layer(network(), x) == "4"
    assert latent_layer(nets.conv(), x) == "5:input"
    one = nets.linear(rand(3, 36, dtype=torch.float32))
    assert latent_layer(one, x) == "1:input"
    assert torch.equal(Encoder(one, "1:input")(x + 0.25), torch.full((1, 36), 0.25))
    with pytest.raises(UserError, match="no linear layer"):
        latent_layer(nn.Sequential(nn.Conv2d(1, 4, 6), nn.Flatten()), x)


def test_the_encoder_is_the_network_up_to_the_layer(network):
    model, x = network(), torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    state = copy.deepcopy(model.state_dict())
    z = Encoder(model, "4")(x)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(z, model[:5](x))
    torch.testing.assert_close(model.state_dict(), state)
    for wrong in ("nothing", "", ":input"):
        with pytest.raises(UserError, match="must be a module of the network, such as 0"):
            Encoder(model, wrong)


def test_the_decoder_learns_and_what_it_makes_keeps_its_label(lit, images):
    model, fitted = lit
    x, y, _ = images.train.take(torch.arange(len(images.train)))
    made = fitted.space.decode(fitted.space.encode(x), x)
    assert float(F.mse_loss(made, x)) < 0.25 * float(x.var())  # of the variance, three quarters at least come back
    assert (model(x).argmax(1) == y).all()
    assert (model(made).argmax(1) == y).float().mean() > 0.95
    assert fitted.accuracy > 0.9


def test_fitting_is_deterministic_and_leaves_model_and_random_state(lit, images, nets, same):
    model, _ = lit
    before = nets.state(model)
    settings = {"decoder_epochs": 2, "svm": SVMSettings(epochs=1)}
    one, two = (fit_space(model, images.train, 4, seed=3, **settings).space for _ in range(2))
    nets.assert_state(model, before)
    assert Ladder(space=one).fingerprint() == Ladder(space=two).fingerprint()
    same(dict(one.named_parameters()), dict(two.named_parameters()))
    same(dict(one.named_buffers()), dict(two.named_buffers()))
    other = fit_space(model, images.train, 4, seed=4, **settings).space
    assert not torch.equal(other.decoder.layers[0].weight, one.decoder.layers[0].weight)
    assert not any(p.requires_grad for p in one.parameters())


def test_a_decoder_of_no_epochs_has_no_error(lit, images):
    encoder = Encoder(lit[0], "1")
    assert fit_decoder(encoder, images.train, epochs=0, seed=0)[1] is None


class Halves(nn.Module):
    """Encoder and decoder between two features and the latent line x0 - x1."""

    def __init__(self, back):
        super().__init__()
        self.back = back

    def forward(self, x):
        return torch.cat([x + 0.5, 0.5 - x], 1) / 1 if self.back else (x[:, :1] - x[:, 1:]) / 2


@pytest.fixture
def line(nets):
    """A linear network on two features, its space, and inputs whose answers flip at known lengths."""
    model = nets.linear(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double())  # class 0 where x0 > x1
    w = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)  # from 0 to 1, and back
    machines = AttentionSVM(w, torch.zeros(2, dtype=torch.float64))
    space = LatentSpace(Halves(False), Halves(True), BoundaryDirections(machines, 2), 2)
    z = torch.tensor([0.05, 0.12, 0.2, 0.31, -0.08, -0.25], dtype=torch.float64)[:, None]
    return model, space, Halves(True)(z), (z[:, 0] < 0).long(), z[:, 0].abs()


def test_the_flip_rate_grows_with_eps_as_the_distances_say(line):
    model, space, x, y, distance = line
    rates = []
    for eps in (0.0, 0.1, 0.15, 0.22, 0.28, 0.5):
        found = Ladder(eps=eps, space=space, box=None)(model, x, y)
        assert torch.equal(found.success, distance < eps)
        torch.testing.assert_close(found.distance, torch.full_like(distance, eps * math.sqrt(2)))
        rates.append(float(found.success.double().mean()))
    assert rates == sorted(rates)
    assert rates[-1] == 1


def test_an_adaptive_length_is_the_first_that_changes_the_answer(line):
    model, space, x, y, _ = line
    found = Ladder(eps=0.1, adaptive=True, tries=3, space=space, box=None)(model, x, y)
    expected = [0.1, 0.2, 0.3, 0.3, 0.1, 0.3]  # 0.31 is not reached in three tries
    torch.testing.assert_close(found.distance / math.sqrt(2), torch.tensor(expected, dtype=torch.float64))
    assert found.success.tolist() == [True, True, True, False, True, True]
    limited = Ladder(eps=0.1, adaptive=True, limit=0.25, space=space, box=None)(model, x, y)  # the first not below it
    torch.testing.assert_close(limited.distance.max(), torch.tensor(0.3 * math.sqrt(2), dtype=torch.float64))


def test_lengths_grow_by_a_tenth_up_to_1_and_then_by_1(nets):
    never = nets.linear(torch.zeros(2, 2).double())
    w = torch.tensor([[1.0], [1.0]], dtype=torch.float64)
    machines = AttentionSVM(w, torch.zeros(2, dtype=torch.float64))
    space = LatentSpace(Halves(False), Halves(True), BoundaryDirections(machines, 2), 2)
    x, y = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([0])
    lengths = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    for tries in (1, 5, 6, 7, 11):
        settings = {} if tries == 11 else {"tries": tries}  # as released, by default
        found = Ladder(adaptive=True, **settings, space=space, box=None)(never, x, y)
        assert float(found.distance) / math.sqrt(2) == pytest.approx(lengths[tries - 1])
        assert int(found.forwards) == tries + 2  # the input, the tries and the verdict
    far = Ladder(adaptive=True, tries=100, space=space, box=None)(never, x, y)
    assert float(far.distance) / math.sqrt(2) == pytest.approx(26)


def test_targets_are_the_others_evenly_or_the_callers(line):
    _, space, *_ = line
    space = LatentSpace(space.encoder, space.decoder, space.directions, 4)
    y = torch.arange(3000) % 4
    drawn = space.targets(y, Random(1, torch.arange(3000)))
    assert (drawn != y).all()
    for shift in (1, 2, 3):
        assert ((drawn - y) % 4 == shift).double().mean().item() == pytest.approx(1 / 3, abs=0.03)


def test_what_is_no_space_is_refused(line):
    model, _, x, y, _ = line
    with pytest.raises(UserError, match="space must be a LatentSpace, as fit_space returns it; got Linear"):
        Ladder(space=nn.Linear(2, 2))(model, x, y)
    for wrong in ({"eps": -1.0}, {"eps": math.inf}, {"tries": 0}, {"tries": 1.5}, {"limit": -2.0}, {"space": "file"}):
        with pytest.raises(UserError):
            Ladder(**wrong)


def test_fingerprints_tell_spaces(line):
    _, space, *_ = line
    other = copy.deepcopy(space)
    assert Ladder(space=other).fingerprint() == Ladder(space=space).fingerprint()
    other.directions.w[0] += 1
    noisy = LatentSpace(space.encoder, space.decoder, RandomDirections(), 2)
    more = LatentSpace(space.encoder, space.decoder, RandomDirections(0.2), 2)
    prints = {Ladder(space=s).fingerprint() for s in (space, other, noisy, more, None)}
    assert len(prints) == 5


# -- the defence -------------------------------------------------------------------------------------------------------


def ready(model, images, **settings):
    defence = LADDER(**{**LIGHT, **settings})
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return defence, defence.prepare(model, images, 0)


def test_the_loss_is_half_of_each_and_reaches_the_classifier_alone(network, images):
    model = network(dropout=0.0, dtype=torch.float64)
    defence, data = ready(model, images)
    x, y, ids = data.train.take(torch.tensor([5, 0, 17, 30]))
    batch = Batch(x.double(), y, ids)
    twin = copy.deepcopy(model)
    found = defence.loss(model, batch, StepContext(model, batch))
    moved = defence.made[[5, 0, 17, 30]].double() / 255
    rows = torch.arange(4)
    clean = -twin(batch.x).log_softmax(1)[rows, y].mean()
    other = -twin(moved).log_softmax(1)[rows, y].mean()
    torch.testing.assert_close(found.value, 0.5 * clean + 0.5 * other, rtol=1e-5, atol=0)
    difference = (moved - batch.x).flatten(1)
    assert float(found.logs["pixel linf"]) == pytest.approx(float(difference.abs().amax(1).mean()), rel=1e-5)
    assert float(found.logs["pixel l2"]) == pytest.approx(float(difference.norm(dim=1).mean()), rel=1e-5)
    found.value.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad is None and not p.requires_grad for p in defence.space.parameters())
    assert list(defence.parameters()) == []
    assert set(defence.state_dict()) == {"made", "sizes", "flipped", "accuracy"}


def test_it_makes_what_its_perturbation_makes_in_whole_levels(network, images, same):
    model = network(dropout=0.0)
    defence, data = ready(model, images, eps=3.0)
    x, y, ids = data.train.take(torch.arange(len(data.train)))
    made = defence.perturbation()(model.eval(), x, y, seed=derive(0, "making"), ids=ids)
    same(defence.made, (made.x_adv * 255).round().to(torch.uint8))
    seen = defence.made.float() / 255
    with torch.no_grad():
        same(defence.flipped, (model(seen).argmax(1) != model(x).argmax(1)).float())
    assert defence.made.dtype == torch.uint8


def test_per_class_limits_what_is_trained_on(network, images, same):
    _, whole = ready(network(), images)
    same(whole.train.ids, images.train.ids)
    defence, some = ready(network(), images, per_class=3)
    assert torch.bincount(some.train.y).tolist() == [3, 3, 3, 3]
    assert len(defence.made) == len(some.train) == 12
    assert torch.isin(some.train.ids, images.train.ids).all()
    assert some.val is images.val
    chosen = some_of_each(images.train.y, 4, 3, 1)
    assert (chosen.diff() > 0).all()
    left = images.train.ids[~torch.isin(images.train.ids, some.train.ids)][:2]
    batch = Batch(images.train.x[:2].float() / 255, images.train.y[:2], left)
    with pytest.raises(UserError, match="trains on the data that prepare returned"):
        defence.loss(network(), batch, StepContext(network(), batch))


def test_given_weights_stay_without_pretraining_and_learn_with_it(network, images, same):
    before = copy.deepcopy(network().state_dict())
    model = network()
    ready(model, images, pretrain_epochs=0)
    same(dict(model.state_dict()), dict(before))
    model = network()
    ready(model, images, pretrain_epochs=1)
    assert not torch.equal(model.state_dict()["4.weight"], before["4.weight"])
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("direction", ["attention", "svm", "closest", "random", "svm-noise"])
def test_every_direction_trains(direction, network, train):
    defence = LADDER(direction=direction, normalize_w=True, attention="none", adaptive=True, **LIGHT)
    trained = train(network(), defence, epochs=1)
    row = trained.history[-1]
    assert 0 < row["pixel linf"] <= 1
    assert row["pixel l2"] >= row["pixel linf"]
    assert 0 <= row["flipped"] <= 1
    assert ("svm accuracy" in row) == (direction not in ("closest", "random"))


def test_attention_changes_almost_nothing(network, images):
    model = network(dropout=0.0)
    ready(model, images)
    w = AttentionSVM(*(rand(12, *s) for s in ((64,), (), (64, 64), (64,))))
    z, y = rand(20, 64, seed=2), torch.zeros(20, dtype=torch.long)
    random = Random(0, torch.arange(20))
    attended = BoundaryDirections(w, 4)(z, y, y + 1, random)
    plain = BoundaryDirections(AttentionSVM(w.w, w.bias), 4)(z, y, y + 1, random)
    assert ((attended / plain - 1).abs() < 0.11).all()


def test_it_says_what_comes_first():
    with pytest.raises(UserError, match="call that first"):
        LADDER().perturbation()
    x = torch.zeros(2, 1, 6, 6)
    batch = Batch(x, torch.tensor([0, 1]), torch.tensor([0, 1]))
    with pytest.raises(UserError, match="call that first"):
        LADDER().loss(nn.Identity(), batch, StepContext(nn.Identity(), batch))


@pytest.mark.parametrize(
    "wrong",
    [
        {"eps": -1.0},
        {"eps": math.inf},
        {"direction": "up"},
        {"attention": "all"},
        {"per_class": 0},
        {"pretrain_epochs": -1},
        {"decoder_epochs": 1.5},
        {"decoder_width": 0},
        {"svm_inputs": 1},
        {"svm_epochs": -1},
        {"svm_c": -0.1},
        {"svm_lr": math.nan},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UserError):
        LADDER(**wrong)
