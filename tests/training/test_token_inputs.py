"""Training from the embedding on: steps in closed form, and gradients of every method against the network's own."""

import contextlib

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

import buttress
from buttress import data, models, registry
from buttress.attacks.gradient.fgsm import FGSM
from buttress.attacks.gradient.pgd import PGD
from buttress.data import augment
from buttress.data.tokens import TokenSplit
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.base.defence import Batch, StepContext
from buttress.defences.layer_regularised import LayerRegularised
from buttress.engine.threat_resolution import resolve_threats
from buttress.errors import UserError
from buttress.models.wrapping.wrappers import inner
from buttress.threat import Threat
from buttress.training import load
from buttress.training.token_inputs import HeldSpread, check_for_tokens, embedded_data, spread_of

# They keep what they made of the inputs before, are for images, or for networks of their own.
REFUSED = {"adv-kip", "csa", "cse", "ensemble-at", "gat", "ladder", "self-training", "snode-ncg"}
VOCABULARY, LENGTH, WIDTH, CLASSES = 11, 5, 4, 3
BALL = Threat(eps=0.3, box=None)


class Bag(nn.Module):
    """Linear in the embedding's values: the head of their mean."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens):
        return self.head(self.words(tokens).mean(1))


class Deep(Bag):
    """With two activations."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def rest(self, values):
        return self.head(F.silu(self.two(F.silu(self.one(values)).mean(1))))

    def forward(self, tokens):
        return self.rest(self.words(tokens))


def tokens(count=48, seed=0, **changes):
    random = torch.Generator().manual_seed(seed)
    x = torch.randint(0, VOCABULARY, (count, LENGTH), generator=random)
    x, y = x.numpy().astype("float32"), (x.sum(1) % CLASSES).numpy()
    half = count // 2
    names = [str(label) for label in range(CLASSES)]
    settings = {"classes": names, "box": None, "provenance": "drawn", "val": CLASSES} | changes
    return data.from_arrays("tokens", (x[:half], y[:half]), (x[half:], y[half:]), **settings)


def one_step(model, dataset, defence, lr=0.5, **options):
    """Train by one step over all inputs; the tokens and classes that it saw."""
    optimiser = buttress.training.Optimiser(name="sgd", lr=lr, momentum=0, weight_decay=0)
    size = len(dataset.train)
    buttress.fit(model, dataset, defence, epochs=1, batch_size=size, optimiser=optimiser, keep="last", **options)
    return dataset.train.x.long(), dataset.train.y


def test_a_step_of_standard_training_is_that_of_the_network(nets):
    """Plain torch on the integers gives the same weights, the embedding's included."""
    dataset, network, plain = tokens(), nets.seeded(Deep), nets.seeded(Deep)
    x, y = one_step(models.FromEmbedding(network), dataset, None)
    F.cross_entropy(plain(x), y).backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter -= 0.5 * parameter.grad
    torch.testing.assert_close(network.state_dict(), plain.state_dict())


def test_a_step_of_adversarial_training_in_closed_form(nets):
    """Of a linear network: FGSM moves each value by eps times the sign of the head's weighted rows."""
    dataset, network = tokens(), nets.seeded(Bag)
    words, head, bias = (p.detach().clone() for p in network.parameters())
    x, y = dataset.train.x.long(), dataset.train.y
    spread = spread_of(models.FromEmbedding(network, "words"), x)
    one_step(models.FromEmbedding(network), dataset, AdversarialTraining(FGSM(threat=BALL)))
    truth = F.one_hot(y, CLASSES).float()
    logits = words[x].mean(1) @ head.T + bias
    direction = ((logits.softmax(1) - truth) @ head).sign()
    moved = words[x].mean(1) + 0.3 * direction
    slope = ((moved @ head.T + bias).softmax(1) - truth) / len(x)
    gradient = torch.zeros_like(words).index_add(0, x.flatten(), (slope @ head / LENGTH).repeat_interleave(LENGTH, 0))
    words = words - 0.5 * gradient
    expected = nn.Embedding.from_pretrained(words)
    now = spread_of(models.FromEmbedding(nn.Sequential(expected)), x)
    torch.testing.assert_close(network.words.weight.detach(), words * spread / now)
    torch.testing.assert_close(network.head.weight.detach(), head - 0.5 * slope.T @ moved)


