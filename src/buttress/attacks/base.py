"""What all perturbations share: one call, one engine, one result. A new one writes `Perturbation.perturb` only."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import CodeType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from buttress import losses, tasks
from buttress.attacks.borrow import Mode, Model, borrowed
from buttress.attacks.oracle import Oracle, Precision, Search
from buttress.errors import UserError
from buttress.random import Random, derive
from buttress.tasks import Task
from buttress.threat import Threat, norms

TargetRule = Literal["least_likely", "random"]


@dataclass(frozen=True)
class Attacked:
    """The outcome of a perturbation, one entry per input.

    Attributes:
        x_adv: (N, ...) the perturbed inputs.
        beaten: (N,) bool, whether they beat the model; a float32 verdict on ``x_adv`` itself.
        loss: (N,) the task's loss at ``x_adv`` against the truth.
        distance: (N,) float64, the perturbation's size in the threat's norm, or in L2 where there is no threat.
        forwards: (N,) int64, forward passes spent, the verdict's included; ``backwards`` likewise.
        precision: what the search ran in; "auto" is told as what it chose.
    """

    x_adv: Tensor
    beaten: Tensor
    loss: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    precision: Precision = "fp32"


def plain(value: Any) -> Any:
    """A field's value as JSON; weights are told by their digest."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, Tensor):
        data = value.detach().cpu().contiguous()
        raw = data.view(torch.uint8) if data.dim() else data.reshape(1).view(torch.uint8)
        return [str(data.dtype), list(data.shape), hashlib.sha256(raw.numpy().tobytes()).hexdigest()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
        return {"class": f"{type(value).__module__}.{type(value).__qualname__}", **fields}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, functools.partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    if inspect.ismethod(value):
        return [plain(value.__self__), plain(value.__func__)]
    if inspect.isfunction(value):
        held = [plain(cell.cell_contents) for cell in value.__closure__ or ()]
        defaults = [plain(value.__defaults__), plain(value.__kwdefaults__)]
        return [f"{value.__module__}.{value.__qualname__}", _body(value.__code__), held, defaults]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type) or inspect.isbuiltin(value):
        return f"{value.__module__}.{value.__qualname__}"
    if hasattr(value, "__dict__"):
        return [f"{type(value).__module__}.{type(value).__qualname__}", plain(vars(value))]
    return [type(value).__qualname__, repr(value)]


