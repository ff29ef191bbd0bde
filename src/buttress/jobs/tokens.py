"""Networks of tokens in jobs: analysed and trained from their embedding on."""

from __future__ import annotations

from torch import nn

from buttress import models
from buttress.data.dataset import Dataset
from buttress.models import FromEmbedding
from buttress.models.wrapping.from_embedding import entered_embeddings, whole_tokens
from buttress.threat import Threat, budget_text
from buttress.training.token_inputs import spread_of


def from_embedding(model: nn.Module, dataset: Dataset) -> nn.Module:
    """The network as it is, or from its embedding on where the data are the tokens that enter it.

    Tokens are inputs (N, T) of whole numbers from 0 on, which the network hands to a ``torch.nn.Embedding`` just as
    they are. A run remembers how the network inside is made.
    """
    tokens = whole_tokens(dataset.test.sample.in_memory("tokens")) if dataset.test.x.dim() == 2 else None
    names = [] if tokens is None else entered_embeddings(model, tokens[:1])
    if not names:
        return model
    network = FromEmbedding(model, names[0] if len(names) == 1 else None)
    if models.spec_of(model) is not None:
        network._buttress_spec = model._buttress_spec
    return network


def tokens_remark(model: nn.Module, dataset: Dataset, threat: Threat | None) -> str:
    """For the user, of a network from its embedding on; empty for any other.

    The budget is set against the embedding's spread over the test inputs (`spread_of`), since it is small in an
    embedding of large values.

    Args:
        model: the network.
        dataset: as the network sees it, see `embedded_data`.
        threat: what the attacks may do, where they have one.
    """
    if not isinstance(model, FromEmbedding):
        return ""
    spread = spread_of(model, dataset.test.in_memory("tokens").long())
    known = threat is not None and threat.norm == "linf" and spread > 0
    share = f", of which eps {budget_text(threat.eps)} is {threat.eps / spread:.2g}" if threat and known else ""
    return (
        f"the inputs are tokens: the network is analysed from {model.name} on, whose values the attacks move; "
        f"they have a standard deviation of {spread:.3g}{share}"
    )
