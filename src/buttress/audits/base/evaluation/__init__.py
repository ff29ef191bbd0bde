"""One attack on any number of inputs: group by group, stored as they finish, resumed, shared between processes."""

from buttress.audits.base.evaluation.run import Evaluation, choose_precision, evaluate, settings_of

__all__ = ["Evaluation", "choose_precision", "evaluate", "settings_of"]
