"""Which tensors of a file are a network's: whatever they lie under, and with whatever all their names begin."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from buttress.errors import UserError
from buttress.models.weight_files import Contents
from buttress.models.wrapping.wrappers import nested
from buttress.tensor_forms import parts

# Names that torch's own wrappers put into the middle of others, and the one that may be somebody's own as well.
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_PARALLEL = "module"
# Not BatchNorm's running_mean.
NORMALISATION = re.compile(r"(^|\.|(?<!running)_)((mean|std|sd|mu|sigma)s?|norm\w*)$", re.IGNORECASE)
_TRIED = 6  # prefixes that most names have; the right one is the first but for files of several networks
_SHOWN = 2  # pairs of names in an error line


@dataclass(frozen=True)
class Own:
    """A tensor of a module's state.

    Attributes:
        shape: its shape; None of a lazy one.
        tensor: the one that it is a part of, which names that are tied have in common.
        dtype: of its numbers: of a part, its own.
        part: what it is called there; see `parts`.
        saved: whether it is in the state dict; else a buffer that is not (``persistent=False``), which a file may hold.
    """

    shape: torch.Size | None
    tensor: Tensor
    dtype: torch.dtype
    part: str = ""
    saved: bool = True

    @property
    def identity(self) -> tuple[int, str]:
        """What names that are tied have in common."""
        return id(self.tensor), self.part

    def takes(self, value: Tensor) -> bool:
        """Whether a file's tensor has this shape; a single number may have any."""
        return self.shape is None or self.shape == value.shape or value.numel() == self.shape.numel() == 1

    def is_unlike(self, value: Tensor) -> bool:
        """Whether a file's tensor holds other than numbers of this kind, as the integers of quantised weights."""
        return self.dtype.is_floating_point and not value.is_floating_point()


class Fit:
    """How far the tensors of a file under one prefix fit a module.

    Args:
        contents: of the file.
        target: the module.
        prefix: what the names begin with there; empty, or with a dot at its end.
        left_out: parts of names that do not count.

    Attributes:
        state: by the module's own names, the file's tensors that fit.
        missing: the module's names that the file lacks.
        unexpected: names in the file that the module has not, those of a normalisation before it among them, which
            would change every output.
        reshaped: the module's names of which the file has another shape.
        mistyped: those of which the file has no floating-point numbers, such as the integers of quantised weights.
        untied: those that are one tensor in the module, and several in the file.
        aside: other tensors beside those that are used: metrics, weights of a loss, another network.
    """

    def __init__(self, contents: Contents, target: nn.Module, prefix: str, left_out: frozenset[str]) -> None:
        self.target, self.prefix = target, prefix
        self.own = own_tensors(target)
        names = {_bare(name, left_out): name for name in contents.tensors}
        where = {name: names[key] for name in self.own if (key := prefix + _bare(name, left_out)) in names}
        self.used = {name: contents.tensors[path] for name, path in where.items()}
        taking = {name: value for name, value in self.used.items() if self.own[name].takes(value)}
        self.mistyped = [name for name, value in taking.items() if self.own[name].is_unlike(value)]
        self.untied = _untied(self.own, taking)
        self.state = {name: self._shaped(name) for name in taking if name not in self.mistyped + self.untied}
        self.reshaped = [name for name in self.used if name not in taking and self.own[name].saved]
        there = {self.own[name].identity for name in where}
        # Old checkpoints have no such counters and need none; and of tied weights one is enough.
        self.missing = [
            name
            for name, own in self.own.items()
            if own.saved and own.identity not in there and not name.endswith("num_batches_tracked")
        ]
        taken, places = set(where.values()), {contents.places[path] for path in where.values()}
        others = [p for p in names.values() if p not in taken and (not places or contents.places[p] in places)]
        self.unexpected = [
            path for path in others if _bare(path, left_out).startswith(prefix) or NORMALISATION.search(path)
        ]
        self.aside = [path for path in others if path not in self.unexpected and contents.tensors[path].dim()]
        self.unusable = [*self.reshaped, *self.mistyped, *self.untied]
        self.wrong = len(self.missing) + len(self.unexpected) + len(self.unusable)

    def _shaped(self, name: str) -> Tensor:
        shape, value = self.own[name].shape, self.used[name]
        return value if shape in (None, value.shape) else value.reshape(shape)

    @property
    def key(self) -> str:
        """Where the tensors lie, in words."""
        return self.prefix.rstrip(".") or "the file itself"

    @property
    def count(self) -> str:
        """How many of the module's tensors are there."""
        return f"{len(self.state)} of {sum(own.saved or name in self.state for name, own in self.own.items())}"

    def same_numbers(self, other: Fit) -> bool:
        """Whether another fit would put the same numbers into the network."""
        mine, theirs = list(self.state.values()), list(other.state.values())
        return len(mine) == len(theirs) and all(a is b or torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))

    def other_head(self) -> tuple[int, int] | None:
        """(the file's, the network's) number of outputs, where all that does not fit is that layers have others."""
        pairs = [(self.used[name].shape, self.own[name].shape) for name in self.reshaped]
        sizes = {
            (theirs[0], own[0])
            for theirs, own in pairs
            if own is not None and len(theirs) == len(own) > 0 and theirs[1:] == own[1:]
        }
        only = len(pairs) == sum(own is not None and theirs[1:] == own[1:] for theirs, own in pairs)
        return sizes.pop() if only and len(sizes) == 1 and self.wrong == len(self.reshaped) else None

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self._shapes()}
        kinds["of another kind"] = [f"{name} is {self.used[name].dtype}" for name in self.mistyped]
        kinds["tied in the network and not in the file"] = self.untied
        return ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names)

    def _shapes(self) -> list[str]:
        return [
            f"{name} is {_shape(self.used[name].shape)}, not {_shape(self.own[name].shape)}" for name in self.reshaped
        ]

    @property
    def alike(self) -> str:
        """The names on both sides that are most alike; or empty."""
        pairs = [
            f"{name} may be the file's {close[0]}"
            for name in self.missing[:20]
            if (close := difflib.get_close_matches(self.prefix + name, self.unexpected, n=1, cutoff=0.6))
        ]
        return f"the network's {', '.join(pairs[:_SHOWN])}; " if pairs else ""


