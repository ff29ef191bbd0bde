"""Networks of tokens in jobs: analysed from their embedding on, with the data's values there in place of the data."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from buttress.data.dataset import Dataset, Split
from buttress.errors import UserError
from buttress.models import FromEmbedding
from buttress.models.wrapping.from_embedding import entered_embeddings


def from_tokens(model: nn.Module, dataset: Dataset) -> tuple[nn.Module, Dataset]:
    """Both as they are, or from the network's embedding on where the data are the tokens that enter it.

    Tokens are inputs (N, T) of whole numbers from 0 on, which the network hands to a ``torch.nn.Embedding`` just as
    they are. Their values may be any numbers, so the data set has no box then.

    Raises:
        UserError: for what `FromEmbedding.embed` refuses.
    """
    x = dataset.test.x
    if x.dim() != 2 or x.dtype == torch.uint8 or bool(((x != x.round()) | (x < 0)).any()):
        return model, dataset
    if not entered_embeddings(model, x[:1].long()):
        return model, dataset
    network = FromEmbedding(model)

    def embedded(split: Split) -> Split:
        return Split(network.embed(split.x.long()).float().cpu(), split.y, split.ids)

    train, val, test = (embedded(split) for split in dataset.splits.values())
    return network, replace(dataset, train=train, val=val, test=test, box=None)


def tokens_remark(model: nn.Module) -> str:
    """For the user, of a network from its embedding on; empty for any other."""
    if not isinstance(model, FromEmbedding):
        return ""
    return f"the inputs are tokens: the network is analysed from {model.name} on, whose values the attacks move"


def refuse_tokens(model: nn.Module, what: str) -> None:
    """Refuse a network from its embedding on, for a job that hands the network itself on.

    Raises:
        UserError: naming the job, ``what``.
    """
    if isinstance(model, FromEmbedding):
        raise UserError(
            f"{what} takes networks of numbers, and the inputs are tokens: in Python give it "
            "models.FromEmbedding(network) and the values of embed(tokens); audit and attack do so by themselves"
        )
