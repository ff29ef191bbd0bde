"""Minimum-norm attacks: linear models, where the nearest boundary is known, and what holds for all of them."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from buttress import registry
from buttress.attacks.minimum_norm.smallest_perturbation import MinimumNorm
from buttress.errors import UserError
from buttress.threat import Threat

MEMBERS = [name for name in registry.attack.names() if issubclass(registry.attack.get(name), MinimumNorm)]
DUAL = {"l2": 2, "linf": 1, "l1": math.inf}
WEIGHT = torch.tensor([0.9, -2.0, 0.3, 1.1, -0.2, 0.05, -1.3, 0.7, 0.4, -0.6], dtype=torch.float64)
# What each gradient method needs to come within 2% on a linear model, and its norms.
ADEQUATE = {
    "cw": ({"steps": 100, "lr": 0.02}, ["l2"]),
    "deepfool": ({"steps": 50}, ["l2", "linf"]),
    "ddn": ({"steps": 200}, ["l2"]),
    "fmn": ({"steps": 200}, ["l1", "l2", "linf"]),
    "lbfgs": ({"steps": 20, "search_steps": 10}, ["l2"]),
}
CASES = [(name, norm) for name, (_, norms) in ADEQUATE.items() for norm in norms]
CELLS = 300  # of the grid that measures distances by brute force
OVERSHOOT = 1e-4  # what DeepFool adds to each step


def adequate(name, norm, box, **more):
    threat = Threat(norm=norm, eps=math.inf if box else 1e6, box=box)
    return registry.attack.get(name)(threat=threat, **{**ADEQUATE[name][0], **more})


def bound(name, norm, exact):
    """2% over the exact distance; DeepFool's 2% are taken of steps that are a constant longer."""
    return 1.02 * (exact + (OVERSHOOT if name == "deepfool" else 0.0)) + 1e-6


def known(name, norm, **fields):
    """The member under a threat of this norm with those of the fields that it has; None where it refuses the norm."""
    member = registry.attack.get(name)
    names = {field.name for field in dataclasses.fields(member)}
    budget = {"steps": 20, "queries": 100, "restarts": 1, "search_steps": 3, "lr": 0.1, "c": 1.0, **fields}
    threat = Threat(norm=norm, eps=math.inf)
    try:
        return member(**{"threat": threat, **{key: value for key, value in budget.items() if key in names}})
    except UserError as refusal:
        if norm not in str(refusal):
            raise
        return None


