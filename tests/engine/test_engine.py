"""The engine: what a search costs, what it returns, in which precision, and with how little memory."""

import logging
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from buttress.attacks import (
    APGD,
    BIM,
    CW,
    DDN,
    FAB,
    FGSM,
    FMN,
    JSMA,
    LBFGS,
    MIFGSM,
    PGD,
    ZOO,
    BoundaryAttack,
    DeepFool,
    Gaussian,
    HopSkipJump,
    Salt,
    Square,
)
from buttress.engine.oracle import Oracle
from buttress.engine.runner import Runner
from buttress.random import Random, derive
from buttress.tasks import classification
from buttress.threat import Threat


@pytest.fixture
def model(nets):
    net = nets.conv(seed=3)
    x, _ = batch(64)
    with torch.no_grad():  # fresh weights see all inputs alike: tell them apart
        net[5].weight *= 8
        net[5].bias -= net(x).mean(0)
    return net


def batch(n=12):
    generator = torch.Generator().manual_seed(4)
    return torch.rand(n, 1, 6, 6, generator=generator), torch.randint(4, (n,), generator=generator)


def right(model, n=12):
    x, _ = batch(n)
    return x, model(x).argmax(1)


# -- cost ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "forwards", "backwards"),
    [
        (FGSM(), 1, 1),
        (BIM(steps=7), 7, 7),
        (MIFGSM(steps=7), 7, 7),
        (PGD(steps=10), 10, 10),
        (PGD(steps=10, restarts=3), 33, 30),
        (PGD(steps=10, loss="kl"), 11, 10),
        (APGD(steps=12), 13, 12),
        (Gaussian(), 0, 0),
        (Salt(), 0, 0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_full_search_costs_what_the_docstring_says_and_one_verdict(model, attack, forwards, backwards):
    x, y = batch()
    rows = []
    model.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    result = attack(model, x, y)
    assert result.forwards.tolist() == [forwards + 1] * 12
    assert result.backwards.tolist() == [backwards] * 12
    assert sum(rows) == 12 * (forwards + 1)
    rows.clear()
    attack.craft(model, x, y)
    assert sum(rows) == 12 * forwards


def test_rounds_of_apgd_cost_a_forward_more_each_and_pass_by_what_is_beaten(model):
    x, y = right(model)
    y[:5] = (y[:5] + 1) % 4
    result = APGD(steps=12, restarts=2, loss="dlr", threat=Threat(eps=1e-6))(model, x, y)
    assert result.forwards[5:].tolist() == [2 * (13 + 1) + 1 + 1] * 7  # the clean pass and the verdict
    assert result.backwards[5:].tolist() == [2 * 12] * 7
    assert (result.backwards[:5] <= 12).all()


@pytest.mark.parametrize("attack", [PGD(steps=10, threat=Threat(eps=0.03)), APGD(steps=10, threat=Threat(eps=0.03))])
def test_rows_that_fall_stop_costing(model, attack):
    x, y = right(model, 40)
    y[:5] = (y[:5] + 1) % 4
    rows = []
    model.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    result = attack(model, x, y, search="first")
    assert result.forwards[:5].tolist() == [1] * 5  # wrong already: the clean pass is the verdict
    assert result.backwards[:5].tolist() == [0] * 5
    assert torch.equal(result.x_adv[:5], x[:5])
    assert sum(rows) == int(result.forwards.sum())
    standing = ~result.success
    assert 0 < standing.sum() < 35
    whole = 12 if isinstance(attack, PGD) else 13  # clean, the search's own, the verdict
    assert (result.forwards[standing] == whole).all()
    assert (result.backwards[standing] == 10).all()
    assert (result.forwards[result.success] <= whole).all()
    assert result.forwards[result.success].float().mean() < whole - 3


def test_the_search_ends_when_nothing_is_left(model):
    x, y = batch()
    y = (model(x).argmax(1) + 1) % 4
    result = PGD(steps=10, restarts=4)(model, x, y, search="first")
    assert result.forwards.tolist() == [1] * 12
    assert result.success.all()


def test_first_success_says_what_a_plain_loop_says_that_looks_at_every_iterate(model):
    x, y = right(model, 40)
    threat = Threat(eps=0.03)
    x_adv = threat.random_start(x, Random(derive(7, "attack"), torch.arange(40)))
    fallen = torch.zeros(40, dtype=torch.bool)
    for step in range(11):
        leaf = x_adv.clone().requires_grad_()
        logits = model(leaf)
        fallen |= logits.argmax(1) != y
        grad = torch.autograd.grad(F.cross_entropy(logits, y), leaf)[0]
        if step < 10:
            x_adv = threat.project(x_adv + 2.5 * 0.03 / 10 * grad.sign(), x)
    result = PGD(threat=threat, steps=10)(model, x, y, search="first", seed=7)
    assert torch.equal(result.success, fallen)
    assert torch.equal(model(result.x_adv).argmax(1) != y, fallen)
    assert 0 < fallen.sum() < 40


def test_the_loss_told_is_that_of_the_point_returned(model):
    x, y = right(model)
    for search in ("full", "first"):
        result = PGD(loss="margin")(model, x, y, search=search)
        torch.testing.assert_close(result.loss, F.cross_entropy(model(result.x_adv), y, reduction="none"))
        assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)


def test_targeted_attacks_are_scored_by_the_target(model):
    x, y = right(model)
    target = (y + 2) % 4
    result = PGD(threat=Threat(eps=0.3), steps=20)(model, x, y, target=target)
    predicted = model(result.x_adv).argmax(1)
    assert torch.equal(result.success, predicted == target)
    assert result.success.any()
    least = PGD(threat=Threat(eps=0.3), steps=20)(model, x, y, target="least_likely")
    given = PGD(threat=Threat(eps=0.3), steps=20)(model, x, y, target=model(x).argmin(1))
    assert torch.equal(least.x_adv, given.x_adv)


def test_random_targets_are_never_the_truth_and_hit_every_other_class(nets):
    """A model that says class 2 for all: the random targets that are beaten at eps 0 are those of class 2."""
    model = nets.linear(torch.zeros(4, 3), [0.0, 0.0, 2.0, 0.0])
    x, y = torch.rand(300, 3), torch.arange(300) % 4
    success = FGSM(threat=Threat(eps=0.0))(model, x, y, target="random").success
    assert not success[y == 2].any()
    for truth in (0, 1, 3):
        assert 10 < success[y == truth].sum() < 45  # 75 draws of chance 1/3


def test_train_mode_fgsm_by_hand(nets):
    model = nets.awkward(5)
    model[4][0].p = 0.0
    generator = torch.Generator().manual_seed(1)
    x, y = torch.rand(8, 5, generator=generator), torch.randint(4, (8,), generator=generator)
    results = {mode: FGSM(threat=Threat(eps=0.05))(model, x, y, mode=mode).x_adv for mode in ("train", "eval")}
    for mode, x_adv in results.items():
        twin = nets.awkward(5)
        twin[4][0].p = 0.0
        twin.train(mode == "train")
        leaf = x.clone().requires_grad_()
        grad = torch.autograd.grad(F.cross_entropy(twin(leaf), y), leaf)[0]
        torch.testing.assert_close(x_adv, (x + 0.05 * grad.sign()).clamp(0, 1))
    assert not torch.equal(results["train"], results["eval"])


# -- rows that rest ---------------------------------------------------------------------------------------------------


def by_value(rows, value, grad):
    """The face whose two logits are nearest to each other."""
    return value.abs()


QUESTIONS = {
    "logits": lambda oracle, x: (oracle.logits(x),),
    "loss": lambda oracle, x: (oracle.loss(x),),
    "loss_and_grad": lambda oracle, x: oracle.loss_and_grad(x, "margin"),
    "gradients": lambda oracle, x: oracle.gradients(x, ["margin", "cross_entropy"]),
    "nearest_face": lambda oracle, x: oracle.nearest_face(x, torch.tensor([[0, 3]] * len(x)), by_value),
}


def oracle_of(model, x, y, precision="fp32", batch_size=5, **options):
    return Oracle(Runner(model, classification, precision, batch_size), x, y, **options)


@pytest.mark.parametrize("question", QUESTIONS)
def test_rows_that_rest_are_not_asked_about_and_read_0(model, question):
    x, y = batch()
    sizes = []
    model.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    oracle, ask = oracle_of(model, x, y), QUESTIONS[question]
    whole, success = ask(oracle, x), oracle.success.clone()
    before = oracle.forwards.clone(), oracle.backwards.clone()
    assert before[0].tolist() == [1] * 12
    sizes.clear()
    rows = torch.arange(12) % 3 == 0
    oracle.rest(rows)
    assert oracle.alive.all()
    assert not oracle.done
    answers = ask(oracle, 1 - x)
    others = ask(oracle_of(model, 1 - x, y), 1 - x)
    for mine, other in zip(answers, others, strict=True):
        assert (mine[rows] == 0).all()
        torch.testing.assert_close(mine[~rows], other[~rows])
    assert sizes == [5, 3, 5, 5, 2]
    assert torch.equal(oracle.success[rows], success[rows])
    assert torch.equal(oracle.success[~rows], (model(1 - x).argmax(1) != y)[~rows])
    assert torch.equal(oracle.forwards, before[0] + (~rows).long())
    assert torch.equal(oracle.backwards, before[1] + before[1] * ~rows)
    oracle.rest(~rows)  # these instead of the former
    assert all((answer[~rows] == 0).all() for answer in ask(oracle, x))
    oracle.wake()
    for mine, other in zip(ask(oracle, x), whole, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_when_all_rest_a_question_costs_nothing(model, question, precision):
    x, y = batch()
    asked = oracle_of(model, x, y, precision)
    QUESTIONS[question](asked, x)
    for oracle, clean in ((asked, 0), (oracle_of(model, x, y, precision), 1)):  # one tells how many classes there are
        spent = oracle.forwards.clone()
        oracle.rest(torch.ones(12, dtype=torch.bool))
        assert oracle.done
        assert all((answer == 0).all() for answer in QUESTIONS[question](oracle, x))
        assert (oracle.forwards - spent <= clean).all()
        points, output = oracle.settle(x)
        torch.testing.assert_close(output, model(points).detach())
        assert not oracle.done


@pytest.mark.parametrize("every", [1, 3])
def test_rows_at_rest_neither_leave_nor_come_back_when_others_leave(model, every):
    x, y = right(model)
    y[:4] = (y[:4] + 1) % 4  # beaten at their first answer
    oracle = oracle_of(model, x, y, search="first", read_every=every)
    resting = torch.arange(12) % 2 == 0
    oracle.rest(resting)
    for _ in range(3):
        oracle.logits(x)
    assert (~oracle.alive).nonzero().flatten().tolist() == [1, 3]
    assert oracle.forwards[resting].tolist() == [0] * 6
    part = oracle.only(torch.tensor([0, 5]), search="full")  # a part's rows are awake
    part.logits(x[[0, 5]])
    assert (part.forwards == 1).all()
    oracle.merge(part, torch.tensor([0, 5]), x[[0, 5]], model(x[[0, 5]]).detach(), "part")
    assert (~oracle.alive).nonzero().flatten().tolist() == [0, 1, 3]
    spent = oracle.forwards.clone()
    oracle.logits(x)
    assert torch.equal(oracle.forwards - spent, (oracle.alive & ~resting).long())
    oracle.rest(torch.ones(12, dtype=torch.bool))
    x_adv, output = oracle.settle(x + 0.01)
    assert torch.equal(x_adv, torch.where(oracle.alive[:, None, None, None], x + 0.01, x))
    torch.testing.assert_close(output, model(x_adv).detach())


def test_a_batch_that_must_stay_whole_rests_as_one(nets):
    model, sizes = nets.awkward(36).train(), []
    model.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    x, y = batch(6)
    oracle = oracle_of(model, x, y, batch_size=6)
    oracle.rest(torch.arange(6) > 0)
    oracle.logits(x)
    assert sizes == [6]
    oracle.rest(torch.ones(6, dtype=torch.bool))
    assert oracle.done
    left = oracle_of(model, x, y, batch_size=6, search="first")
    left.rest(torch.arange(6) > 1)
    left.logits(x)
    assert sizes[-1] == 2


def test_several_losses_share_a_forward_and_give_the_slopes_of_each(model):
    x, y = batch()
    losses = ["margin", "cross_entropy", "dlr"]
    oracle = oracle_of(model, x, y)
    grads = oracle.gradients(x, losses)
    assert oracle.forwards.tolist() == [1] * 12
    assert oracle.backwards.tolist() == [3] * 12
    for loss, grad in zip(losses, grads, strict=True):
        assert torch.equal(grad, oracle_of(model, x, y).loss_and_grad(x, loss)[1])


@pytest.mark.parametrize(
    "attack",
    [
        *(DeepFool(steps=3), CW(steps=20, c=10.0, lr=0.1), LBFGS(steps=9), JSMA(theta=0.2, steps=6), FAB(steps=3)),
        *(FMN(steps=3), DDN(steps=3), ZOO(queries=9), BoundaryAttack(queries=9), HopSkipJump(queries=9)),
        Square(queries=9, threat=Threat(eps=1e-4)),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_an_attack_leaves_its_rows_awake_and_those_finished_are_spared(model, attack):
    x, y = right(model)
    y[:3] = (y[:3] + 1) % 4
    oracle = oracle_of(model, x, y)
    attack.within().perturb(oracle, x, y, Random(0, torch.arange(12)))
    assert not oracle.resting.any()
    assert not oracle.done
    assert (oracle.forwards[:3] <= 1).all()  # the clean pass, or the first point, says all
    assert (oracle.forwards[3:] > 1).all()
    spent = oracle.forwards.clone()
    oracle.logits(x)
    assert torch.equal(oracle.forwards, spent + 1)


# -- gradients too small for a number --------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [PGD(threat=Threat(eps=0.1)), APGD(threat=Threat(eps=0.1), steps=15)])
@pytest.mark.parametrize("scale", [1e2, 1e3, 1e5])
def test_logits_scaled_up_fall_as_the_plain_ones_do(model, attack, scale):
    x, y = right(model, 40)
    plain = attack(model, x, y)
    scaled = attack(lambda z: scale * model(z), x, y)
    assert plain.success.sum() >= 36
    assert scaled.success.sum() >= 36


def test_a_softmax_saturated_in_float64_still_has_a_direction(nets):
    model = nets.linear([[4e4, -4e4], [0.0, 0.0], [-4e4, 4e4]])
    x = torch.tensor([[0.6, 0.4], [0.4, 0.6]])
    y = torch.tensor([0, 2])
    result = PGD(threat=Threat(eps=0.2), start="zero")(model, x, y)
    assert result.success.all()
    torch.testing.assert_close(result.x_adv, torch.tensor([[0.4, 0.6], [0.6, 0.4]]))
    assert not PGD(threat=Threat(eps=0.2), start="zero")(model, x, y, target=y - y + 1).success.all()


def test_no_subnormal_number_on_the_way_down():
    """Sure of itself by about e^-95: in float32 the gradient of the plain loss is subnormal."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 3)
    with torch.no_grad():
        first.weight.copy_(torch.eye(4))
        first.bias.zero_()
        second.weight.copy_(torch.tensor([[95.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))
        second.bias.zero_()
    seen = []

    def forward(x):
        hidden = first(x).tanh() / 0.7615942
        if hidden.requires_grad:
            hidden.register_hook(lambda grad: seen.append(grad.detach()))
        return second(hidden)

    x, y = torch.tensor([[1.0, 0.5, 0.2, 0.1]]), torch.tensor([0])
    tiny = torch.finfo(torch.float32).tiny
    leaf = x.clone().requires_grad_()
    F.cross_entropy(forward(leaf), y).backward()
    plain = seen.pop().abs()
    assert ((plain > 0) & (plain < tiny)).any() or (plain == 0).all()
    PGD(threat=Threat(eps=0.05), start="zero", steps=3)(forward, x, y)
    assert len(seen) == 3
    for grad in seen:
        size = grad.abs()
        assert (size > 0).any()
        assert not ((size > 0) & (size < tiny)).any()


# -- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", ["full", "first"])
def test_a_success_that_only_bf16_sees_is_none(nets, search):
    """bf16 rounds 0.501 to 0.5, where the logit 0 no longer says class 1."""
    model = nets.linear([[1.0]], [-0.5])
    x, y = torch.full((3, 1), 0.501), torch.ones(3, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (model(x) <= 0).all()
    result = PGD(threat=Threat(eps=1e-5))(model, x, y, precision="bf16", search=search)
    assert not result.success.any()
    assert (result.loss < 0.7).all()
    assert result.precision == "bf16"
    # Nor does it end the search: the first point asked about is such a one, the true success comes later.
    wider = PGD(threat=Threat(eps=0.01), start="zero")
    assert wider(model, x, y, precision="bf16", search=search).success.all()


def test_apgd_in_bf16_tells_the_float32_verdict_of_the_point_it_returns(model):
    x, y = right(model, 40)
    for search in ("full", "first"):
        result = APGD(threat=Threat(eps=0.03), steps=8)(model, x, y, precision="bf16", search=search)
        assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)


def test_auto_chooses_one_and_tells(model, caplog):
    x, y = right(model)
    with caplog.at_level(logging.INFO, logger="buttress"):
        result = PGD(steps=3)(model, x, y, precision="auto")
    assert result.precision in ("fp32", "bf16", "folded", "twin")
    assert f"search precision: {result.precision}" in caplog.text
    assert result.backwards.tolist() == [3] * 12  # what the timing takes is not counted
    assert Gaussian()(model, x, y, precision="auto").precision == "fp32"  # nothing to choose
    wide = PGD(steps=1)(nn.Sequential(nn.Flatten(), nn.Linear(36, 4).double()), x.double(), y, precision="auto")
    assert wide.precision == "fp32"


# -- memory ----------------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Room for three inputs at a time."""

    def __init__(self, model, room=3, error=torch.OutOfMemoryError):
        super().__init__()
        self.model, self.room, self.error = model, room, error

    def forward(self, x):
        if len(x) > self.room:
            raise self.error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return self.model(x)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("search", ["full", "first"])
def test_out_of_memory_halves_the_batch_and_says_so(model, caplog, search, error, precision):
    x, y = right(model, 13)
    plain = PGD(threat=Threat(eps=0.03))(model, x, y, search=search)
    with caplog.at_level(logging.WARNING, logger="buttress"):
        result = PGD(threat=Threat(eps=0.03))(Small(model, error=error), x, y, search=search, precision=precision)
    assert torch.equal(result.success, plain.success)
    if precision == "fp32":
        torch.testing.assert_close(result.x_adv, plain.x_adv)
    sizes = [int(n) for n in re.findall(r"halved to (\d+) inputs", caplog.text)]
    assert sizes == [6, 3]


def test_no_room_for_one_is_an_error_of_memory(model):
    x, y = right(model, 4)
    with pytest.raises(torch.OutOfMemoryError):
        PGD()(Small(model, room=0), x, y)


def test_other_errors_are_not_mistaken_for_memory(model):
    x, y = right(model, 4)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        PGD()(nn.Sequential(nn.Flatten(), nn.Linear(5, 4)), x, y)


# -- the caller's surroundings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients(model, around):
    x, y = right(model)
    expected = PGD()(model, x, y)
    with around():
        result = PGD()(model, x.clone(), y.clone(), ids=torch.arange(12))
    assert torch.equal(result.x_adv, expected.x_adv)
    assert torch.equal(result.success, expected.success)


def test_a_pending_backward_of_the_callers_survives(nets):
    model = nets.awkward(5).train()
    x, y = torch.rand(6, 5), torch.arange(6) % 4
    loss = F.cross_entropy(model(x), y)
    buffers = [b.clone() for b in model.buffers()]
    PGD(steps=2)(model, x, y, mode="train")
    loss.backward()
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))


def test_inputs_that_carry_a_graph_are_left_alone(model):
    x, y = right(model)
    leaf = x.clone().requires_grad_()
    result = PGD()(model, leaf * 1.0, y)
    assert leaf.grad is None
    assert not result.x_adv.requires_grad


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_model_that_draws_gives_the_same_bits_for_the_same_seed(mode):
    def noisy(x):
        z = x.flatten(1) + 0.1 * torch.randn(len(x), 36)
        return torch.stack([z.sum(1), z.square().sum(1), z[:, 0]], 1)

    x, y = batch()
    y = y % 3
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = PGD()(noisy, x, y, seed=1, mode=mode).x_adv
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    assert torch.equal(PGD()(noisy, x, y, seed=1, mode=mode).x_adv, first)


# -- models of other forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["(N,)", "(N, 1)", "(N, 2)"])
def test_binary_models_of_every_form_are_attacked_alike(form):
    weight = torch.tensor([1.0, -2.0, 0.5])

    def model(x):
        z = x @ weight
        return {"(N,)": z, "(N, 1)": z[:, None], "(N, 2)": torch.stack([torch.zeros_like(z), z], 1)}[form]

    x = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    y = (x @ weight > 0).long()
    result = BIM(threat=Threat(eps=0.1))(model, x, y)
    torch.testing.assert_close(result.x_adv, (x + 0.1 * weight.sign() * (1 - 2 * y[:, None])).clamp(0, 1))
    assert torch.equal(result.success, (result.x_adv @ weight > 0).long() != y)


def test_dlr_with_two_classes_warns_and_takes_the_margin(nets):
    model = nets.linear([[1.0, -2.0], [0.0, 0.0]])
    x, y = torch.rand(5, 2), torch.tensor([0, 1, 0, 1, 0])
    with pytest.warns(UserWarning, match="DLR needs 3 classes, the model has 2: the margin loss is used"):
        result = APGD(loss="dlr", steps=5)(model, x, y)
    torch.testing.assert_close(result.x_adv, APGD(loss="margin", steps=5)(model, x, y).x_adv)


def test_an_output_that_is_not_a_number_counts_as_beaten_once_the_model_has_shown_numbers():
    def model(x):
        z = x.sum(1)
        return torch.stack([torch.where(z > 1.05, torch.nan, 2 - z), z - 1.5], 1)

    x, y = torch.full((2, 2), 0.5), torch.zeros(2, dtype=torch.long)
    result = BIM(threat=Threat(eps=0.1))(model, x, y)
    assert result.success.all()
    assert not BIM(threat=Threat(eps=0.1))(model, x, y, target=torch.ones(2, dtype=torch.long)).success.any()


class Registering(nn.Module):
    """A network that registers a buffer when it runs."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 3)

    def forward(self, x):
        self.register_buffer("seen", x.detach())
        return self.inner(x)


def test_a_buffer_that_a_pass_registers_goes_with_it():
    net = Registering()
    PGD(threat=Threat(eps=0.1), steps=2)(net, torch.rand(3, 4), torch.zeros(3, dtype=torch.int64))
    assert "seen" not in dict(net.named_buffers())
