"""Networks of tokens from their embedding on: the same logits, and its values are moved as any numbers are."""

import copy

import pytest
import torch
from torch import nn

from buttress import audits, layers, models
from buttress.attacks.gradient.apgd import APGD
from buttress.attacks.gradient.pgd import PGD
from buttress.audits.lipschitz.audit import Lipschitz
from buttress.audits.robustness import Robustness
from buttress.defences import Batch, StepContext
from buttress.defences.adversarial_training import AdversarialTraining
from buttress.defences.layer_regularised import LayerRegularised
from buttress.errors import UserError
from buttress.models.wrapping.from_embedding import entered_embeddings
from buttress.models.wrapping.wrappers import inner
from buttress.threat import Threat

TOKENS = torch.randint(0, 11, (9, 5), generator=torch.Generator().manual_seed(0))
Y = torch.arange(9) % 3
STEP = PGD(threat=Threat(eps=0.3, box=None), steps=3)


class Plain(nn.Module):
    """An embedding, positions added later, an encoder, a mean."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.position = nn.Parameter(torch.randn(5, 8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.encoder(8**0.5 * self.embedding(tokens) + self.position).mean(1))


class Bert(nn.Module):
    """After Hugging Face's: three embeddings, token types made inside, a mapping comes out."""

    def __init__(self):
        super().__init__()
        self.word, self.position, self.kind = nn.Embedding(11, 8, padding_idx=1), nn.Embedding(6, 8), nn.Embedding(2, 8)
        self.norm, self.recurrent, self.head = nn.LayerNorm(8), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask=None):
        places, kinds = torch.arange(input_ids.shape[1]), torch.zeros_like(input_ids)
        h = self.norm(self.word(input_ids) + self.position(places) + self.kind(kinds))
        return {"logits": self.head(torch.relu(self.recurrent(h)[0][:, -1])), "states": (h,)}


class Masked(Plain):
    """Leaves padding out of the mean."""

    def forward(self, tokens):
        seen = (tokens != 0)[:, :, None]
        return self.head((self.embedding(tokens) * seen).sum(1) / seen.sum(1))


class Scaled(nn.Embedding):
    def forward(self, tokens):
        return 3 * super().forward(tokens)


class OwnEmbedding(Plain):
    def __init__(self):
        super().__init__()
        self.embedding = Scaled(11, 8)


NETWORKS = {
    "plain": Plain,
    "output of a mapping": lambda: models.Output(Bert(), "logits"),
    "a scaling embedding": OwnEmbedding,
    "half precision": lambda: Plain().bfloat16(),
    "double": lambda: Plain().double(),
    "sequential": lambda: nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.ReLU(), nn.Linear(20, 3)),
}


@pytest.fixture(params=NETWORKS)
def network(request, nets):
    return nets.seeded(NETWORKS[request.param]).eval()


def test_the_same_logits_to_the_last_bit(network):
    wrapped = models.FromEmbedding(network)
    values = wrapped.embed(TOKENS)
    assert values.shape[:2] == TOKENS.shape
    with torch.no_grad():
        assert torch.equal(wrapped(values), network(TOKENS))
        assert torch.equal(copy.deepcopy(wrapped)(values[:2]), network(TOKENS[:2]))
    assert "forward" not in wrapped.model.get_submodule(wrapped.name).__dict__


def test_embedding_leaves_the_network_in_its_mode(nets):
    network = nets.seeded(Plain).train()
    network.head.eval()
    state = torch.get_rng_state()
    models.FromEmbedding(network).embed(TOKENS)
    assert torch.equal(torch.get_rng_state(), state)
    assert (network.training, network.encoder.training, network.head.training) == (True, True, False)


def test_gradients_are_those_of_the_values(nets):
    """Of a linear network of the embedding: the head's weights over the number of tokens."""
    network = nets.seeded(lambda: nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Linear(20, 3))).eval()
    wrapped = models.FromEmbedding(network)
    values = wrapped.embed(TOKENS).requires_grad_()
    (gradient,) = torch.autograd.grad(wrapped(values)[:, 1].sum(), values)
    torch.testing.assert_close(gradient.flatten(1), network[2].weight[1].expand(9, -1))


def test_layers_keep_their_names_and_the_embedding_is_one_of_them(nets):
    network = nets.seeded(Plain).eval()
    wrapped = models.FromEmbedding(network)
    assert inner(wrapped) is network
    values = wrapped.embed(TOKENS)
    names = layers.layer_names(network, TOKENS, "*")
    assert layers.layer_names(wrapped, values, "*") == names
    with torch.no_grad(), layers.capture(wrapped, "*") as seen:
        wrapped(values)
    with torch.no_grad(), layers.capture(network, "*") as expected:
        network(TOKENS)
    for name in names:
        torch.testing.assert_close(seen[name], expected[name])