def two_classes(nets, logits):
    """A boundary through the middle of the unit cube; inputs of both classes, with the truth and the signed height."""
    x = 2 * torch.rand(20, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 0.5
    x = x.clamp(0.02, 0.98)  # many near an edge, so that the box is felt
    x = x[((x - 0.5) @ WEIGHT).abs() > 0.3][:9]  # none so near that a step leads across
    height = (x - 0.5) @ WEIGHT
    weight = WEIGHT[None] if logits == 1 else torch.stack([-WEIGHT / 2, WEIGHT / 2])
    model = nets.linear(weight, -0.5 * weight.sum(1))
    return model, x, (height > 0).long(), height


def near_the_boundary(nets, dtype=torch.float32):
    """A curved net and the ten of many random inputs of which it is least sure, with its answers as the truth."""
    model = nets.conv(seed=3, dtype=dtype)
    x = torch.rand(300, 1, 6, 6, dtype=dtype, generator=torch.Generator().manual_seed(0))
    top = model(x).detach().topk(2, dim=1)
    order = (top.values[:, 0] - top.values[:, 1]).argsort()[5:15]
    return model, x[order], top.indices[order, 0]


def nearest_in_the_box(x, height, norm):
    """The smallest perturbation within [0, 1] that takes the height to 0, by bisection on the optimum's one unknown."""
    room = torch.where(-height.sign()[:, None] * WEIGHT > 0, 1 - x, x)
    size = WEIGHT.abs()
    if norm == "l1":  # the largest weights first, each as far as there is room
        order = size.argsort(descending=True)
        gains = (room * size)[:, order].cumsum(1)
        before = gains - (room * size)[:, order]
        used = ((height.abs()[:, None] - before) / size[order]).clamp(min=0).minimum(room[:, order])
        return used.sum(1)
    shape = size if norm == "l2" else torch.ones_like(size)
    low, high = torch.zeros(len(x), 1, dtype=x.dtype), torch.full((len(x), 1), 1e3, dtype=x.dtype)
    for _ in range(100):
        middle = (low + high) / 2
        enough = ((middle * shape).minimum(room) * size).sum(1, keepdim=True) >= height.abs()[:, None]
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return torch.linalg.vector_norm((high * shape).minimum(room), 2 if norm == "l2" else math.inf, dim=1)


@pytest.mark.representatives(box=[(0.0, 1.0)], logits=[1])
@pytest.mark.parametrize(
    ("logits", "targeted", "dtype"),
    [(1, False, torch.float64), (2, True, torch.float64), (2, False, torch.float32)],
)
@pytest.mark.parametrize("box", [None, (0.0, 1.0)])
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_distance_to_a_plane(nets, name, norm, logits, box, targeted, dtype):
    model, x, y, height = two_classes(nets, logits)
    exact = height.abs() / torch.linalg.vector_norm(WEIGHT, DUAL[norm])
    if box:
        unboxed, exact = exact, nearest_in_the_box(x, height, norm)
        assert (exact >= unboxed - 1e-12).all()
        assert (exact > unboxed * 1.001).any()  # the box is felt
    result = adequate(name, norm, box)(model.to(dtype), x.to(dtype), y, target=1 - y if targeted else None)
    assert result.success.all()
    assert (result.distance >= exact - 1e-6).all()
    assert (result.distance <= bound(name, norm, exact)).all()


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_the_nearest_of_three_planes(nets, name, norm):
    generator = torch.Generator().manual_seed(4)
    weight = 20 * torch.randn(3, 8, dtype=torch.float64, generator=generator)  # so that softmax sees one rival
    x = torch.rand(12, 8, dtype=torch.float64, generator=generator)
    bias = -(weight @ x.mean(0))
    logits = x @ weight.T + bias
    y = logits.argmax(1)
    assert len(set(y.tolist())) == 3
    gaps = logits.gather(1, y[:, None]) - logits
    faces = gaps / torch.linalg.vector_norm(weight[None] - weight[y][:, None], DUAL[norm], dim=2)
    exact = faces.scatter(1, y[:, None], math.inf).amin(1)
    strongest = gaps.scatter(1, y[:, None], math.inf).argmin(1)
    followed = faces.gather(1, strongest[:, None]).squeeze(1)  # where the margin leads to, and the loss
    assert 0 < (followed > 1.05 * exact).sum() < 6
    result = adequate(name, norm, None)(nets.linear(weight, bias), x, y)
    assert result.success.all()
    assert (result.distance >= exact - 1e-9).all()
    assert (result.distance <= bound(name, norm, exact if name == "deepfool" else followed)).all()


@pytest.mark.parametrize("name", [name for name in ADEQUATE if "l2" in ADEQUATE[name][1]])
def test_the_nearest_point_of_a_targets_region(nets, name):
    """Three classes: the region is a wedge, its nearest point on a face or on the edge, both by plain algebra."""
    generator = torch.Generator().manual_seed(4)
    weight = 20 * torch.randn(3, 8, dtype=torch.float64, generator=generator)
    x = torch.rand(12, 8, dtype=torch.float64, generator=generator)
    bias = -(weight @ x.mean(0))
    logits = x @ weight.T + bias
    y = logits.argmax(1)
    target = logits.argmin(1)
    exact, straight = [], []
    for row in range(len(x)):
        others = [k for k in range(3) if k != target[row]]
        normals = weight[target[row]] - weight[others]  # (2, 8), and the region is normals @ (x + d) + offsets >= 0
        gaps = normals @ x[row] + bias[target[row]] - bias[others]
        ways = [-gaps[k] * normals[k] / normals[k].square().sum() for k in range(2)]
        inside = [bool((normals @ way + gaps >= -1e-9).all()) for way in ways]
        straight.append(inside[int(gaps.argmin())])  # the strongest rival's face is the nearest, and enough
        edge = normals.T @ torch.linalg.solve(normals @ normals.T, -gaps)
        exact.append(
            min([float(way.norm()) for way, fits in zip(ways, inside, strict=True) if fits], default=edge.norm())
        )
    exact, straight = torch.tensor(exact, dtype=torch.float64), torch.tensor(straight)
    assert straight.any()
    assert not straight.all()
    result = adequate(name, "l2", None)(nets.linear(weight, bias), x, y, target=target)
    assert torch.equal((result.x_adv @ weight.T + bias).argmax(1), target)
    assert (result.distance >= exact - 1e-9).all()
    rows = straight | (name not in ("deepfool", "fmn"))  # these step from face to face
    assert (result.distance <= bound(name, "l2", exact) * 1.005)[rows].all()


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("norm", ["l1", "l2", "linf"])
def test_what_is_wrong_already_stays_and_the_verdict_holds(nets, name, norm):
    attack = known(name, norm)
    if attack is None:
        return
    model = nets.conv(seed=3)
    x = torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    clean = model(x).argmax(1)
    y = torch.where(torch.arange(8) < 3, (clean + 1) % 4, clean)
    result = attack(model, x, y, seed=1)
    assert torch.equal(result.x_adv[:3], x[:3])
    assert (result.distance[:3] == 0).all()
    assert result.success[:3].all()
    assert torch.equal(result.success, model(result.x_adv).argmax(1) != y)
    torch.testing.assert_close(
        result.distance, torch.linalg.vector_norm((result.x_adv.double() - x.double()).flatten(1), _order(norm), dim=1)
    )
    assert (result.distance[3:] > 0)[result.success[3:]].all()


@pytest.mark.parametrize("name", MEMBERS)
def test_a_target_that_is_there_already_costs_nothing(nets, name):
    attack = next(attack for norm in ("l2", "linf", "l1") if (attack := known(name, norm)))
    model = nets.conv(seed=3)
    x = torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    clean = model(x).argmax(1)
    result = attack(model, x, (clean + 1) % 4, target=clean, seed=1)
    assert torch.equal(result.x_adv, x)
    assert result.success.all()


@pytest.mark.parametrize("name", MEMBERS)
def test_a_model_that_nothing_beats_is_told_so_and_its_inputs_stay(nets, name):
    attack = next(attack for norm in ("l2", "linf", "l1") if (attack := known(name, norm)))
    model = nets.linear(torch.tensor([[0.1] * 6, [-0.1] * 6]), torch.tensor([50.0, -50.0]))
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    result = attack(model, x, torch.zeros(4, dtype=torch.long), seed=1)
    assert not result.success.any()
    assert torch.equal(result.x_adv, x)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_finite_eps_decides_what_counts(nets, name):
    """An input falls under a budget when the smallest perturbation fits it, whether it may leave early or not."""
    norm = next(norm for norm in ("l2", "linf", "l1") if known(name, norm))
    model, x, y = near_the_boundary(nets)
    free = known(name, norm)(model, x, y, seed=1)
    if not free.success.any():
        assert name not in ADEQUATE  # those that ask for outputs only may need more queries
        return
    eps = float(free.distance[free.success].median()) + 1e-6
    tight = known(name, norm, threat=Threat(norm=norm, eps=eps))
    full = tight(model, x, y, seed=1)
    assert (full.distance <= eps).all()
    assert full.success[free.success & (free.distance < eps - 1e-5)].all()
    assert full.success.sum() > 0
    first = tight(model, x, y, seed=1, search="first")
    assert first.success[full.success].all()
    assert (first.forwards <= full.forwards).all()


@pytest.mark.parametrize("name", ADEQUATE)
def test_an_input_fares_alike_in_any_company(nets, name):
    """In float64, where what a batch rounds differently does not show after a few steps."""
    model, x, y = near_the_boundary(nets, torch.float64)
    ids = torch.tensor([100, 3, 57, 2**40, 8, 0, 11, 12, 13, 14])
    attack = known(name, "l2", steps=15)
    whole = attack(model, x, y, ids=ids)
    assert whole.success.any()
    for rows in (torch.tensor([4, 1]), torch.tensor([2])):
        part = attack(model, x[rows], y[rows], ids=ids[rows])
        torch.testing.assert_close(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-9)


def _order(norm):
    return {"l1": 1, "l2": 2, "linf": math.inf}[norm]


@pytest.fixture(scope="module")
def curved(nets):
    """A net on two coordinates with three curved sectors, inputs, and their distances by brute force."""
    x = torch.rand(300, 2, generator=torch.Generator().manual_seed(0))
    y = ((torch.atan2(x[:, 1] - 0.5, x[:, 0] - 0.5) / (2 * math.pi) + x.norm(dim=1) / 3) % 1 * 3).long()
    model = nets.seeded(lambda: nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 3)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    x = x[:30]
    ticks = torch.linspace(0, 1, CELLS + 1)
    grid = torch.cartesian_prod(ticks, ticks)
    with torch.no_grad():
        y, answer = model(x).argmax(1), model(grid).argmax(1)
    assert len(set(answer.tolist())) == 3
    exact = {}
    for norm in ("l1", "l2", "linf"):
        rows = [torch.linalg.vector_norm(grid[answer != y[i]] - x[i], _order(norm), dim=1).min() for i in range(30)]
        exact[norm] = torch.stack(rows).double()
    first_found = adequate("deepfool", "l2", (0.0, 1.0))(model, x, y).distance
    return model, x, y, exact, first_found


@pytest.mark.parametrize(("name", "norm"), CASES)
def test_on_a_curved_boundary_none_is_below_the_truth_and_few_are_far_above(curved, name, norm):
    model, x, y, exact, first_found = curved
    result = adequate(name, norm, (0.0, 1.0), **({"lr": 0.05} if name == "cw" else {}))(model, x, y)
    assert result.success.float().mean() >= 0.9
    distance = torch.where(result.success, result.distance, math.inf)
    cell = 2 / CELLS  # how far the nearest point of the grid may be from the nearest point
    assert (distance >= exact[norm] - cell).all()
    assert (distance <= 1.1 * exact[norm] + cell).float().mean() >= (0.6 if name == "deepfool" else 0.75)
    if norm == "l2" and name != "deepfool":  # it stops at the first point, these go on
        assert distance.median() <= first_found.median()
        assert (distance <= 1.05 * first_found + 1e-3).float().mean() >= 0.85


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("cw", {"threat": Threat(norm="linf")}, "CW is defined in l2; got linf"),
        ("ddn", {"threat": Threat(norm="l1")}, "DDN is defined in l2; got l1"),
        ("lbfgs", {"threat": Threat(norm="linf")}, "LBFGS is defined in l2; got linf"),
        ("deepfool", {"threat": Threat(norm="l1")}, "DeepFool is defined in l2 and linf; got l1"),
        *((name, {"threat": Threat(norm="l2", eps=math.inf, box=None)}, "finite eps or a box") for name in ADEQUATE),
        *((name, {"steps": 0}, "steps must be a whole number of 1 or more; got 0") for name in ADEQUATE),
        ("cw", {"search_steps": 0}, "search_steps must be a whole number of 1 or more"),
        ("cw", {"c": 0.0}, "c must be a finite number above 0"),
        ("cw", {"lr": math.inf}, "lr must be a finite number above 0"),
        ("cw", {"confidence": -1.0}, "confidence must be a finite number of 0 or more"),
        ("deepfool", {"overshoot": -0.1}, "overshoot must be"),
        ("deepfool", {"candidates": 0}, "candidates must be a whole number of 1 or more"),
        ("ddn", {"gamma": 1.0}, r"gamma must be a number in \(0, 1\)"),
        ("ddn", {"radius": 0.0}, "radius must be a finite number above 0"),
        ("ddn", {"levels": 1}, "levels must be a whole number of 2 or more"),
        ("ddn", {"levels": 256, "threat": Threat(norm="l2", box=None)}, "levels divide the box"),
        ("fmn", {"gamma": 0.0}, r"gamma must be a number in \(0, 1\)"),
        ("fmn", {"step_size": 0.0}, "step_size must be a finite number above 0"),
        ("lbfgs", {"c": -1.0}, "c must be a finite number above 0"),
        ("lbfgs", {"search_steps": 0}, "search_steps must be a whole number of 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(name, fields, words):
    with pytest.raises(UserError, match=words):
        registry.attack.get(name)(**fields)
