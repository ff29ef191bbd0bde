"""Training for randomised smoothing: under normal noise."""

from __future__ import annotations

from buttress.defences.gaussian import GaussianTraining
from buttress.registry import defence
from buttress.validation import positive


@defence("smoothed")
class SmoothedTraining(GaussianTraining):
    """Cross-entropy on inputs that all have normal noise, not clipped to the box (Cohen et al., ICML 2019).

    For networks that are to be smoothed with the same ``sigma`` (``certificates.Smoothed``, the audit ``smoothing``):
    one that has seen no noise is often wrong under it. The authors train ResNets by SGD with a learning rate of 0.1
    that falls to a tenth every 30 of 90 epochs, and on CIFAR-10 with flips and crops. Cost: 1 gradient of the weights
    per step.

    Args:
        sigma: standard deviation of the noise, in input units; 0.12, 0.25, 0.5 and 1 in the paper.
    """

    paper = "Cohen et al., ICML 2019"

    def __init__(self, sigma: float = 0.25) -> None:
        super().__init__(std=(positive("sigma", sigma),), probability=1.0, box=None)
        self.sigma = sigma
