"""What the attacker may do: the norm, the budget and the box, and all the geometry that follows from them."""

from buttress.threat.checks import NOT_GIVEN, check_threat
from buttress.threat.geometry import Norm, budget_text, norms, per_row
from buttress.threat.threat import Threat

__all__ = ["NOT_GIVEN", "Norm", "Threat", "budget_text", "check_threat", "norms", "per_row"]
