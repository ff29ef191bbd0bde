"""Checks of the `masking` audit, one small file each; causes come before what they cause."""

from buttress.audits.checks.agreement import Agreement
from buttress.audits.checks.base import Check, Result, Trial
from buttress.audits.checks.black_box import BlackBox
from buttress.audits.checks.budget import Budget, Unbounded
from buttress.audits.checks.effort import OtherLoss, Restarts, Steps
from buttress.audits.checks.gradients import Gradients
from buttress.audits.checks.mode import TrainMode
from buttress.audits.checks.one_step import OneStep
from buttress.audits.checks.random_points import RandomPoints
from buttress.audits.checks.randomness import Randomness
from buttress.audits.checks.roughness import Roughness
from buttress.audits.checks.scale import Scale
from buttress.audits.checks.transferred import Transferred

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
