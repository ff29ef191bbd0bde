"""Robust accuracy against adversarial examples from a file, checked against a threat."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Severity, Topic
from buttress.audits.base.rating import rate
from buttress.audits.base.statistics import INTERVAL, accuracy
from buttress.audits.base.subject import Subject, same_inputs
from buttress.audits.base.work import Work
from buttress.audits.imported.tensor_file import Examples, read
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.registry import audit
from buttress.threat import NOT_GIVEN, Threat, norms, per_row

_TOLERANCE = 1e-6  # a file's float32 may round an input at the very edge outwards
_HALF_LEVEL = 0.5 / 255


@audit("imported")
@dataclass(frozen=True, kw_only=True)
class Imported(Audit):
    """Robust accuracy against adversarial examples from a file; those outside the threat are rejected, and counted.

    Each example belongs to the input of its id; without ids in the file, to the one at its position. For an input whose
    example is rejected the attack counts as not successful. So the figure is the accuracy under the examples within
    the threat, and with many rejected it means little.

    Args:
        file: .safetensors, .pt or .pth, .npz or .npy with x_adv, and perhaps ids and y; NCHW images in the box, or
            8-bit levels, which are read as level / 255. Torch files are read without running code.
        threat: what an example may be, within 1e-6.
    """

    topic: ClassVar[Topic] = "How robust it is"
    needs_classes = False

    file: Path
    threat: Threat = NOT_GIVEN

    def check(self, subject: Subject) -> None:
        """Refuse a file that cannot be read, or whose examples do not belong to these inputs, before anything is asked.

        Raises:
            UserError: for such a file.
        """
        _aligned(read(self.file), subject, self.file)

    def work(self, subject: Subject) -> Work:
        """The outputs before and after."""
        return Work(passes=PassCount(2 * len(subject.y)))

    def ask(self, subject: Subject) -> Finding:
        """Read the file, find each input's example, reject those outside the threat, evaluate the rest.

        Raises:
            UserError: when the file cannot be read or its examples do not belong to these inputs.
        """
        examples = read(self.file)
        candidates = _aligned(examples, subject, self.file).to(subject.x)
        allowed = self.threat.contains(candidates, subject.x, _TOLERANCE)
        x_adv = torch.where(per_row(allowed, candidates), candidates, subject.x)
        correct = ~subject.task.is_adversarial(subject.logits, subject.y)
        success = subject.task.is_adversarial(subject.output(x_adv), subject.y)
        robust_rows, count = correct & ~(allowed & success), int(allowed.sum())
        rejected = self._rejected(candidates[~allowed], subject.x[~allowed], examples.eight_bit)
        robust, clean = accuracy(robust_rows), accuracy(correct)
        data = {
            "file": str(self.file),
            "inputs": len(correct),
            "norm": self.threat.norm,
            "eps": self.threat.eps,
            "interval": INTERVAL,
            "chance": subject.chance,
            "clean": clean,
            "robust": robust,
            "accepted": count,
            "beaten": int((correct & success & allowed).sum()),
            "rejected": rejected,
            "eight_bit": examples.eight_bit,
            "same_inputs": same_inputs(subject),
        }
        verdict = (
            f"Robust {subject.task.score_name} on {len(correct)} inputs is {robust['accuracy']:.1%} "
            f"({robust['low']:.1%} to {robust['high']:.1%}) under the examples of {Path(self.file).name} in "
            f"{self.threat.text()}, "
            f"{clean['accuracy']:.1%} unperturbed{_rejection_text(rejected)}."
        )
        return Finding("imported", "Imported examples", verdict, _severity(data), data)

    def _rejected(self, x_adv: Tensor, x: Tensor, eight_bit: bool) -> dict[str, Any]:
        """How many examples are outside the threat, why, by how much at most, and how many only by rounding."""
        size = torch.nan_to_num(self.threat.distance(x_adv, x), nan=torch.inf)
        outside = torch.zeros_like(size)
        if self.threat.box is not None and x.numel():
            low, high = replace(self.threat, mask=None, shares=None).limits(x)
            there = torch.nan_to_num(x_adv.double(), nan=torch.inf)
            outside = torch.maximum(low - there, there - high).flatten(1).amax(1).clamp(min=0)
        # What rounding adds at most: half a level in every value.
        half_level = float(
            norms(torch.full((1, x[0:1].numel() or 1), _HALF_LEVEL, dtype=torch.float64), self.threat.norm)
        )
        excess = size - self.threat.eps
        rounding = (excess <= half_level + _TOLERANCE) & (outside <= _TOLERANCE)
        return {
            "count": len(size),
            "over_eps": int((excess > _TOLERANCE).sum()),
            "outside_box": int((outside > _TOLERANCE).sum()),
            "largest_excess": max([0.0, *excess.tolist()]),
            "furthest_outside_box": max([0.0, *outside.tolist()]),
            "within_rounding": int(rounding.sum()) if eight_bit else 0,
        }


def _severity(data: dict[str, Any]) -> Severity:
    """Never "good": others' examples are no search for the worst."""
    if data["rejected"]["count"]:
        return "warning"
    return "bad" if rate(data["clean"], data["robust"], data["chance"]) == "bad" else "info"