def fits(model: nn.Module, contents: Contents) -> list[Fit]:
    """The fits of a file's tensors to a model, best first.

    The names may lie under any keys and begin with anything that they have in common (``module.``, ``state_dict.net.``,
    ``ema.shadow.``), which is found, not known. They are held against the model and against what is alone in it to
    have parameters, so that weights of the network alone fit into wrappers around it.
    """
    found = [
        Fit(contents, target, prefix, left_out)
        for target in _targets(model)
        for left_out in (frozenset[str](), _WRAPPERS, _WRAPPERS | {_PARALLEL})
        for prefix in _prefixes(contents, target, left_out)
    ]
    return sorted(found, key=lambda fit: (fit.wrong, -len(fit.state)))


def chosen(model: nn.Module, contents: Contents, asked: bool) -> tuple[Fit, list[Fit]]:
    """The best fit, and what else in the file has most of the network's weights with other numbers.

    Args:
        model: the network.
        contents: of the file.
        asked: whether the user has said where in the file they lie.

    Raises:
        UserError: where other tensors fit as well as those, and where they are the lesser part of what they lie in.
    """
    ranked = fits(model, contents)
    best = ranked[0]
    equal = [fit for fit in ranked if (fit.wrong, len(fit.state)) == (best.wrong, len(best.state))]
    different = [best]
    for fit in equal:
        if not any(fit.same_numbers(other) for other in different):
            different.append(fit)
    if len(different) > 1 and best.state and not (best.missing or best.unexpected):
        keys = [f"{fit.key} ({fit.count})" for fit in different]
        raise UserError(
            f"{contents.path} holds weights that fit under several keys: {', '.join(keys[:6])}; choose by "
            f"--weights-key {different[1].key} (key in Python)"
        )
    if len(best.aside) > len(best.used) and not best.wrong and not asked:
        network = type(best.target).__name__
        raise UserError(
            f"{contents.path}: only {len(best.used)} of its tensors are {network}'s, under {best.key}, beside "
            f"{len(best.aside)} others ({_first(best.aside)}); if that is meant, --weights-key {best.key}"
        )
    most = {fit.key: fit for fit in reversed(ranked) if 2 * len(fit.state) > len(best.state) and not fit.unusable}
    taken = set(best.used.values())
    return best, [fit for fit in most.values() if not taken & set(fit.used.values()) and not fit.same_numbers(best)]


def own_tensors(module: nn.Module) -> dict[str, Own]:
    """A module's tensors by name, as `parts` gives them, those that its state dict leaves out among them."""
    found: dict[str, Own] = {}
    state = module.state_dict(keep_vars=True)
    left_out = {name: buffer for name, buffer in module.named_buffers(remove_duplicate=False) if name not in state}
    for name, value in (*state.items(), *left_out.items()):
        if not isinstance(value, Tensor):
            continue
        if is_lazy(value):
            found[name] = Own(None, value, value.dtype)
            continue
        for part, tensor in parts(value.detach()).items():
            found[f"{name}.{part}" if part else name] = Own(tensor.shape, value, tensor.dtype, part, name in state)
    return found


def _untied(own: Mapping[str, Own], found: Mapping[str, Tensor]) -> list[str]:
    """The names of one tensor for which the file has several numbers."""
    names: dict[tuple[int, str], list[str]] = {}
    for name in found:
        names.setdefault(own[name].identity, []).append(name)
    return [n for same in names.values() for n in same[1:] if not torch.equal(found[n], found[same[0]])]


def _targets(model: nn.Module) -> Iterator[nn.Module]:
    """The model, what is inside its wrappers, and inside that whatever alone has parameters."""
    yield from (modules := nested(model))
    target = modules[-1]
    while not list(target.parameters(recurse=False)):
        parts_ = [child for child in target.children() if any(True for _ in child.parameters())]
        if len(parts_) != 1:
            return
        target = parts_[0]
        yield target


def _prefixes(contents: Contents, target: nn.Module, left_out: frozenset[str]) -> list[str]:
    """What most of the module's names are found behind in the file, the most frequent first."""
    names = [_bare(name, left_out) for name in contents.tensors]
    if len(set(names)) < len(names):  # two become one without these parts
        return []
    behind: dict[str, list[str]] = {}
    for name in names:
        pieces = name.split(".")
        for k in range(len(pieces)):
            behind.setdefault(".".join(pieces[k:]), []).append("".join(f"{piece}." for piece in pieces[:k]))
    counts = Counter(prefix for name in own_tensors(target) for prefix in behind.get(_bare(name, left_out), ()))
    return [prefix for prefix, _ in counts.most_common(_TRIED)] or [""]


def _bare(name: str, left_out: frozenset[str]) -> str:
    return ".".join(piece for piece in name.split(".") if piece not in left_out)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def _shape(shape: torch.Size | None) -> str:
    return "x".join(map(str, shape or ())) or "one number"
