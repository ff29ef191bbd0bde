"""Training on small boxes around adversarial examples."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from buttress.defences.base.defence import Batch
from buttress.defences.certified.margins import Margins
from buttress.defences.certified.training import CertifiedTraining
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import number, whole


@defence("sabr")
class SABR(CertifiedTraining):
    """Cross-entropy of the worst logits within the intervals of a small box around an adversarial example.

    Mueller et al. (ICLR 2023): PGD searches the budget (1 - small) eps for a centre, and intervals are of the box of
    half-width small eps around it, which holds a worst point more often than not. Less is asked of the network than by
    `IBPTraining`, so that more accuracy is left, and stronger verifiers than intervals are needed afterwards. The
    authors take small 0.4 for MNIST at eps 0.1, 0.6 at 0.3, and 0.1 for CIFAR-10 at 2/255. Ours: PGD's usual step in
    place of a falling one, batch normalisation by the statistics of the centres in place of the inputs', and a pass of
    the centres in training, so that layers can be regularised.

    Cost: that of PGD and 6 passes for each input, 8 with batch normalisation.

    Args:
        threat: what the network is to be verified in; in l2 and l1 the small boxes are small balls.
        steps: of PGD, 1 or more.
        small: half-width of the boxes as a share of eps, in (0, 1]; 1 is training on whole intervals.
        kappa: weights in [0, 1] of the cross-entropy of the centres at eps 0 and at the whole eps; one stands for both.
        rise: shares of the training between which eps rises from 0 to the threat's, as in auto_LiRPA's example; one
            number is when it becomes whole at once.
        initialise: draw the weights anew before training; see `IBPTraining`.
        tightness: weight of a regulariser of the intervals' growth; see `IBPTraining`.
    """

    paper = "Mueller et al., ICLR 2023"
    verifier = "crown-ibp"

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        steps: int = 8,
        small: float = 0.4,
        kappa: float | Sequence[float] = (0.0, 0.0),
        rise: float | Sequence[float] = (0.03, 0.63),
        initialise: bool = False,
        tightness: float = 0.0,
    ) -> None:
        super().__init__(threat, whole("steps", steps), kappa, rise, initialise, tightness)
        self.small = number("small", small, "(0, 1]")

    def _share_searched(self, risen: float) -> float:
        return (1 - self.small) * risen

    def _centres(self, batch: Batch, points: Tensor) -> Tensor:
        return points

    def _share_bounded(self, risen: float) -> float:
        return self.small * risen

    def _margins(self, bounds: Margins, risen: float) -> Tensor:
        return bounds.by_intervals()
