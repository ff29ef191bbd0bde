"""The loss around inputs in closed form: of linear and of quadratic margins, of any shape, in every norm."""

import math

import pytest
import torch

from buttress import audits, registry
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.surface.audit import Surface, surface_losses
from buttress.audits.surface.directions import across, budget_line, moved, random_steps, steepest, towards
from buttress.errors import NoGradientError, UserError
from buttress.random import Random
from buttress.threat import Threat

EPS = 0.2
FREE = Threat(eps=EPS, box=None)
WEIGHTS = torch.tensor([1.0, -2.0, 0.5])


class Margin(torch.nn.Module):
    """Two classes of inputs of three features, any function of w x as the logit of the second over the first."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        lead = self.function(x.flatten(1) @ WEIGHTS.to(x))
        return torch.stack([-lead / 2, lead / 2], 1)


@pytest.fixture(scope="module")
def inputs():
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    return x, (x @ WEIGHTS > 0).long()


def ask(function, data, threat=FREE, batch_size=256, **settings):
    settings = {"attack": PGD(threat=threat, steps=2), "grid": 5, "inputs": 20, **settings}
    return Surface(**settings).ask(audits.subject(Margin(function), [data], batch_size=batch_size))


def figures(tree):
    """All numbers in plain data, in order."""
    if isinstance(tree, dict | list | tuple):
        return [number for part in (tree.values() if isinstance(tree, dict) else tree) for number in figures(part)]
    return [] if tree is None or isinstance(tree, str) else [tree]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_linear_margin_is_its_tangent(inputs, norm):
    finding = ask(lambda lead: 3 * lead, inputs, Threat(norm=norm, eps=EPS, box=None))
    measures = finding.data["measures"]["margin"]
    for name in ("linearity_error", "share_of_rise", "curvature", "roughness"):
        assert abs(measures[name]["high"]) < 1e-5
    dual = {"linf": 3.5, "l2": math.sqrt(5.25), "l1": 2.0}[norm]
    assert measures["rise"]["median"] == pytest.approx(3 * EPS * dual, rel=1e-5)
    steeper = finding.data["steeper"]
    assert (steeper["near"]["inputs"], steeper["budget"]["inputs"], steeper["flat"]) == (0, 0, 0)
    assert finding.severity == "info"
    assert finding.verdict == (
        f"Within {norm} eps 0.2 the margin departs from its tangent by 0.0% (0.0% to 0.0%) of the rise that the "
        "gradient predicts (median of 20 inputs). At a tenth of the budget no random direction is steeper than the "
        "gradient."
    )


def test_its_surface_is_a_plane(inputs):
    finding = ask(lambda lead: lead, inputs)
    for item in finding.data["items"]:
        start = item["surfaces"]["margin"][2][2]
        rises = item["tangents"]["margin"]
        assert rises == pytest.approx([EPS * 3.5 * place for place in finding.data["axis"]], rel=1e-4)
        side = item["surfaces"]["margin"][3][2] - start
        for a, row in zip(finding.data["axis"], item["surfaces"]["margin"], strict=True):
            for rise, value in zip(rises, row, strict=True):
                assert value == pytest.approx(start + rise + a * side, abs=1e-4)


def test_a_quadratic_margin_in_closed_form(inputs):
    """The margin of class 1 is -(s + s^2), s = w x: its second difference along u is -2 (w u)^2, times the side.

    And so is twice its departure from the tangent, which is largest where |w d| is: 3.5 eps in linf.
    """
    x, y = inputs
    positive = x[y == 1], y[y == 1]
    finding = ask(lambda s: s + s.square(), positive, draws=2)
    measures, reach = finding.data["measures"]["margin"], EPS * WEIGHTS.abs().sum()
    assert measures["curvature"]["median"] == pytest.approx(float(-2 * reach**2), rel=1e-4)
    assert measures["linearity_error"]["low"] == pytest.approx(float(reach**2), rel=1e-4)
    assert measures["linearity_error"]["high"] == pytest.approx(float(reach**2), rel=1e-4)


def test_ups_and_downs_cancel_out(inputs):
    """Four whole waves on the way, seen at each quarter wave: 16 a up and down in all, and the line's rise remains."""
    way, height = EPS * 3.5, 2.0
    waves = 8 * math.pi / way
    x, y = inputs
    away = (x * 3, y)
    rough = ask(lambda s: s + height * (waves * s).cos(), away, inputs=40)
    found = rough.data["measures"]["margin"]["roughness"]
    assert found["low"] > 0.7
    assert found["high"] < 1
    monotone = ask(lambda s: s + 0.9 * (waves * s).cos() / waves, away, inputs=40)
    assert monotone.data["measures"]["margin"]["roughness"]["high"] < 1e-5


def test_a_gradient_of_its_own_making_is_told(inputs):
    """The value is that of w x, the gradient that of the features in another order."""

    def astray(x):
        turned = x.flip(1) @ torch.tensor([1.0, 1.0, 1.0])
        lead = x.detach() @ WEIGHTS + turned - turned.detach()
        return torch.stack([-lead / 2, lead / 2], 1)

    class Astray(torch.nn.Module):
        def forward(self, x):
            return astray(x)

    subject = audits.subject(Astray(), [inputs])
    finding = Surface(attack=PGD(threat=FREE, steps=2), grid=3, inputs=40).ask(subject)
    assert finding.data["steeper"]["near"]["share"] > 0.9
    assert finding.severity == "warning"
    assert "a sign that gradients do not say where it rises (masking)" in finding.verdict


