"""NI-, DI- and TI-FGSM against loops written out plainly, and a user's own loss in the gradient attacks."""

import pytest
import torch
import torch.nn.functional as F

from buttress.attacks import APGD, BIM, DIFGSM, MIFGSM, NIFGSM, PGD, TIFGSM
from buttress.attacks.gradient.difgsm import both_ways, resize_and_pad
from buttress.errors import UserError
from buttress.losses import margin
from buttress.random import Random, derive
from buttress.threat import Threat

LINF, L2 = Threat(eps=0.05), Threat(norm="l2", eps=0.4, box=None)


@pytest.fixture(scope="module")
def case(nets):
    model = nets.conv(seed=3, dtype=torch.float64)
    x = torch.rand(10, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():  # fresh weights see all inputs alike: tell them apart
        model[5].weight *= 8
        model[5].bias -= model(x).mean(0)
    return model, x, model(x).argmax(1)


def gradient(model, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0]


def ball(x_adv, x, threat):
    delta = x_adv - x
    if threat.norm == "linf":
        return (x + delta.clamp(-threat.eps, threat.eps)).clamp(0, 1)
    size = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    return x + delta * (threat.eps / size).clamp(max=1)


def ascent(grad, threat):
    return grad.sign() if threat.norm == "linf" else grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def scaled(grad):
    return grad / grad.abs().mean((1, 2, 3), keepdim=True)


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_nifgsm(case, threat):
    model, x, y = case
    x_adv, total = x, torch.zeros_like(x)
    for step in range(7):
        ahead = total if threat.norm == "linf" else ascent(total, threat) if step else total
        total = 0.8 * total + scaled(gradient(model, x_adv + 0.02 * 0.8 * ahead, y))
        x_adv = ball(x_adv + 0.02 * ascent(total, threat), x, threat)
    result = NIFGSM(threat=threat, steps=7, step_size=0.02, decay=0.8)(model, x, y)
    torch.testing.assert_close(result.x_adv, x_adv, rtol=0, atol=1e-12)
    assert (result.forwards == 8).all()
    assert (result.backwards == 7).all()


def test_nifgsm_without_momentum_is_bim(case):
    model, x, y = case
    options = {"threat": LINF, "steps": 5, "step_size": 0.02}
    assert torch.equal(NIFGSM(decay=0.0, **options)(model, x, y).x_adv, BIM(**options)(model, x, y).x_adv)


def convolved(grad, line):
    kernel = torch.outer(line, line)
    kernel = (kernel / kernel.sum())[None, None].double()
    return F.conv2d(grad, kernel, padding=len(line) // 2)


LINES = {
    "gaussian": torch.exp(-torch.linspace(-3, 3, 5).square() / 2),
    "linear": 1 - torch.tensor([2, 1, 0, 1, 2]) / 3,
    "uniform": torch.ones(5),
}


@pytest.mark.parametrize("kernel", LINES)
@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_tifgsm(case, kernel, threat):
    model, x, y = case
    x_adv, total = x, torch.zeros_like(x)
    for _ in range(7):
        grad = convolved(gradient(model, x_adv, y), LINES[kernel].double())
        total = 0.9 * total + scaled(grad)
        x_adv = ball(x_adv + 0.02 * ascent(total, threat), x, threat)
    options = {"steps": 7, "step_size": 0.02, "decay": 0.9, "kernel": kernel, "size": 5}
    result = TIFGSM(threat=threat, **options)(model, x, y)
    torch.testing.assert_close(result.x_adv, x_adv, rtol=0, atol=1e-7)  # the lines above are float32
    plain = MIFGSM(threat=threat, steps=7, step_size=0.02, decay=0.9)(model, x, y)
    assert not torch.allclose(plain.x_adv, x_adv, atol=1e-3)


def test_a_kernel_wider_than_the_image(case):
    model, x, y = case
    line = torch.exp(-torch.linspace(-3, 3, 15, dtype=torch.float64).square() / 2)
    grad = convolved(gradient(model, x, y), line)
    result = TIFGSM(threat=LINF, steps=1, step_size=0.03)(model, x, y)
    torch.testing.assert_close(result.x_adv, ball(x + 0.03 * grad.sign(), x, LINF), rtol=0, atol=1e-12)


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize("attack", [TIFGSM(size=1), DIFGSM(p=0.0), DIFGSM(smallest=1.0)])
def test_without_their_own_part_they_are_mifgsm(case, attack, threat):
    model, x, y = case
    options = {"threat": threat, "steps": 6, "step_size": 0.02, "decay": 0.7}
    kind = type(attack)
    extra = {"size": 1} if kind is TIFGSM else {"p": attack.p, "smallest": attack.smallest}
    ours, plain = kind(**options, **extra)(model, x, y).x_adv, MIFGSM(**options)(model, x, y).x_adv
    if attack == DIFGSM(smallest=1.0):  # resized to the full size, by a product with 1
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    else:
        assert torch.equal(ours, plain)


@pytest.mark.parametrize(("size", "smaller"), [(6, 5), (6, 1), (9, 4), (1, 1), (32, 29), (32, 32)])
def test_resizing_and_padding_are_those_of_torch(size, smaller):
    images = torch.rand(1, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    small = F.interpolate(images, size=(smaller, smaller), mode="bilinear", align_corners=False)
    for top, left in [(0, 0), (size - smaller, 0), ((size - smaller) // 2, size - smaller)]:
        expected = torch.zeros_like(images)
        expected[..., top : top + smaller, left : left + smaller] = small
        rows, columns = (
            resize_and_pad(size, torch.tensor([smaller]), torch.tensor([offset]), torch.float64)
            for offset in (top, left)
        )
        torch.testing.assert_close(both_ways(images, rows, columns), expected)


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_difgsm(case, p):
    """One input at a time: the same draws, torch's resizing, and autograd through it."""
    model, x, y = case
    random = Random(derive(5, "attack"), torch.arange(10))
    x_adv, total = x, torch.zeros_like(x)
    resized = 0
    for _ in range(6):
        coin, share, place = random.uniform(), random.uniform(), random.uniform((2,))
        grads = []
        for i in range(10):
            point = x_adv[i : i + 1].clone().requires_grad_()
            moved = point
            if coin[i] < p:
                side = 3 + int(share[i] * 3)
                top, left = (int(place[i, k] * (6 - side + 1)) for k in range(2))
                moved = F.interpolate(point, size=(side, side), mode="bilinear", align_corners=False)
                moved = F.pad(moved, (left, 6 - side - left, top, 6 - side - top))
                resized += 1
            loss = F.cross_entropy(model(moved), y[i : i + 1])
            grads.append(torch.autograd.grad(loss, point)[0])
        total = total + scaled(torch.cat(grads))
        x_adv = ball(x_adv + 0.01 * total.sign(), x, LINF)
    assert resized == 60 if p == 1 else 10 < resized < 50
    result = DIFGSM(threat=LINF, steps=6, step_size=0.01, p=p, smallest=0.5)(model, x, y, seed=5)
    torch.testing.assert_close(result.x_adv, x_adv, rtol=0, atol=1e-12)


def test_a_resized_image_that_beats_the_model_is_no_success():
    """The model only falls for an image with a black corner, which padding makes and the threat does not allow."""

    class Corner(torch.nn.Module):
        def forward(self, x):
            return torch.stack([x[:, 0, 0, 0] - 0.25, 0.25 - x[:, 0, 0, 0]], 1)

    x, y = torch.full((30, 1, 6, 6), 0.9), torch.zeros(30, dtype=torch.int64)
    for search in ("full", "first"):
        result = DIFGSM(threat=Threat(eps=0.1), p=1.0, smallest=0.5)(Corner(), x, y, search=search)
        assert not result.success.any()
        assert (result.forwards >= 11).all()


@pytest.mark.parametrize("kind", [NIFGSM, DIFGSM, TIFGSM])
def test_features_and_signals_are_rows_of_pixels(nets, kind):
    model = nets.linear(torch.randn(3, 12, generator=torch.Generator().manual_seed(0)))
    x, y = torch.rand(4, 12, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])
    flat = kind(threat=Threat(eps=0.1))(model, x, y)
    row = kind(threat=Threat(eps=0.1))(model, x.view(4, 1, 1, 12), y)
    torch.testing.assert_close(flat.x_adv, row.x_adv.view(4, 12))
    assert (flat.x_adv - x).abs().amax() > 0.05


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DIFGSM(p=1.5), r"p must be a number in \[0, 1\]"),
        (lambda: DIFGSM(smallest=0.0), r"smallest must be a number in \(0, 1\]"),
        (lambda: DIFGSM(decay=-1.0), "decay must be"),
        (lambda: TIFGSM(size=4), "size must be an odd number"),
        (lambda: TIFGSM(kernel="round"), "kernel must be one of gaussian, linear, uniform"),
        (lambda: NIFGSM(steps=0), "steps must be a whole number of 1 or more"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, told):
    with pytest.raises(UserError, match=told):
        make()


@pytest.mark.parametrize("kind", [PGD, APGD, MIFGSM, NIFGSM, DIFGSM, TIFGSM])
def test_a_users_loss_is_what_is_followed(nets, kind):
    """A detector beside the classes: only a loss that knows of it avoids it."""
    weight = torch.tensor([[3.0, 0.0], [0.0, 0.0], [0.0, 8.0]])
    model = nets.linear(weight)
    x, y = torch.tensor([[0.1, 0.5]]), torch.tensor([1])

    def quiet(logits, y):
        return margin(logits[:, :2], y) - logits[:, 2]

    extra = {PGD: {"start": "zero"}, TIFGSM: {"size": 1}, DIFGSM: {"p": 0.0}}.get(kind, {})
    result = kind(threat=Threat(eps=0.05), loss=quiet, steps=10, **extra)(model, x, y)
    torch.testing.assert_close(result.x_adv, torch.tensor([[0.15, 0.45]]))
