"""Bad input is answered in one line that says what was expected, what came and what to do."""

import pytest
import torch
from torch import nn

from buttress.attacks import APGD, BIM, FGSM, MIFGSM, PGD, Gaussian, Pepper, Salt, SaltAndPepper, Speckle, Uniform
from buttress.errors import UserError
from buttress.tasks import Denoising
from buttress.threat import Threat

WANTED = 'a class, or one for each input, as integers; "least_likely" or "random"'
X, Y = torch.full((4, 1, 6, 6), 0.25), torch.tensor([0, 1, 2, 3])


def refused(model, x=X, y=Y, attack=None, **options):
    with pytest.raises(UserError) as caught:
        (attack or PGD(steps=2))(model, x, y, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def bad_row(value):
    x = X.clone()
    x[1, 0, 2, 2] = value
    return x


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (bad_row(torch.nan), "inputs must be finite; 1 of 4 hold NaN or infinity"),
        (bad_row(torch.inf), "inputs must be finite; 1 of 4 hold NaN or infinity"),
        (X.mul(255).byte(), "inputs must be float32 or float64; got torch.uint8: use x.float() / 255"),
        (X.half(), "inputs must be float32 or float64; got torch.float16: use x.float()"),
        (X.double(), "the model's weights are torch.float32, the inputs torch.float64: convert one of them"),
        (
            (X - 0.5) / 0.2,
            "inputs must lie in the box [0.0, 1.0]; got -1.25 to -1.25: if the loader normalises, take that out and "
            "wrap the model as models.Normalized(model, mean, std); for other data, set the box",
        ),
    ],
)
def test_inputs(nets, x, line):
    assert refused(nets.conv(), x) == line
    assert refused(nets.conv(), x, attack=Gaussian()) == line


@pytest.mark.parametrize(
    ("y", "line"),
    [
        (Y + 1, "labels must be 0 to 3, the model's classes; got 1 to 4"),
        (Y - 1, "labels must be 0 to 3, the model's classes; got -1 to 2"),
        (Y[:3], "4 inputs need as many labels; got 3"),
        (
            Y.float(),
            "labels must be class indices (N,), integers; got torch.float32 of shape (4,): use y.long(), or task="
            "tasks.Regression() if these are values",
        ),
        (Y[0], "4 inputs need as many labels; got a single one: use y.expand(4)"),
        (Y[None], "4 inputs need as many labels; got 1: use y.T"),
        (torch.zeros(5, 4), "4 inputs need as many labels; got 5: use y.T"),
        (
            torch.eye(4),
            "labels must be class indices (N,), integers; got torch.float32 of shape (4, 4): use y.argmax(1)",
        ),
        (
            torch.eye(4).long(),
            "labels must be class indices (N,), integers; got torch.int64 of shape (4, 4): use y.argmax(1)",
        ),
    ],
)
@pytest.mark.parametrize("search", ["full", "first"])
def test_labels(nets, y, line, search):
    assert refused(nets.conv(), y=y, search=search) == line


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (Y + 1, "target: labels must be 0 to 3, the model's classes; got 1 to 4"),
        (4, "target: labels must be 0 to 3, the model's classes; got 4 to 4"),
        (torch.tensor(-1), "target: labels must be 0 to 3, the model's classes; got -1 to -1"),
        (
            Y[:, None],
            "target: labels must be class indices (N,), integers; got torch.int64 of shape (4, 1): use y.squeeze(1)",
        ),
        (Y[:3], "4 inputs need as many targets; got 3"),
        (torch.cat([Y, Y]), "4 inputs need as many targets; got 8"),
        ([0, 1], "4 inputs need as many targets; got 2"),
        ([], f"target must be {WANTED}; got []"),
        ("nearest", f"target must be {WANTED}; got 'nearest'"),
        (2.0, f"target must be {WANTED}; got 2.0"),
        (True, f"target must be {WANTED}; got True"),
        ([0.5, 1.0, 2.0, 3.0], f"target must be {WANTED}; got [0.5, 1.0, 2.0, 3.0]"),
        (Y.float(), f"target must be {WANTED}; got torch.float32 of shape (4,)"),
        (Y.bool(), f"target must be {WANTED}; got torch.bool of shape (4,)"),
        (["cat"], f"target must be {WANTED}; got ['cat']"),
        ({1, 2}, f"target must be {WANTED}; got {{1, 2}}"),
    ],
)
def test_targets(nets, target, line):
    assert refused(nets.conv(), target=target) == line
    with pytest.raises(UserError) as caught:
        PGD(steps=2).craft(nets.conv(), X, Y, target=target)
    assert str(caught.value) == line


@pytest.mark.parametrize("rule", ["least_likely", "random"])
def test_a_rule_for_classes_is_none_for_images(rule):
    with pytest.raises(UserError, match=f"^target='{rule}' chooses classes, which denoising has not: use a tensor"):
        PGD(steps=2)(nn.Identity(), X, X, task=Denoising(), target=rule)


