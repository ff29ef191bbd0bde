"""Checks of the `masking` audit, one file for each kind; causes come before what they cause."""

from buttress.audits.masking.checks.budget import Budget, Unbounded
from buttress.audits.masking.checks.check import Check, CheckContext, Result
from buttress.audits.masking.checks.effort import OtherLoss, Restarts, Steps
from buttress.audits.masking.checks.gradient_free import BlackBox, RandomPoints
from buttress.audits.masking.checks.gradient_health import Agreement, Gradients, Roughness
from buttress.audits.masking.checks.logit_scale import Scale
from buttress.audits.masking.checks.one_step import OneStep
from buttress.audits.masking.checks.other_networks import TrainMode, Transferred
from buttress.audits.masking.checks.randomness import Randomness

CHECKS: tuple[Check, ...] = (
    Randomness(),
    Gradients(),
    Scale(),
    TrainMode(),
    Agreement(),
    Roughness(),
    OneStep(),
    Steps(),
    Restarts(),
    OtherLoss(),
    Budget(),
    Unbounded(),
    RandomPoints(),
    BlackBox(),
    Transferred(),
)

__all__ = ["CHECKS", "Check", "CheckContext", "Result"]