def test_attacks_and_analyses_of_the_values(network):
    wrapped = models.FromEmbedding(network)
    values = wrapped.embed(TOKENS)
    for attack in (STEP, APGD(threat=STEP.threat, steps=3)):
        result = attack(wrapped, values, Y)
        assert (result.x_adv - values).abs().max() <= 0.3
    if values.dtype != torch.float32:
        return
    data = [(values, Y)]
    profile = layers.sustainability(wrapped, data, STEP, "learnable")
    assert bool((profile.mean > 0).any())
    moved = STEP(wrapped, values, Y).x_adv - values
    if isinstance(network, Plain):  # the embedding is a layer, and displaced as the input is
        shift = (moved.flatten(1).norm(dim=1) / values.flatten(1).norm(dim=1)).mean()
        assert profile.mean[0, profile.layers.index("embedding")] == pytest.approx(float(shift), rel=1e-2)
    found = layers.tolerance(wrapped, data, STEP, lambda name, module: name in ("head", "3"), steps=4)
    assert bool(found.median_rho.isfinite().all())
    findings = audits.run(wrapped, data, [Robustness(attacks=[STEP]), Lipschitz(perturbations=[STEP], iterations=3)])
    assert [finding.kind for finding in findings] == ["robustness", "lipschitz"]


class Rest(nn.Module):
    """What comes after the embedding of a `Plain`, with its weights."""

    def __init__(self, network):
        super().__init__()
        self.position, self.encoder, self.head = network.position, network.encoder, network.head

    def forward(self, values):
        return self.head(self.encoder(8**0.5 * values + self.position).mean(1))


def test_training_with_regularised_layers_is_that_of_the_rest(nets):
    """Loss, displacement and gradients; the embedding, whose values are given, gets none."""
    network = nets.seeded(Plain)
    network.encoder.eval()  # both would draw what to drop anew
    wrapped = models.FromEmbedding(network)
    batch = Batch(wrapped.embed(TOKENS), Y, torch.arange(9))
    results = []
    for model in (wrapped, Rest(network)):
        defence = LayerRegularised(AdversarialTraining(STEP), ["encoder", "head"], 1.0)
        loss = defence.loss(model, batch, StepContext(model, batch, index=0, seed=1))
        parameters = [*network.encoder.parameters(), network.position]
        gradients = torch.autograd.grad(loss.value, parameters, retain_graph=True)
        results.append((loss.value, loss.logs, gradients))
    torch.testing.assert_close(*results, rtol=0, atol=0)
    assert results[0][1]["displacement encoder"] > 0
    results[0][0].backward()
    assert network.embedding.weight.grad is None


def test_the_embedding_that_the_tokens_enter_is_found(nets):
    bert = nets.seeded(Bert).eval()
    assert entered_embeddings(bert, TOKENS) == ["word"]
    wrapped = models.FromEmbedding(bert)
    with pytest.raises(UserError, match="several embeddings: say which its tokens enter, name='word' or 'position'"):
        wrapped(torch.zeros(2, 5, 8))
    wrapped.embed(TOKENS)
    assert wrapped.name == "word"


class Two(nn.Module):
    """Two embeddings of the same tokens."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Embedding(11, 4), nn.Embedding(11, 4), nn.Linear(4, 3)

    def forward(self, tokens):
        return self.head((self.a(tokens) + self.b(tokens)).mean(1))


class Shifted(Plain):
    """A token of its own in front, so that the embedding gets others than it was given."""

    def forward(self, tokens):
        return self.head(self.embedding(torch.cat([tokens[:, :1], tokens], 1)).mean(1))


class Unused(Plain):
    def forward(self, tokens):
        return self.head(self.embedding.weight[tokens].mean(1))


@pytest.mark.parametrize(
    ("build", "name", "tokens", "line"),
    [
        (lambda: nn.Linear(3, 2), None, TOKENS, r"no torch\.nn\.Embedding that its tokens could enter"),
        (Plain, "head", TOKENS, r"'head' is no torch\.nn\.Embedding of the network: it has embedding$"),
        (Two, None, TOKENS, r"enter a and b: say which, FromEmbedding\(network, 'a'\)"),
        (Two, "a", TOKENS, "reads its tokens not only through a"),
        (Masked, None, TOKENS, "reads its tokens not only through embedding, as for a mask of padding"),
        (Unused, None, TOKENS, "does not run its embedding embedding"),
        (Plain, None, TOKENS.float(), r"tokens are integers \(N, T\); got torch.float32"),
        (Plain, None, TOKENS[0], r"tokens are integers \(N, T\); got torch.int64 of shape \(5,\)"),
        (Plain, None, TOKENS + 1, "embedding has 11 tokens, from 0 on; the data have 1 to 11"),
    ],
)
def test_what_is_no_function_of_the_values_is_refused(build, name, tokens, line, nets):
    network = nets.seeded(build).eval()
    with pytest.raises(UserError, match=line) as caught:
        models.FromEmbedding(network, name).embed(tokens)
    assert "\n" not in str(caught.value)


def test_padding_that_changes_nothing_is_no_obstacle(nets):
    wrapped = models.FromEmbedding(nets.seeded(Masked).eval())
    whole = TOKENS.clamp(min=1)
    with torch.no_grad():
        assert torch.equal(wrapped(wrapped.embed(whole)), wrapped.model(whole))


def test_a_network_that_lengthens_its_tokens_is_refused(nets):
    with pytest.raises(UserError, match="from the embedding on"):
        models.FromEmbedding(nets.seeded(Shifted).eval()).embed(TOKENS)


def test_what_is_no_value_of_the_embedding_is_refused(nets):
    wrapped = models.FromEmbedding(nets.seeded(Plain).eval())
    with pytest.raises(
        UserError, match=r"takes the values of embedding, .* got torch.int64 .* give model.embed\(tokens\)"
    ):
        wrapped(TOKENS)