class Shifted(Deep):
    """The same network as one of a shift of its values: its passes reach the embedding without help."""

    def __init__(self, network, tokens):
        super().__init__()
        self.words, self.one, self.two, self.head = network.words, network.one, network.two, network.head
        self.tokens = tokens

    def forward(self, shift):
        return self.rest(self.words(self.tokens) + shift)


def objective(name, network, shifted=False):
    """A method's loss on all inputs; None where it refuses tokens."""
    dataset, model, defence = tokens(), models.FromEmbedding(network), _defence(name)
    try:
        seen = embedded_data(model, dataset)
        check_for_tokens(defence, seen)
        defence.prepare(model, seen, 0)
        stored = seen.train.x
        batch = Batch(seen.train.read(stored), seen.train.y, seen.train.ids, seen.train.tokens(stored))
        if shifted:
            model = Shifted(network, batch.tokens)
            batch = Batch(torch.zeros_like(batch.x), batch.y, batch.ids)
        batch = batch.embedded(model)
        assert batch.x.requires_grad != shifted
        context = StepContext(model, batch, index=1, progress=0.5, epoch=1.0, epochs=2, seed=1)
        return defence.loss(model, batch, context).value
    except UserError:
        return None


# These mix or mask the values themselves, of which a network of a shift knows nothing, or read what the network does
# with one input alone.
CHANGING = ("iat", "masked-fgsm", "crown-ibp", "ibp", "sabr")


@pytest.mark.parametrize("name", [name for name in registry.defence.names() if name not in CHANGING])
def test_every_defence_trains_the_embedding_or_says_that_it_cannot(name, nets):
    """Loss and gradients are those of a network in which the embedding is computed inside."""
    outcomes = []
    for shifted in (False, True):
        network = nets.seeded(Deep).double()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            loss = objective(name, network, shifted)
        if loss is None:
            assert name in REFUSED
            return
        outcomes.append((loss, torch.autograd.grad(loss, [network.words.weight, network.one.weight])))
    assert name not in REFUSED
    torch.testing.assert_close(*outcomes, rtol=1e-6, atol=1e-9)
    assert outcomes[0][1][0].abs().max() > 1e-6


@pytest.mark.parametrize("name", [*CHANGING, "at", "trades"])
def test_gradients_of_the_embedding_by_differences(name, nets):
    """The perturbation, made of signs, stays as it is where the embedding moves by very little."""
    network = nets.seeded(Deep).double()
    weight, losses = network.words.weight, []
    (gradient,) = torch.autograd.grad(objective(name, network), weight)
    direction = torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(3))
    for step in (1e-6, -2e-6):
        with torch.no_grad():
            weight += step * direction
        losses.append(float(objective(name, network).detach()))
    difference = (losses[0] - losses[1]) / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(difference, rel=1e-4)


def _defence(name):
    kind = registry.defence.get(name)
    if name == "j-sigr":
        return kind(jacobian=0.1, selective=0)
    if name == "layer-regularised":
        return LayerRegularised(AdversarialTraining(PGD(threat=BALL, steps=2)), ["one", "two"], 0.5)
    return resolve_threats(kind(), usual=BALL)


@pytest.mark.parametrize("name", [name for name in registry.defence.names() if name not in REFUSED])
def test_every_defence_that_can_trains_to_the_end(name, nets):
    """Also those with several updates a batch, or gradients at moved weights."""
    model = models.FromEmbedding(nets.seeded(Deep))
    x, before = tokens().train.x.long(), model.embed(tokens().train.x.long())
    defence = _defence(name)
    buttress.fit(model, tokens(), defence, epochs=2, batch_size=9, keep="last")
    assert not torch.equal(model.embed(x), before)


def test_the_spread_is_that_of_the_values(nets):
    model = models.FromEmbedding(nets.seeded(Bag))
    x = tokens().train.x.long()
    values = model.embed(x).double().flatten(0, 1)
    assert spread_of(model, x) == pytest.approx(float(values.var(0, correction=0).mean().sqrt()))
    held = HeldSpread(model, x)
    with torch.no_grad():
        model.weight.mul_(7)
    held.restore()
    assert spread_of(model, x) == pytest.approx(held.value)


