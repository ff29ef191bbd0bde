"""One attack on any number of inputs: group by group, kept as they come, resumed, dealt to several processes."""

from buttress.audits.base.evaluation.run import Evaluation, evaluate, settings_of, settle

__all__ = ["Evaluation", "evaluate", "settings_of", "settle"]
