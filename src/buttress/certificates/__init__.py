"""What a network provably does within a threat: statements that no attack can contradict."""

from buttress.certificates.smoothing import Smoothed

__all__ = ["Smoothed"]
