"""How much longer adversarial training makes the gradients of examples, as it goes."""

from __future__ import annotations

from dataclasses import dataclass

from buttress.layers.example_gradients import example_gradients, lengths, ratios
from buttress.registry import monitor
from buttress.threat import Threat
from buttress.training.monitors.base import Action, Moment, Monitor
from buttress.training.monitors.probe import pgd
from buttress.validation import whole

_NAMES = {"max": "intensity", "p95": "intensity_p95", "mean": "intensity_mean"}


@monitor("robustified-intensity")
@dataclass(frozen=True, kw_only=True)
class RobustifiedIntensity(Monitor):
    """Records the single-step robustified intensity I_t on the current batch (arXiv 2012.13573).

    I_t is the largest norm of an example's gradient over the parameters at adversarial examples of the batch, over that
    at its inputs as they are, both at the present weights in eval mode. The released code logs either norm alone, the
    adversarial one of a training with an attack and the other of one without, and leaves their ratio to be formed: for
    that the history has both. Compare runs at equal progress only, for I_t depends on t.

    The history has, as means over the measurements of an epoch, ``gradient_norm`` (the largest at the inputs as they
    are) and, where there is a threat, ``adversarial_gradient_norm``, ``intensity``, and ``intensity_p95`` and
    ``intensity_mean`` of the 95th percentiles and means, since the maximum of a batch is noisy. Where all gradients
    are 0 there is no intensity. Cost: ``steps`` + 2 gradients of the batch each time, example by example for 2 of them.

    Args:
        threat: of the examples; that of the defence's attack unless given. Without either, only the norm at the inputs
            is recorded.
        every: steps between measurements, counted over epochs.
        steps: of PGD, from a random start, each of a quarter of the budget.
    """

    threat: Threat | None = None
    every: int = 100
    steps: int = 10

    def __post_init__(self) -> None:
        """Refuse settings that mean nothing."""
        whole("every", self.every)
        whole("steps", self.steps)

    def after_step(self, moment: Moment) -> Action | None:
        """Measure when it is time, and add to what the epoch has."""
        if moment.step % self.every:
            return None
        for name, value in self._measured(moment).items():
            total, count = moment.memory.get(name, (0.0, 0))
            moment.memory[name] = (total + value, count + 1)
        return None

    def after_epoch(self, moment: Moment) -> Action | None:
        """Write the epoch's means into its row; in an epoch without a measurement there are none."""
        moment.figures.update({name: total / count for name, (total, count) in moment.memory.items()})
        moment.memory.clear()
        return None

    def _measured(self, moment: Moment) -> dict[str, float]:
        """What the history has, of the present batch and weights."""
        batch, threat = moment.batch, self.threat or moment.threat
        model, seed, task = moment.model, moment.seed, moment.task
        clean = example_gradients(model, batch.x, batch.y, task, seed).norms
        found = {"gradient_norm": lengths(clean)["max"]}
        if threat is None:
            return found
        attack = pgd(threat, self.steps)
        x_adv = attack(model, batch.x, batch.y, task=task, seed=seed, ids=batch.ids).x_adv
        adversarial = example_gradients(model, x_adv, batch.y, task, seed).norms
        found["adversarial_gradient_norm"] = lengths(adversarial)["max"]
        return found | {_NAMES[name]: value for name, value in ratios(adversarial, clean).items()}
