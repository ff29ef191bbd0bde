"""Networks of tokens from their embedding on: integers cannot be moved by a little, the embedding's values can."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from buttress.errors import UserError

_ROWS = 256  # sequences embedded, and checked, at once


class FromEmbedding(nn.Module):
    """A network of tokens as one of its embedding's values (N, T, D): ``FromEmbedding(net)(net.embedding(tokens))``.

    What the network adds later, such as positions, stays inside. The embedding is asked with tokens that mean nothing,
    and gives the values in their place, so a network that reads its tokens elsewhere as well, for a mask of padding,
    say, is no function of these values: `embed` compares the outputs and refuses it.

    Args:
        network: takes (N, T) tokens first; kept as ``.model``. Names of layers remain its own.
        name: of the ``torch.nn.Embedding`` that the tokens enter; unless given, the only one, or the one that `embed`
            sees them enter.

    Raises:
        UserError: for a network without such an embedding, or a name that is none; when called, for inputs that are no
            values of the embedding, and where the network does not run the embedding.
    """

    def __init__(self, network: nn.Module, name: str | None = None) -> None:
        super().__init__()
        self.model = network
        names = list(_embeddings(network))
        if not names:
            raise UserError(
                "the network has no torch.nn.Embedding that its tokens could enter: give their values to it"
            )
        if name is not None and name not in names:
            raise UserError(f"{name!r} is no torch.nn.Embedding of the network: it has {', '.join(names)}")
        self.name = names[0] if name is None and len(names) == 1 else name

    def values(self, tokens: Tensor) -> Tensor:
        """(N, T, D) values that the embedding has at present, with their gradient for its weights; nothing is checked.

        `check` does that, once, and finds the embedding that the tokens enter.

        Args:
            tokens: (N, T) integers, on any device.
        """
        embedding = self._embedding()
        values: Tensor = embedding(tokens.to(embedding.weight.device))
        return values.to(torch.promote_types(values.dtype, torch.float32))

    @property
    def weight(self) -> Tensor:
        """(tokens, D) weights of the embedding."""
        return self._embedding().weight

    def embed(self, tokens: Tensor) -> Tensor:
        """(N, T, D) values of the embedding for (N, T) integer tokens, float32 or float64: what attacks move.

        Raises:
            UserError: as `check`.
        """
        self.check(tokens)
        with _evaluated(self):
            return torch.cat([self.values(part) for part in torch.split(tokens, _ROWS)])

    def check(self, tokens: Tensor) -> None:
        """See that the network is one of the embedding's values for these (N, T) integer tokens.

        Raises:
            UserError: for tokens that are none, where it is not known which embedding they enter, and for a network
                that computes something else from the values than from the tokens.
        """
        if tokens.is_floating_point() or tokens.is_complex() or tokens.dim() != 2 or not len(tokens):
            raise UserError(f"tokens are integers (N, T); got {tokens.dtype} of shape {tuple(tokens.shape)}")
        if self.name is None:
            self.name = _only(entered_embeddings(self.model, tokens[:1]))
        embedding = self._embedding()
        low, high = int(tokens.min()), int(tokens.max())
        if low < 0 or high >= embedding.num_embeddings:
            raise UserError(
                f"{self.name} has {embedding.num_embeddings} tokens, from 0 on; the data have {low} to {high}: "
                "give the vocabulary that the network was made for"
            )
        for part in torch.split(tokens.to(embedding.weight.device), _ROWS):
            with _evaluated(self):
                if not _equal(_output(self.model, part), _output(self, self.values(part))):
                    raise UserError(
                        f"the network reads its tokens not only through {self.name}, as for a mask of padding: from "
                        "the embedding on it is another; leave padded inputs out, or give a module of the values"
                    )

    def forward(self, values: Tensor) -> Any:
        """What the network returns for tokens with these (N, T, D) values."""
        if self.name is None:
            names = " or ".join(map(repr, _embeddings(self.model)))
            raise UserError(f"the network has several embeddings: say which its tokens enter, name={names}")
        embedding = self._embedding()
        if not values.is_floating_point() or values.dim() != 3:
            raise UserError(
                f"FromEmbedding takes the values of {self.name}, (N, T, D) numbers; got {values.dtype} of shape "
                f"{tuple(values.shape)}: give model.embed(tokens)"
            )
        tokens = torch.full(values.shape[:2], _neutral(embedding), device=values.device)
        with _given(embedding, values.to(embedding.weight.dtype)) as calls:
            output = self.model(tokens)
        if not calls:
            raise UserError(f"the network does not run its embedding {self.name}: name the one that its tokens enter")
        return output

    def _embedding(self) -> nn.Embedding:
        return _embeddings(self.model)[str(self.name)]


def whole_tokens(x: Tensor) -> Tensor | None:
    """(N, T) inputs of whole numbers from 0 on as int64 tokens; None for inputs that are none, as images or values."""
    if x.dim() != 2 or x.dtype == torch.uint8 or bool(((x != x.round()) | (x < 0)).any()):
        return None
    return x.long()


def entered_embeddings(network: nn.Module, tokens: Tensor) -> list[str]:
    """The names of the ``torch.nn.Embedding`` that a network hands exactly these tokens, by one pass in eval mode.

    Also of a network that raises an error later.
    """
    names: list[str] = []
    handles: list[Any] = []
    embeddings = _embeddings(network)
    if not embeddings:
        return names

    def note(name: str) -> Any:
        def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            if name not in names and any(t.shape == tokens.shape and bool((t == tokens).all()) for t in given):
                names.append(name)

        return record

    try:
        for name, embedding in embeddings.items():
            handles.append(embedding.register_forward_pre_hook(note(name), with_kwargs=True))
        with _evaluated(network):
            _output(network, tokens)
    except (UserError, RuntimeError, TypeError, ValueError, IndexError):
        pass  # it is not asked what comes out
    finally:
        for handle in handles:
            handle.remove()
    return names


def _only(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError(
            "the tokens enter none of the network's torch.nn.Embedding as they are: give their values to it"
        )
    raise UserError(f"the tokens enter {' and '.join(names)}: say which, FromEmbedding(network, {names[0]!r})")


def _embeddings(network: nn.Module) -> dict[str, nn.Embedding]:
    return {name: module for name, module in network.named_modules() if isinstance(module, nn.Embedding)}


def _neutral(embedding: nn.Embedding) -> int:
    """A token that is not padding: by convention 0 is, or what the embedding says."""
    return next(token for token in (1, 2, 0) if token == 0 or embedding.num_embeddings > token != embedding.padding_idx)


@contextmanager
def _given(embedding: nn.Embedding, values: Tensor) -> Iterator[list[Tensor]]:
    """Let the embedding give these values, whatever its tokens are; hooks on it see them."""
    calls: list[Tensor] = []

    def forward(tokens: Tensor) -> Tensor:
        calls.append(tokens)
        return values

    before = embedding.__dict__.get("forward")
    embedding.__dict__["forward"] = forward
    try:
        yield calls
    finally:
        if before is None:
            del embedding.__dict__["forward"]
        else:
            embedding.__dict__["forward"] = before


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    """In eval mode and without gradients; flags come back."""
    flags = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def _output(network: nn.Module, x: Tensor) -> list[Tensor]:
    """The tensors that come out, of the same draws each time."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return [leaf for leaf in tree_leaves(network(x)) if isinstance(leaf, Tensor)]


def _equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(
        a.shape == b.shape and torch.equal(a, b) for a, b in zip(some, others, strict=True)
    )
