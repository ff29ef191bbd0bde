"""Checks of the `masking` audit, one small file each; causes come before what they cause."""

from buttress.audits.masking.checks.agreement import Agreement
from buttress.audits.masking.checks.black_box import BlackBox
from buttress.audits.masking.checks.budget import Budget, Unbounded
from buttress.audits.masking.checks.check import Check, Result, Trial
from buttress.audits.masking.checks.effort import OtherLoss, Restarts, Steps
from buttress.audits.masking.checks.gradients import Gradients
from buttress.audits.masking.checks.logit_scale import Scale
from buttress.audits.masking.checks.one_step import OneStep
from buttress.audits.masking.checks.random_points import RandomPoints
from buttress.audits.masking.checks.randomness import Randomness
from buttress.audits.masking.checks.roughness import Roughness
from buttress.audits.masking.checks.training_mode import TrainMode
from buttress.audits.masking.checks.transfer import Transferred

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

__all__ = ["CHECKS", "Check", "Result", "Trial"]
