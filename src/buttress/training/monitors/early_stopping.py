"""An end to a training that robust overfitting has begun to spoil."""

from __future__ import annotations

from dataclasses import dataclass

from buttress.registry import monitor
from buttress.training.monitors.base import Action, Moment, Monitor
from buttress.validation import number, whole


@monitor("early-stopping")
@dataclass(frozen=True, kw_only=True)
class EarlyStopping(Monitor):
    """Stops when validated robust accuracy has not risen for some epochs (Rice, Wong and Kolter, ICML 2020).

    Against robust overfitting: test accuracy under attack falls while that on training inputs still rises. Where
    nothing attacks in validation, clean accuracy counts. Costs nothing. The best weights are kept anyway, by
    ``fit(keep="best")``.

    Args:
        patience: epochs without a rise after which training stops.
        least: what counts as a rise, in accuracy.
    """

    patience: int = 10
    least: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("patience", self.patience)
        number("least", self.least, "[0, 1)")

    def after_epoch(self, moment: Moment) -> Action | None:
        """Compare with the best epoch so far."""
        memory = moment.memory
        name = "robust" if "robust" in moment.figures else "clean"
        value = moment.figures[name]
        if "best" not in memory or value > memory["best"] + self.least:
            memory["best"], memory["epoch"] = value, moment.epoch
        waited = moment.epoch - memory["epoch"]
        if waited < self.patience:
            return None
        best = f"best {memory['best']:.1%} after epoch {memory['epoch']}"
        text = f"early stopping: validated {name} accuracy has not risen for {waited} epochs ({best}); training stops"
        return Action("stop", text)
