"""The monitor of layers that no longer tell inputs apart: its figure by hand, and when it fires."""

import pytest
import torch
from torch import nn

from buttress.attacks.gradient.pgd import PGD
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.jobs import Network
from buttress.threat import Threat
from buttress.training import Interrupted, Optimiser, fit
from buttress.training.monitors import LayerCollapse
from buttress.training.monitors.base import Moment
from buttress.training.monitors.layer_collapse import Variety


@pytest.fixture
def look(images, nets):
    """Ask a monitor about a network, as at the end of an epoch, with a memory that lasts."""
    memory: dict[str, object] = {}

    def ask(monitor, model, question="after_epoch", step=4):
        batch = type("Batch", (), {"x": torch.zeros(2, 1, 6, 6)})()
        moment = Moment(model, images, batch, None, step, 4, 1, 2, 0, {}, memory, dict)
        return getattr(monitor, question)(moment), moment.figures

    return ask


class Line(nn.Module):
    """One layer: a line of the image's mean."""

    def __init__(self, slope, offset):
        super().__init__()
        self.slope, self.offset, self.act = slope, offset, nn.Identity()

    def forward(self, x):
        h = self.act(self.slope * x.mean((1, 2, 3))[:, None] + self.offset)
        return torch.cat([h, -h, 0 * h, 0 * h], 1)


@pytest.fixture
def means(images):
    """Of the images that the monitor looks at: all that are trained on."""
    part = images.train.stratified(256, 0)
    return part.take(torch.arange(len(part)))[0].mean((1, 2, 3))


def test_the_spread_and_the_share_at_one_value_by_hand(look, means):
    for slope, offset in ((1.0, 0.0), (3.0, 2.0), (1e-20, 0.0), (0.0, 1.0), (0.0, 0.0)):
        value = slope * means.double() + offset
        size = float(value.square().mean().sqrt())
        expected = float(value.std(correction=0)) / size if size else 0.0
        _, figures = look(LayerCollapse(layers="act"), Line(slope, offset))
        near = (value[:, None] - value).abs() <= 0.01 * value.std(correction=0)
        common = pytest.approx(float(near.double().mean(1).max()))
        spread, dimensions = pytest.approx(expected, rel=1e-4, abs=1e-7), pytest.approx(float(slope != 0), rel=1e-4)
        assert figures == {"spread act": spread, "common act": common, "dimensions act": dimensions}


def test_dimensions_are_the_participation_ratio_of_the_covariance():
    draw = torch.Generator().manual_seed(0)
    for scales in ((1.0, 1.0, 1.0), (3.0, 1.0, 0.1), (1e-20, 1e-20, 0.0), (1.0, 0.0, 0.0)):
        values = 5 * scales[0] + torch.randn(50, 3, generator=draw) * torch.tensor(scales)
        eigenvalues = torch.linalg.eigvalsh(values.double().T.cov(correction=0) / scales[0] ** 2)
        expected = float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())
        assert Variety.of(values.view(50, 1, 3)).dimensions == pytest.approx(expected, rel=1e-3)


class Plane(Line):
    """Four numbers of each image, along as many directions as wanted."""

    def __init__(self, directions):
        super().__init__(1.0, 0.0)
        self.weights = torch.tensor([1.0] * directions + [1e-3] * (4 - directions))

    def forward(self, x):
        return self.act(x[:, 0, 0, :4] * self.weights)


def test_values_on_a_line_have_collapsed_where_they_were_not(look):
    """Four classes are not told apart along a line; a layer that was a line from the start is left alone."""
    wide, line, monitor = Plane(4), Plane(1), LayerCollapse(layers="act")
    assert look(monitor, line)[0] is None
    look(monitor, wide, "after_step", 1)
    answers = [look(monitor, model)[0] for model in (wide, line)]
    assert answers[0] is None
    assert answers[1].text.startswith("values hardly differ between inputs at act (in 1.0 dimensions)")


def test_dimensions_are_compared_with_the_reference(look):
    two = Plane(2)  # of 1.6 dimensions
    for usual, fires in ((2.5, False), (6.0, True)):
        answer, _ = look(LayerCollapse(layers="act", reference={"dimensions act": usual}), two)
        assert (answer is not None) == fires


class Bump(Line):
    """A ReLU that is 0 for the images whose mean is below a threshold."""

    def __init__(self, threshold):
        super().__init__(1.0, -float(threshold))
        self.act = nn.ReLU()


@pytest.mark.parametrize(("share", "fires"), [(0.0, False), (0.5, False), (0.84, True), (0.97, True), (1.0, True)])
def test_a_layer_that_is_0_for_most_inputs_has_collapsed_however_large_its_spread(share, fires, look, means):
    """The largest of four classes has a quarter of the inputs: more than 5/8 at one value are too many."""
    threshold = means.double().quantile(share) + 1e-6 if share else -1.0
    answer, figures = look(LayerCollapse(layers="act"), Bump(threshold))
    assert figures["spread act"] > 0.7 or share in (0.0, 1.0)
    assert (answer is not None) == fires
    if fires:
        assert f"{float((means <= threshold).double().mean()):.0%} of the inputs at one value" in answer.text


