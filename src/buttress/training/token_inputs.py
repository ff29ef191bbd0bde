"""Training a network of tokens: the data as the values of its embedding, whose spread is held where an attack moves it.

Adversarial training of embedded inputs is Miyato et al.'s (ICLR 2017): a perturbation r within eps of the embedded
sequence, a constant for the gradient of the weights, which goes through the embedding on the clean and on the perturbed
path. They normalise the embedding to mean 0 and variance 1 in every forward pass, by the frequencies of the tokens, so
that it cannot outgrow eps. Here the network stays the user's: after each update the embedding is scaled back to the
spread that it began with, over all its dimensions together. Their perturbation is one step in l2 over the whole
sequence; here it is whatever attack and threat are given.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from buttress.data.dataset import Dataset, Split
from buttress.data.tokens import TokenSplit
from buttress.defences.base.defence import Defence
from buttress.errors import UserError
from buttress.models import FromEmbedding
from buttress.models.wrapping.from_embedding import whole_tokens


def embedded_data(model: nn.Module, data: Dataset) -> Dataset:
    """Tokens as the values that the model's embedding has for them, anew at each use; other data as they are.

    Values that were made of tokens before (`models.FromEmbedding.embed`) are such other data: the embedding is not
    trained on these. Values may be any numbers, so tokens have no box.

    Raises:
        UserError: for tokens that the network cannot be given the values of, and for augmentation, which is of images.
    """
    if not isinstance(model, FromEmbedding) or data.train.x.dim() != 2:
        return data
    if data.augment is not None:
        raise UserError(f"augmentation is of images, and the inputs of {data.name} are tokens: give data without it")

    def split(part: Split) -> TokenSplit:
        stored = part.in_memory("tokens")
        tokens = whole_tokens(stored)
        if tokens is None:
            raise UserError(f"tokens are whole numbers from 0 on, which some inputs of {data.name} are not")
        model.check(tokens)
        return TokenSplit(stored, part.y, part.ids, model.values)

    train, val, test = (split(part) for part in data.splits.values())
    return replace(data, train=train, val=val, test=test, box=None)


def check_for_tokens(defence: Defence, data: Dataset) -> None:
    """Refuse methods that keep inputs, or networks for them, while the embedding of tokens moves on.

    Raises:
        UserError: naming the method.
    """
    for method in defence.modules():
        if isinstance(data.train, TokenSplit) and isinstance(method, Defence) and method.keeps_inputs:
            raise UserError(
                f"{method.label()} keeps what it made of the inputs before training, and training moves the embedding "
                "of tokens: use at, trades, mart or free"
            )


def spread_of(model: FromEmbedding, tokens: Tensor) -> float:
    """The standard deviation of the embedding's values over these tokens, about the mean of each dimension.

    It is the root of the variances' mean over the dimensions, each token counted as often as it comes.

    Args:
        model: whose embedding.
        tokens: (N, T) integers.
    """
    return _spread(model.weight, _shares(model, tokens))


def _shares(model: FromEmbedding, tokens: Tensor) -> Tensor:
    """(tokens, 1) how often each comes, of all."""
    counts = torch.bincount(tokens.flatten(), minlength=len(model.weight)).double()
    return (counts / counts.sum())[:, None]


@torch.no_grad()
def _spread(weight: Tensor, shares: Tensor) -> float:
    weight, shares = weight.double(), shares.to(weight.device)
    mean = (shares * weight).sum(0)
    return float((shares * (weight - mean).square()).sum(0).mean().sqrt())


class HeldSpread:
    """Keeps the spread of an embedding, so that a budget in its values means the same throughout a training.

    Args:
        model: its present spread is kept.
        tokens: (N, T) integers, the tokens of the training data.

    Attributes:
        value: the spread that is kept.
    """

    def __init__(self, model: FromEmbedding, tokens: Tensor) -> None:
        self.model, self.shares = model, _shares(model, tokens)
        self.value = _spread(model.weight, self.shares)

    @torch.no_grad()
    def restore(self) -> None:
        """Scale the embedding back; one that has no spread, as of a single token, is left as it is."""
        spread = _spread(self.model.weight, self.shares)
        if self.model.weight.requires_grad and spread > 0:
            self.model.weight.mul_(self.value / spread)


def held_spread(model: nn.Module, data: Dataset, defence: Defence) -> HeldSpread | None:
    """What keeps the embedding's spread in a training that perturbs; None where none is trained or nothing perturbs.

    Raises:
        UserError: where a method has put other inputs in the place of the tokens.
    """
    if not isinstance(model, FromEmbedding) or not isinstance(data.val, TokenSplit):
        return None
    if not isinstance(data.train, TokenSplit):
        raise UserError(f"{defence.label()} makes inputs of its own, and the data are tokens: use at or trades")
    perturbs = defence.perturbed_pass or defence.attack is not None
    return HeldSpread(model, data.train.tokens(data.train.x)) if perturbs else None