def _rejection_text(rejected: dict[str, Any]) -> str:
    if not rejected["count"]:
        return "; all are inside the threat"
    text = f"; {rejected['count']} are outside the threat, so rejected and counted as not successful"
    if rejected["over_eps"]:
        text += f": {rejected['over_eps']} by size, by {rejected['largest_excess']:.3g} at most"
    if rejected["outside_box"]:
        text += f"; {rejected['outside_box']} leave the box, by {rejected['furthest_outside_box']:.3g} at most"
    if rejected["within_rounding"]:
        text += (
            f"; {rejected['within_rounding']} by no more than the rounding to 8 bits may add (half a level, "
            f"{_HALF_LEVEL:.4f} a value): ask for the examples in float32"
        )
    return text


def _aligned(examples: Examples, subject: Subject, file: Path) -> Tensor:
    """(N, ...) examples in the order of the subject's inputs.

    Raises:
        UserError: when they are not these inputs'.
    """
    x_adv, ids, y, count = examples.x_adv, examples.ids, examples.y, len(subject.x)
    if x_adv.shape[1:] != subject.x.shape[1:]:
        channels_last = x_adv.dim() == 4 and x_adv.permute(0, 3, 1, 2).shape[1:] == subject.x.shape[1:]
        hint = ": put the channels first, (N, C, H, W)" if channels_last else ""
        raise UserError(f"{file} holds examples of {_shape(x_adv)}, the inputs are {_shape(subject.x)}{hint}")
    if ids is None:
        if len(x_adv) != count:
            raise UserError(
                f"{file} holds {len(x_adv)} examples and no ids for {count} inputs: give as many inputs, in "
                "the file's order, or add ids"
            )
        position = torch.arange(count)
    else:
        order = ids.argsort()
        sorted_ids, wanted = ids[order], subject.ids.cpu()
        if bool((sorted_ids.diff() == 0).any()):
            raise UserError(f"{file} holds two examples of one id: keep one of each")
        index = torch.searchsorted(sorted_ids, wanted).clamp(max=max(0, len(sorted_ids) - 1))
        missing = sorted_ids[index] != wanted if len(sorted_ids) else torch.ones_like(wanted, dtype=torch.bool)
        if bool(missing.any()):
            which = int(wanted[missing][0])
            raise UserError(f"{file} lacks {int(missing.sum())} of {count} inputs, the first with id {which}")
        position = order[index]
    if y is not None and not torch.equal(y[position], subject.y.cpu()):
        wrong = int((y[position] != subject.y.cpu()).sum())
        raise UserError(f"{file} gives {wrong} of {count} inputs another label: is it of other data or another order?")
    return x_adv[position]


def _shape(x: Tensor) -> str:
    return f"shape {tuple(x.shape[1:])}"
