"""Training on intervals."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from buttress.defences.certified.margins import Margins
from buttress.defences.certified.training import CertifiedTraining
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat


@defence("ibp")
class IBPTraining(CertifiedTraining):
    """Cross-entropy of the worst logits within intervals (IBP), mixed with that of the inputs.

    Gowal et al. (arXiv 1810.12715), equation 12: kappa L(logits) + (1 - kappa) L(worst logits), where the intervals of
    all values come by interval arithmetic and the last layer is joined with the margins. Kappa falls from 1 to 0.5 as
    eps rises, there linearly in time, here with eps itself. With ``steps`` the first term is of inputs that PGD has
    perturbed within the present eps: MTL-IBP (De Palma et al., ICLR 2024), which keeps more accuracy at small eps.

    The eps to train for may be somewhat above the one to be verified (0.4 for 0.3 on MNIST in the paper). Adam at
    5e-4, and a learning rate that is halved several times after eps is whole (``--schedule.name piecewise
    --schedule.factor 0.5``), are usual. Cost: 6 passes for each input, 8 with batch normalisation, and those of PGD.

    Args:
        threat: what the network is to be verified in. Of l2 and l1 the first weighted sums are bounded within the
            ball, all that follows by intervals.
        steps: of PGD; 0 leaves the inputs as they are.
        kappa: weights in [0, 1] of the term of points at eps 0 and at the whole eps; one number stands for both.
        rise: shares of the training between which eps rises from 0 to the threat's, as in auto_LiRPA's example; one
            number is when it becomes whole at once.
        initialise: draw the weights anew before training, so that intervals do not grow at first (Shi et al., NeurIPS
            2021). For short trainings, and not for a network that was trained before.
        tightness: weight of a regulariser of the intervals' growth while eps rises, of the same authors (0.5 there);
            their other regulariser, of the balance of active and inactive ReLUs, is left out.
    """

    paper = "Gowal et al., arXiv 1810.12715"

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        steps: int = 0,
        kappa: float | Sequence[float] = (1.0, 0.5),
        rise: float | Sequence[float] = (0.03, 0.63),
        initialise: bool = False,
        tightness: float = 0.0,
    ) -> None:
        super().__init__(threat, steps, kappa, rise, initialise, tightness)

    def _margins(self, bounds: Margins, risen: float) -> Tensor:
        return bounds.by_intervals()