def test_a_loss_that_knows_no_class_leads_to_none(nets):
    assert "leads to no class" in refused(nets.conv(), attack=PGD(steps=2, loss="kl"), target=2)
    assert "leads to no class" in refused(nets.conv(), attack=APGD(steps=2, loss="kl", targets=2))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"search": "fast"}, "search must be one of full, first; got 'fast'"),
        ({"mode": "test"}, "mode must be one of eval, train; got 'test'"),
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more; got 0"),
        ({"batch_size": -1}, "batch_size must be a whole number of 1 or more; got -1"),
        ({"precision": "fp16"}, "precision must be one of fp32, bf16, folded, twin, compiled, auto; got 'fp16'"),
        ({"ids": torch.arange(3)}, "4 inputs need as many ids, (N,) integers; got shape (3,)"),
        (
            {"mode": "train", "search": "first"},
            'mode="train" mixes the inputs of a batch: it needs search="full" and no batch_size',
        ),
        (
            {"mode": "train", "batch_size": 2},
            'mode="train" mixes the inputs of a batch: it needs search="full" and no batch_size',
        ),
    ],
)
def test_options(nets, options, line):
    assert refused(nets.conv(), **options) == line


class Wrapped(nn.Module):
    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x):
        return self.change(self.model(x))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda z: z.softmax(1),
            "the model returns probabilities, attacks need logits: take the softmax off, or wrap it as "
            "models.FromProbabilities(model)",
        ),
        (
            lambda z: (z, z),
            "the model must return logits (inputs, classes); it returned a tuple of 0 (4, 4), 1 (4, 4): "
            "wrap it as models.Output(model, 0), or --output 0, to pick the logits out",
        ),
        (
            lambda z: {"logits": z},
            "the model must return logits (inputs, classes); it returned a dict of logits (4, 4): wrap it as "
            "models.Output(model, 'logits'), or --output logits, to pick the logits out",
        ),
        (lambda z: z[:, None], "the model must return logits (inputs, classes); it returned shape (4, 1, 4)"),
        (lambda z: z[:3], "3 outputs need as many labels; got 4"),
        (
            lambda z: z * torch.nan,
            "the model's output is NaN or infinite for 4 of the 4 inputs it was first asked about",
        ),
        (
            lambda z: z.detach(),
            "the model's output has no gradient: use an attack that needs none, or a transfer attack",
        ),
        (
            lambda z: nn.Parameter(z.detach()),
            "the model's output does not depend on its input through differentiable operations",
        ),
    ],
)
def test_models(nets, change, line):
    model = Wrapped(nets.conv(), change)
    before = nets.state(model)
    assert refused(model) == line
    nets.assert_state(model, before)


def test_a_model_that_rounds_its_input_has_no_gradient_by_name(nets):
    net = nets.conv()
    line = refused(lambda x: net((x.detach() * 8).round() / 8), attack=FGSM())
    assert "does not depend on its input" in line


def test_a_model_made_under_inference_mode(nets):
    with torch.inference_mode():
        model = nets.conv()
    line = refused(model)
    assert line == "parameter 'weight' was made under torch.inference_mode: make the model outside of it"


def test_a_noise_asks_no_gradient(nets):
    assert Gaussian()(Wrapped(nets.conv(), lambda z: z.detach()), X, Y).x_adv.shape == X.shape


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: PGD(steps=0), "steps must be a whole number of 1 or more; got 0"),
        (lambda: BIM(steps=-1), "steps must be a whole number of 1 or more; got -1"),
        (lambda: MIFGSM(decay=-1.0), "decay must be a finite number of 0 or more; got -1.0"),
        (lambda: MIFGSM(decay=float("nan")), "decay must be a finite number of 0 or more; got nan"),
        (lambda: PGD(restarts=0), "restarts must be a whole number of 1 or more; got 0"),
        (lambda: APGD(restarts=0), "restarts must be a whole number of 1 or more; got 0"),
        (lambda: PGD(step_size=0.0), "step_size must be a finite number above 0; got 0.0"),
        (lambda: APGD(rho=1.5), "rho must be a number in [0, 1]; got 1.5"),
        (lambda: APGD(loss="dlt"), "there is no loss 'dlt'; did you mean 'dlr'?"),
        (lambda: FGSM(loss="cross-entropy"), "there is no loss 'cross-entropy'; did you mean 'cross_entropy'?"),
        (lambda: Gaussian(std=-0.1), "std must be a finite number of 0 or more; got -0.1"),
        (lambda: Speckle(std=float("inf")), "std must be a finite number of 0 or more; got inf"),
        (lambda: Uniform(eps=float("nan")), "eps must be a finite number of 0 or more; got nan"),
        (lambda: Salt(amount=1.1), "amount must be a number in [0, 1]; got 1.1"),
        (lambda: Pepper(amount=-0.1), "amount must be a number in [0, 1]; got -0.1"),
        (lambda: SaltAndPepper(amount=float("nan")), "amount must be a number in [0, 1]; got nan"),
        (lambda: Gaussian(box=(1.0, 0.0)), "box must be (low, high) with low < high, or none; got (1.0, 0.0)"),
        (
            lambda: PGD(threat=Threat(eps=-1)),
            "eps must be a number of 0 or more, in input units such as 8/255; got -1",
        ),
    ],
)
def test_fields(make, line):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == line