def test_a_network_without_gradients_is_told_by_the_run(inputs):
    subject = audits.subject(Margin(lambda s: s.detach()), [inputs])
    with pytest.raises(NoGradientError):
        Surface(attack=PGD(threat=FREE, steps=1)).ask(subject)


def test_a_flat_margin_has_no_rise_to_compare_with(inputs):
    x, _ = inputs
    finding = ask(lambda s: 0 * s + 1, (x, torch.ones(40, dtype=torch.long)))
    assert finding.data["steeper"]["flat"] == 20
    assert finding.data["measures"]["margin"]["share_of_rise"] is None
    assert finding.verdict == "Within linf eps 0.2 there is no gradient of the margin to follow, on any of 20 inputs."


def test_where_nothing_is_right_there_is_nothing_to_look_at(inputs):
    x, y = inputs
    assert "No input is classified correctly" in ask(lambda s: s, (x, 1 - y)).verdict


def test_three_inputs_by_their_margin_the_same_for_any_batch_size(inputs):
    first = ask(lambda s: s + 0.1 * s.square(), inputs)
    margins = [item["surfaces"]["margin"][2][2] for item in first.data["items"]]
    assert [item["margin"] for item in first.data["items"]] == ["small", "medium", "large"]
    assert margins[0] > margins[1] > margins[2]
    again = ask(lambda s: s + 0.1 * s.square(), inputs, batch_size=7)
    assert figures(again.data) == pytest.approx(figures(first.data), abs=1e-5)


def test_of_one_input_it_is_shown_once(inputs):
    x, y = inputs
    finding = ask(lambda s: s, (x[:1], y[:1]))
    assert [item["margin"] for item in finding.data["items"]] == ["small"]


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4), (3, 2, 5, 2)])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_directions_are_at_right_angles_and_as_long_as_the_budget(shape, norm):
    random = torch.Generator().manual_seed(1)
    x, grad = (torch.randn(6, *shape, generator=random) for _ in range(2))
    mask = torch.ones(shape, dtype=torch.bool)
    mask.view(-1)[0] = len(mask.view(-1)) < 3  # the first feature may not change, where there are others
    threat = Threat(norm=norm, eps=EPS, box=None, mask=mask)
    ids = torch.arange(6)
    along = steepest(threat, x, grad)
    side = across(threat, along, Random(0, ids))
    for step in (along, side, towards(threat, x, x + threat.free(grad)), *random_steps(threat, x, Random(1, ids), 2)):
        assert threat.size(step).tolist() == pytest.approx([EPS] * 6, rel=1e-6)
        assert bool((step[:, ~mask] == 0).all())
    assert (along * side).flatten(1).sum(1).abs().max() < 1e-9
    reach = [torch.tensor(part, dtype=torch.float64) for part in budget_line(threat, along[:1], side[:1])]
    for a, b in zip(*reach, strict=True):
        assert float(threat.size(a * along[:1] + b * side[:1])) == pytest.approx(EPS)


def test_a_single_feature_has_nothing_across():
    threat = Threat(eps=EPS, box=None)
    along = steepest(threat, torch.zeros(2, 1), torch.ones(2, 1))
    side = across(threat, along, Random(0, torch.arange(2)))
    assert not side.any()
    assert budget_line(threat, along, side) == ([], [])


def test_points_stay_in_the_range_of_inputs():
    x = torch.tensor([[0.1, 0.9]])
    assert moved(Threat(eps=0.5), x, torch.tensor([[-0.5, 0.5]]).double()).tolist() == [[0.0, 1.0]]


def test_the_attacks_direction_leads_to_its_example(inputs):
    _, y = inputs
    subject = audits.subject(Margin(lambda s: s), [inputs])
    attack = PGD(threat=FREE, steps=20)
    finding = Surface(attack=attack, direction="attack", grid=5, reach=1.0).ask(subject)
    x_adv = subject.attacked(attack).outcome.x_adv
    for item in finding.data["items"]:
        row = item["id"]
        reached = item["surfaces"]["margin"][2][4]
        expected = float((1 - 2 * y[row]) * (x_adv[row] @ WEIGHTS))
        assert reached == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["classification", "multi-label", "regression", "ordinal", "denoising"])
def test_every_task_names_the_losses_that_are_looked_at(name):
    task = registry.task.get(name)()
    losses = surface_losses(task)
    assert task.objective_loss in losses
    assert list(losses)[-1] == "margin"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"grid": 4}, "grid must be odd"),
        ({"direction": "up"}, "direction"),
        ({"reach": 0.0}, "reach"),
        ({"inputs": 0}, "inputs"),
    ],
)
def test_settings_that_show_nothing_are_refused(settings, told):
    with pytest.raises(UserError, match=told):
        Surface(**settings)


def test_an_attack_without_a_budget_is_refused(inputs):
    subject = audits.subject(Margin(lambda s: s), [inputs])
    with pytest.raises(UserError, match="surface looks as far as a budget: give PGD-20 an eps; got inf"):
        Surface(attack=PGD(threat=Threat(eps=math.inf, box=(-5.0, 5.0)), steps=20)).check(subject)
