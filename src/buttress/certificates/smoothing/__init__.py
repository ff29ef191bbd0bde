"""Randomised smoothing: the majority vote of a network under noise, and the radius in which it cannot change."""

from buttress.certificates.smoothing.binomial import lower_bound, majority_p_value, upper_bound
from buttress.certificates.smoothing.noise import NOISES, Noise
from buttress.certificates.smoothing.smoothed import ABSTAINED, Prediction, Smoothed, SmoothedCertificate

__all__ = [
    "ABSTAINED",
    "NOISES",
    "Noise",
    "Prediction",
    "Smoothed",
    "SmoothedCertificate",
    "lower_bound",
    "majority_p_value",
    "upper_bound",
]