def test_a_layer_that_was_at_one_value_from_the_start_is_told_when_it_collapses_again(look, means):
    monitor, dead, alive = LayerCollapse(layers="act"), Bump(2.0), Bump(-1.0)
    look(monitor, dead, "after_step", 1)
    answers = [look(monitor, model)[0] for model in (dead, alive, dead)]
    assert [answer and answer.text.split(" (")[0] for answer in answers] == [
        None,
        "values differ between inputs again at act",
        "values hardly differ between inputs at act",
    ]


def test_the_reference_counts_where_the_layer_was_never_as_usual(look, means):
    """A layer that was regularised from the start has no largest spread of its own."""
    flat = Line(1.0, 1.0)
    own = look(LayerCollapse(layers="act"), flat)[1]["spread act"]
    for times, fires in ((2.9, False), (3.1, True)):
        answer, _ = look(LayerCollapse(layers="act", reference={"spread act": times * own, "spread other": 9.0}), flat)
        assert (answer is not None) == fires
    assert f"act (by {own:.1%} of its size, usual are {3.1 * own:.1%})" in answer.text


def test_it_fires_once_by_name_and_again_after_a_recovery(look):
    monitor, alive, flat = LayerCollapse(layers="act"), Line(1.0, 0.0), Line(1.0, 20.0)
    answers = [look(monitor, model)[0] for model in (alive, flat, flat, alive, flat)]
    assert [answer is not None for answer in answers] == [False, True, False, True, True]
    assert answers[1].kind == answers[3].kind == "note"
    assert answers[1].text.startswith("values hardly differ between inputs at act (by 0.")
    assert answers[3].text == "values differ between inputs again at act"
    assert "\n" not in answers[1].text


def test_the_start_of_training_counts(look):
    look(monitor := LayerCollapse(layers="act", then="stop"), Line(1.0, 0.0), "after_step", 1)
    answer, _ = look(monitor, Line(1.0, 20.0))
    assert answer.ends
    assert answer.text.endswith("training stops")


def test_scale_is_no_collapse(look):
    monitor = LayerCollapse(layers="act")
    assert [look(monitor, Line(slope, 0.0))[0] for slope in (1.0, 1e-6, 1e-25)] == [None] * 3


@pytest.fixture
def run(nets, images):
    """Four epochs of the paper's measure on a hidden layer of tanh."""

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))

    def train(gamma, **options):
        base = AdversarialTraining(PGD(threat=Threat(eps=0.1), steps=2))
        defence = LayerRegularised(base, layers=["4"], gamma=gamma, measure="relative_error")
        settings = {"epochs": 4, "batch_size": 12, "seed": 3, "optimiser": Optimiser(lr=0.02), "validate_with": "none"}
        return fit(nets.seeded(build, 0), images, defence, keep="last", **{**settings, **options})

    return train


def test_the_papers_measure_collapses_a_layer_and_the_log_says_so(run):
    monitors = [LayerCollapse(layers=["4"])]
    base, spoilt = (run(gamma, monitors=monitors) for gamma in (0.0, 30.0))
    assert not base.notes
    assert len(spoilt.notes) == 1
    assert "values hardly differ between inputs at 4 (" in spoilt.notes[0]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("cnn", {"width": 4}),
        ("zerosnet", {"blocks": 1, "width": 4, "discretisation": "resnet"}),
        ("vit", {"width": 8, "depth": 2, "heads": 2, "patch": 3, "pool": "patches"}),
    ],
)
def test_training_without_regularisation_is_no_collapse(model, options, images):
    network = Network(model=model, model_args=options).create(images, 0)
    base = AdversarialTraining(PGD(threat=Threat(eps=0.1), steps=2))
    settings = {"epochs": 3, "batch_size": 12, "optimiser": Optimiser(name="adam", lr=0.01), "validate_with": "none"}
    trained = fit(network, images, base, monitors=[LayerCollapse()], **settings)
    assert trained.notes == []
    assert sum(name.startswith("dimensions ") for name in trained.history[-1]) > 1


def test_by_option_training_stops_there(run):
    ended = run(30.0, monitors=[LayerCollapse(layers=["4"], then="stop")])
    assert len(ended.history) < 4
    assert ended.notes[0].endswith("training stops")


def test_what_it_remembers_survives_a_stop(run, tmp_path, stop_at, same):
    whole, options = run(30.0, monitors=[LayerCollapse()]), {"monitors": [LayerCollapse()], "out": tmp_path / "run"}
    with pytest.raises(Interrupted):
        run(30.0, progress=stop_at(4), **options)
    again = run(30.0, resume=True, **options)
    same(again.history, whole.history)
    assert again.notes == whole.notes
    assert {"spread 2", "spread 4"} <= set(whole.history[-1])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"share": 1.0}, "share must be"),
        ({"then": "rollback"}, "then must be one of note, stop; got 'rollback'"),
        ({"inputs": 1}, "inputs must be"),
        ({"reference": {"spread a": -1.0}}, "the reference of spread a must be a finite number of 0 or more; got -1.0"),
    ],
)
def test_settings_that_mean_nothing(settings, line):
    with pytest.raises(UserError, match=line):
        LayerCollapse(**settings)


def test_an_unknown_layer_is_told_at_the_first_step(run):
    with pytest.raises(UserError, match="no layer is called or matches 'relu9'"):
        run(0.0, monitors=[LayerCollapse(layers=["relu9"])])
