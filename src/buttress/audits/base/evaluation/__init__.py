"""One attack on any number of inputs: group by group, stored as they finish, resumed, shared between processes."""

from buttress.audits.base.evaluation.run import Evaluation, evaluate, search_precision, settings_of

__all__ = ["Evaluation", "evaluate", "search_precision", "settings_of"]