def test_an_embedding_grows_in_standard_training_alone(nets):
    """Its values outgrow the budget where nothing holds them."""
    x, spreads = tokens().train.x.long(), {}
    for name, defence in (("standard", None), ("at", AdversarialTraining(FGSM(threat=BALL)))):
        model = models.FromEmbedding(nets.seeded(Deep))
        before = spread_of(model, x)
        optimiser = buttress.training.Optimiser(name="adam", lr=0.3, weight_decay=0)
        buttress.fit(model, tokens(), defence, epochs=8, batch_size=8, optimiser=optimiser, keep="last")
        spreads[name] = spread_of(model, x) / before
    assert spreads["standard"] > 1.1
    assert spreads["at"] == pytest.approx(1, rel=1e-5)


def test_a_frozen_embedding_stays_as_it_is(nets):
    network = nets.seeded(Deep)
    network.words.weight.requires_grad_(False)
    before = network.words.weight.clone()
    one_step(models.FromEmbedding(network), tokens(), AdversarialTraining(FGSM(threat=BALL)))
    assert torch.equal(network.words.weight, before)


def test_a_run_is_that_of_the_users_own_network_and_goes_on(nets, tmp_path):
    """Weights under the network's own names; two epochs are those of a run that was interrupted after one."""
    whole = models.FromEmbedding(nets.seeded(Deep))
    options = {"epochs": 2, "batch_size": 7, "keep": "last"}
    defence = AdversarialTraining(PGD(threat=BALL, steps=2))

    def interrupt(done, figures):
        if done >= 0.5:
            raise KeyboardInterrupt

    buttress.fit(whole, tokens(), defence, out=tmp_path / "whole", **options)
    for progress in (interrupt, None):
        part = models.FromEmbedding(nets.seeded(Deep))
        with contextlib.suppress(KeyboardInterrupt):
            buttress.fit(part, tokens(), defence, out=tmp_path / "part", resume=True, progress=progress, **options)
    loaded = load(tmp_path / "part", nets.seeded(Deep, seed=5))
    assert sorted(load_file(tmp_path / "part" / "model.safetensors")) == sorted(loaded.state_dict())
    assert sorted(load_file(tmp_path / "part" / "last.safetensors")) == sorted(loaded.state_dict())
    x = tokens().test.x.long()
    with torch.no_grad():
        assert torch.equal(loaded(x), inner(whole)(x))


def test_a_split_of_tokens_is_read_with_the_weights_of_the_moment(nets):
    network = nets.seeded(Bag)
    seen = embedded_data(models.FromEmbedding(network, "words"), tokens())
    part = seen.train.subset(torch.arange(4)).stratified(3)
    assert isinstance(part, TokenSplit)
    assert seen.shape == (LENGTH, WIDTH)
    with torch.no_grad():
        network.words.weight.mul_(2)
    x, _, _ = part.take(torch.arange(3))
    assert torch.equal(x, network.words.weight[part.x.long()])
    assert not x.requires_grad
    means = network.words.weight[seen.train.x.long()].double().mean((0, 2))
    assert seen.mean == pytest.approx(means.tolist())


def _broken(dataset):
    return data.Dataset(
        **{**vars(dataset), "train": data.Split(dataset.train.x + 0.5, dataset.train.y, dataset.train.ids)}
    )


def test_a_network_of_tokens_as_it_is_is_refused(nets):
    with pytest.raises(UserError, match=r"^Bag takes tokens.* give models\.FromEmbedding\(network\)"):
        buttress.fit(nets.seeded(Bag), tokens(), epochs=1)


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        (
            lambda: tokens(augment=augment.Augment(pad=1)),
            "augmentation is of images, and the inputs of tokens are tokens",
        ),
        (lambda: _broken(tokens()), "tokens are whole numbers from 0 on, which some inputs of tokens are not"),
    ],
)
def test_data_that_are_no_tokens_are_refused(dataset, line, nets):
    with pytest.raises(UserError, match=line):
        buttress.fit(models.FromEmbedding(nets.seeded(Bag)), dataset(), epochs=1)
