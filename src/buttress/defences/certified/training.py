"""What methods share that train on bounds of the margins: schedules, the loss, what is checked and reported."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from buttress import certificates
from buttress.attacks.gradient.pgd import PGD
from buttress.certificates.bounds.network import BoundedNetwork
from buttress.certificates.operations.batch_statistics import BATCH_NORMS, with_batch_statistics
from buttress.certificates.verifier import Verifier
from buttress.data.dataset import Dataset
from buttress.defences.base.crafting import CraftingDefence, crafting_passes
from buttress.defences.base.defence import Batch, Cost, Epoch, Loss, StepContext
from buttress.defences.certified.initialisation import growth, initialise_for_intervals
from buttress.defences.certified.margins import Graphs, Margins, robust_loss
from buttress.defences.certified.schedule import between, ends, share_of_eps
from buttress.engine.input_dtype import suited
from buttress.errors import UserError
from buttress.threat import Threat
from buttress.threat.row_threat import RowThreat
from buttress.validation import not_negative, switch, whole

_VALIDATED = 500  # inputs that are certified after each epoch


class CertifiedTraining(CraftingDefence):
    """Training on bounds: kappa times a cross-entropy of points, 1 - kappa times one that no perturbation exceeds.

    Eps rises from 0 to the threat's between two shares of the training (see `share_of_eps`). Batch normalisation in
    bounds is by the statistics of the points of the first term (see `with_batch_statistics`); dropout is left out of
    them. Each epoch's history has ``certified``, the share of up to 500 validation inputs that `verifier` verifies at
    the whole eps; ``eps``, and the terms of the loss.

    Attributes:
        verifier: what certifies validation inputs.
    """

    verifier: ClassVar[str | Verifier] = "ibp"

    def __init__(
        self,
        threat: Threat,
        steps: int,
        kappa: float | Sequence[float],
        rise: float | Sequence[float],
        initialise: bool,
        tightness: float,
    ) -> None:
        super().__init__()
        self.threat, self.steps = threat, whole("steps", steps, 0)
        self.kappa, self.rise = ends("kappa", kappa), ends("rise", rise)
        if self.rise[0] > self.rise[1]:
            raise UserError(f"rise must be two shares of the training, the earlier one first; got {rise!r}")
        self.initialise, self.tightness = switch("initialise", initialise), not_negative("tightness", tightness)
        self._attack = PGD(threat=threat, steps=steps or 10)  # without steps what is trained against, for validation
        self._graphs = Graphs()
        self._classes: int | None = None
        self._normalised = False

    @property
    def clean_pass(self) -> bool:
        """Where nothing is attacked."""
        return not self.steps

    @property
    def perturbed_pass(self) -> bool:
        """Where something is."""
        return self.steps > 0

    @property
    def cost(self) -> Cost | None:
        """That of the attack, one pass of points, one of either end of the intervals, and of batch statistics."""
        crafting = crafting_passes(self._attack) if self.steps else 0.0
        bounds = self._passes_of_bounds()
        if crafting is None or bounds is None:
            return None
        return Cost(crafting, 2.0 + bounds + 2 * self._normalised)

    def _passes_of_bounds(self) -> float | None:
        """Passes that bounds take, forwards and backwards; None before the data are known that they hang on."""
        return 4.0

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Look whether the network can be bounded, and give it other weights where it is to be initialised.

        Raises:
            UserError: naming a layer that cannot be bounded, or a budget without an end.
        """
        if math.isinf(self.threat.eps):
            raise UserError(f"{self.label()} lets eps rise to what it is trained for, which must be finite; got inf")
        x = suited(model, data.train.take(torch.arange(min(2, len(data.train))))[0])
        graph = self._graphs.of(model, x, self.task)
        BoundedNetwork(graph)
        self._classes = graph.shape_of(graph.result)[1]
        self._normalised = any(node.depends and node.name in BATCH_NORMS for node in graph.nodes)
        if self.initialise:
            initialise_for_intervals(model)
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The mean of both cross-entropies, weighted, and the regulariser of the intervals' widths."""
        risen = share_of_eps(context.progress, self.rise)
        kappa = between(self.kappa, risen)
        points = self._points(batch, context, risen)
        logits = context.adversarial(points) if self.perturbed_pass else context.clean(points)
        natural = context.task.objective(logits, batch.y)
        logs = {"eps": natural.new_tensor(risen * context.scale * self.threat.eps), "points": natural.detach()}
        if kappa == 1:
            return Loss(natural, logs)
        with torch.autocast(points.device.type, enabled=False):  # bounds in half precision bound nothing
            graph = self._graphs.of(model, points, context.task)
            if model.training:
                graph = with_batch_statistics(graph, points)
            size = context.scale * self._share_bounded(risen)
            threat = RowThreat.of(self.threat, points.new_full((len(points),), size))
            bounds = Margins(graph, model, self._centres(batch, points), batch, threat)
            robust = robust_loss(self._margins(bounds, risen))
            value = kappa * natural + (1 - kappa) * robust
            if self.tightness and risen < 1 and size:
                value = value + self.tightness * (1 - risen) * growth(bounds.widths())
        return Loss(value, {**logs, "bounds": robust.detach()})

    def _points(self, batch: Batch, context: StepContext, risen: float) -> Tensor:
        """(N, ...) what the pass of points is on: the batch, perturbed where something is attacked."""
        share = self._share_searched(risen)
        if not self.steps or not share * context.scale:
            return batch.x
        return self._craft(context, scale=batch.x.new_full((len(batch.x),), share))

    def _share_searched(self, risen: float) -> float:
        """The budget of the attack, as a share of eps."""
        return risen

    def _centres(self, batch: Batch, points: Tensor) -> Tensor:
        """(N, ...) what bounds are around."""
        return batch.x

    def _share_bounded(self, risen: float) -> float:
        """The budget around these, as a share of eps."""
        return risen

    @abstractmethod
    def _margins(self, bounds: Margins, risen: float) -> Tensor:
        """(K - 1, N) lower bounds of the margins, when a share ``risen`` of eps is reached."""

    def end_epoch(self, epoch: Epoch) -> None:
        """Certify validation inputs."""
        part = epoch.data.val.stratified(_VALIDATED, 0)
        x, y, ids = part.take(torch.arange(len(part)))
        x = suited(epoch.model, x)
        certificate = certificates.certify(
            epoch.model,
            x,
            y.to(x.device),
            threat=self.threat,
            method=self.verifier,
            task=self.task,
            batch_size=_VALIDATED,
            ids=ids.to(x.device),
        )
        epoch.figures["certified"] = int(certificate.verified.sum()) / len(x)