def _body(code: CodeType) -> Any:
    """What a function does, as far as its code tells: two lambdas of one place differ here."""
    constants = [_body(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [hashlib.sha256(code.co_code).hexdigest(), list(code.co_names), list(code.co_varnames), constants]


class Perturbation(ABC):
    """Anything that moves inputs: a frozen dataclass of plain fields, called on a model and a batch."""

    threat: Threat | None = None

    @abstractmethod
    def perturb(self, oracle: Oracle, x: Tensor, y: Tensor, random: Random) -> Tensor:
        """The mathematics, and nothing else: the moved inputs, of the shape of ``x``.

        Args:
            oracle: answers questions about the model; see `Oracle`.
            x: (N, ...) inputs.
            y: (N,) the truth.
            random: this batch's draws.
        """

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        task: Task = tasks.classification,
        target: Tensor | TargetRule | None = None,
        seed: int = 0,
        ids: Tensor | None = None,
        search: Search = "full",
        mode: Mode = "eval",
        precision: Precision = "fp32",
        batch_size: int | None = None,
    ) -> Attacked:
        """Perturb ``x`` and say what came of it. The model comes back exactly as it was, also after an exception.

        Args:
            model: gives logits for inputs in the box.
            x: (N, ...) float32 or float64 inputs.
            y: (N,) int64 classes, the truth, also in a targeted attack.
            task: what the output is for.
            target: (N,) classes that the attacker wants, or how to choose them: "least_likely" or "random".
            seed: what all draws depend on, together with ``ids``.
            ids: (N,) int64, what identifies each input across batches; 0 to N - 1 unless given.
            search: "full" returns the attack's own point for every input; "first" lets an input go as soon as it is
                beaten, which is all that an evaluation needs.
            mode: the mode of the model meanwhile; in "train", BatchNorm uses the batch and keeps its buffers.
            precision: of the search; "bf16" by autocast, "auto" times both on the first batch. The verdict is float32.
            batch_size: inputs computed at once; all unless given.

        Raises:
            UserError: for inputs outside the box or of the wrong kind, labels that do not fit, and outputs that are
                no logits, each saying what came and what to do.
        """
        if not len(x):
            zeros = torch.zeros(0, dtype=torch.int64, device=x.device)
            return Attacked(x.clone(), zeros.bool(), x.new_zeros(0), zeros.double(), zeros, zeros)
        self._check(model, x, y, search, mode, batch_size)
        if precision not in get_args(Precision):
            raise UserError(f"precision must be one of {', '.join(get_args(Precision))}; got {precision!r}")
        ids = _ids(ids, x)
        with borrowed(model, mode, seed, x.device):
            oracle = _oracle(model, task, x, y, target, seed, ids, search, precision, batch_size)
            x_adv = self._moved(oracle, seed, ids)
            with torch.no_grad():
                x_adv, output = oracle.settle(x_adv)
                beaten = task.beaten(output, oracle.y, oracle.target)
                loss = losses.resolve(task.loss).function(output, oracle.y)
                distance = self.threat.distance(x_adv, x) if self.threat else norms(x_adv.double() - x.double(), "l2")
        used = "fp32" if oracle.precision == "auto" else oracle.precision  # never chosen: no gradient was asked for
        return Attacked(x_adv, beaten, loss, distance, oracle.forwards, oracle.backwards, used)

    def craft(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        *,
        task: Task = tasks.classification,
        target: Tensor | TargetRule | None = None,
        seed: int = 0,
        ids: Tensor | None = None,
        mode: Mode = "eval",
        precision: Precision = "fp32",
    ) -> Tensor:
        """Only the perturbed inputs of a full search: no verdict, so no pass beyond the search's own. For training."""
        if not len(x):
            return x.clone()
        self._check(model, x, y, "full", mode, None)
        ids = _ids(ids, x)
        with borrowed(model, mode, seed, x.device):
            return self._moved(_oracle(model, task, x, y, target, seed, ids, "full", precision, None), seed, ids)

    def fingerprint(self) -> str:
        """A digest of every field, weights included: equal fingerprints mean the same perturbation."""
        return hashlib.sha256(json.dumps(plain(self), sort_keys=True).encode()).hexdigest()

    def _moved(self, oracle: Oracle, seed: int, ids: Tensor) -> Tensor:
        """`perturb` on inputs of our own, its result detached and put inside the threat."""
        x = oracle.x
        random = Random(derive(seed, "attack"), ids)
        x_adv = x if oracle.done else self.perturb(oracle, x, oracle.y, random).detach()
        return self.threat.project(x_adv, x) if self.threat else x_adv

    def _check(self, model: Model, x: Tensor, y: Tensor, search: Search, mode: Mode, batch_size: int | None) -> None:
        for name, value, known in (("search", search, get_args(Search)), ("mode", mode, get_args(Mode))):
            if value not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}; got {value!r}")
        box = self.threat.box if self.threat else getattr(self, "box", None)
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise UserError(f"inputs and labels must be tensors; got {type(x).__name__} and {type(y).__name__}")
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size must be 1 or more; got {batch_size}")
        if x.dtype not in (torch.float32, torch.float64):
            hint = ": use x.float() / 255" if x.dtype == torch.uint8 else ": use x.float()"
            raise UserError(f"inputs must be float32 or float64; got {x.dtype}{hint}")
        if len(y) != len(x):
            raise UserError(f"{len(x)} inputs need as many labels; got {len(y)}")
        if y.device != x.device:
            raise UserError(f"inputs and labels must be on one device; got {x.device} and {y.device}")
        if not bool(torch.isfinite(x).all()):
            bad = int((~torch.isfinite(x.flatten(1))).any(1).sum())
            raise UserError(f"inputs must be finite; {bad} of {len(x)} hold NaN or infinity")
        low, high = (float(v) for v in torch.aminmax(x.detach())) if x.numel() else (0.0, 0.0)
        if box is not None and (low < _round(box[0], x.dtype) or high > _round(box[1], x.dtype)):
            raise UserError(
                f"inputs must lie in the box {list(box)}; got {low:.4g} to {high:.4g}: if the loader normalises, take "
                "that out and wrap the model as models.Normalized(model, mean, std); for other data, set the box"
            )
        if mode == "train" and (search == "first" or batch_size is not None):
            raise UserError('mode="train" mixes the inputs of a batch: it needs search="full" and no batch_size')
        weights = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        if weights is not None and weights.device != x.device:
            raise UserError(f"the model is on {weights.device}, the inputs are on {x.device}: move one of them")
        if weights is not None and weights.dtype != x.dtype and weights.dtype in (torch.float32, torch.float64):
            raise UserError(f"the model's weights are {weights.dtype}, the inputs {x.dtype}: convert one of them")


def _round(value: float, dtype: torch.dtype) -> float:
    return float(torch.tensor(value, dtype=dtype))


def _oracle(
    model: Model,
    task: Task,
    x: Tensor,
    y: Tensor,
    target: Tensor | TargetRule | None,
    seed: int,
    ids: Tensor,
    search: Search,
    precision: Precision,
    batch_size: int | None,
) -> Oracle:
    """An oracle on copies of the caller's tensors: one made under ``inference_mode`` could not carry a gradient."""
    y = _copy(y)
    oracle = Oracle(model, task, x.detach().clone(), y, None, search=search, precision=precision, batch_size=batch_size)
    if isinstance(target, str):
        oracle.target = _choose_target(target, oracle.clean, y, seed, ids)
    elif target is not None:
        if len(target) != len(x):
            raise UserError(f"{len(x)} inputs need as many targets; got {len(target)}")
        oracle.target = _copy(target)
    if search == "first":
        oracle.drop_wrong()
    return oracle


def _ids(ids: Tensor | None, x: Tensor) -> Tensor:
    if ids is None:
        return torch.arange(len(x), device=x.device)
    if ids.shape != x.shape[:1]:
        raise UserError(f"{len(x)} inputs need as many ids, (N,) integers; got shape {tuple(ids.shape)}")
    return ids.to(x.device)


def _copy(y: Tensor) -> Tensor:
    return y.clone() if y.is_floating_point() or y.dim() != 1 else y.to(torch.int64, copy=True)


def _choose_target(rule: str, clean: Tensor, y: Tensor, seed: int, ids: Tensor) -> Tensor:
    if rule == "least_likely":
        return clean.scatter(1, y[:, None], torch.inf).argmin(1)
    if rule == "random":
        return (y + 1 + Random(derive(seed, "target"), ids).integers(clean.shape[1] - 1)) % clean.shape[1]
    raise UserError(f'target must be a tensor of classes, "least_likely" or "random"; got {rule!r}')


class Attack(Perturbation):
    """A perturbation that stays inside a threat: whatever `perturb` returns is projected into it."""

    threat: Threat
