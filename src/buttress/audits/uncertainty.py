"""How uncertain are its outputs when its inputs are: by linearisation, and by sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work
from buttress.engine.pass_count import PassCount
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.layers.correlation import spearman
from buttress.layers.measures import mean_defined
from buttress.layers.uncertainty import (
    SampledOutputs,
    error_probabilities,
    jacobian,
    propagated_covariance,
    relative_error,
    sample_outputs,
    sampling_error,
)
from buttress.models import forward_checked
from buttress.random import Random, derive
from buttress.registry import audit
from buttress.threat import Threat
from buttress.validation import not_negative, whole


@audit("uncertainty-propagation")
@dataclass(frozen=True, kw_only=True)
class UncertaintyPropagation(Audit):
    """Covariances J Sigma J^T of the outputs under normal noise on the inputs, and the errors that they predict.

    J is the input-output Jacobian (Jaroudi et al., arXiv 2205.13933, who get it from the sensitivity problem of a
    neural ODE; here by reverse passes, for any network), Sigma the diagonal covariance of the input. Exact for a linear
    network; of others the same is measured by sampling beside it. The probability of an error follows from the leads of
    the true class over each other one: at least that of the class which overtakes most often, at most the sum over
    classes. Noise is not cut off at the box. Inputs that are wrong without noise count with the rest.

    Cost per input: 1 forward and a backward for each class, and ``draws`` + 1 forwards.

    Args:
        std: standard deviation of the noise in widths of the box: one number, or one for each value of an input,
            flattened.
        box: the range of the inputs; without one ``std`` is in input units.
        inputs: inputs measured, spread evenly over the data.
        draws: samples of the noise for each input.
    """

    topic: ClassVar[Topic] = "How sure it is of itself"

    std: float | Sequence[float] = 0.1
    box: tuple[float, float] | None = (0.0, 1.0)
    inputs: int = 100
    draws: int = 300

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        values = self.std if isinstance(self.std, Sequence) else [self.std]
        if not any([not_negative("std", value) for value in values]):
            raise UserError("std must be a positive number, or a list of numbers of 0 or more that are not all 0")
        whole("inputs", self.inputs)
        whole("draws", self.draws, 2)

    def work(self, subject: Subject) -> Work:
        """The Jacobian of each measured input, a backward pass an output, and the samples."""
        count = min(self.inputs, len(subject.y))
        return Work(passes=PassCount(2 + self.draws, subject.logits.shape[1]) * count)

    def ask(self, subject: Subject) -> Finding:
        """Linearise at each input, then sample around it.

        Raises:
            UserError: for a list of another length than an input has values, and outputs without a gradient.
        """
        count = min(self.inputs, len(subject.x))
        rows = torch.linspace(0, len(subject.x) - 1, count).long().to(subject.x.device)
        x, y, ids = subject.x[rows], subject.y[rows], subject.ids[rows]
        std, random = self._std(x), Random(derive(subject.seed, "uncertainty"), ids)

        def function(points: Tensor) -> Tensor:
            return subject.task.read(forward_checked(subject.model, points))

        covariances, logits, samples = [], [], []
        with preserved(subject.model, "eval", subject.seed, x.device):
            for part in torch.split(torch.arange(count, device=x.device), subject.batch_size):
                out, matrix = jacobian(function, x[part])
                logits.append(out)
                covariances.append(propagated_covariance(matrix, std.flatten().square()))
                samples.append(sample_outputs(function, x[part], y[part], std, random.only(part), self.draws))
        shift, spread, wrong = (torch.cat([getattr(s, n) for s in samples]) for n in ("shift", "covariance", "wrong"))
        data = self._data(torch.cat(logits), torch.cat(covariances), SampledOutputs(shift, spread, wrong), y, ids)
        data["seed"] = subject.seed
        return Finding("uncertainty-propagation", "Uncertainty of the outputs", self._verdict(data), "info", data)

    def _std(self, x: Tensor) -> Tensor:
        """Of the shape of one input, in input units."""
        widths = Threat(box=self.box).widths(x)
        if not isinstance(self.std, Sequence):
            return torch.full_like(x[0], self.std) * widths
        if len(self.std) != x[0].numel():
            raise UserError(
                f"std must have one number for each of the {x[0].numel()} values of an input, not {len(self.std)}"
            )
        return torch.tensor(list(self.std), dtype=x.dtype, device=x.device).view(x[0].shape) * widths

    def _data(
        self, logits: Tensor, covariances: Tensor, samples: SampledOutputs, y: Tensor, ids: Tensor
    ) -> dict[str, Any]:
        least, most = error_probabilities(logits, covariances, y)
        deviations = covariances.diagonal(dim1=1, dim2=2).sqrt()
        measured = samples.covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
        values = zip(
            ids.tolist(),
            deviations.tolist(),
            measured.tolist(),
            least.tolist(),
            most.tolist(),
            samples.wrong.tolist(),
            strict=True,
        )
        names = ("id", "predicted_std", "measured_std", "predicted_error", "union", "measured_error")
        size = measured.square().sum(1).sqrt()
        relative_shift = torch.where(size > 0, samples.shift.norm(dim=1) / size, torch.nan)
        return {
            "inputs": len(y),
            "draws": self.draws,
            "std": float(torch.tensor(self.std).double().square().mean().sqrt()),
            "covariance_error": float(mean_defined(relative_error(covariances, samples.covariance))),
            "sampling_error": float(mean_defined(sampling_error(samples.covariance, self.draws))),
            "shift": float(mean_defined(relative_shift)),
            "output_std": {"predicted": float(deviations.mean()), "measured": float(measured.mean())},
            "errors": {
                "predicted": float(least.mean()),
                "union": float(most.mean()),
                "measured": float(samples.wrong.mean()),
            },
            "error_gap": float((least - samples.wrong).abs().mean()),
            "correlation": spearman(least.cpu(), samples.wrong.cpu()),
            "accuracy": float((logits.argmax(1) == y).double().mean()),
            "noisy_accuracy": float(1 - samples.wrong.mean()),
            "rows": [dict(zip(names, row, strict=True)) for row in values],
        }

    def _verdict(self, data: dict[str, Any]) -> str:
        errors = data["errors"]
        return (
            f"With normal noise of standard deviation {data['std']:.3g} on {data['inputs']} inputs, "
            f"{errors['measured']:.1%} are misclassified; "
            f"the linearised network predicts {errors['predicted']:.1%} to {errors['union']:.1%}. "
            f"The outputs' covariances are off by {data['covariance_error']:.1%} of what was measured, where sampling "
            f"alone accounts for {data['sampling_error']:.1%}."
        )
