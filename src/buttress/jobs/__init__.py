"""The jobs as functions: what the command line calls."""

from buttress.workflows.attacking import attack
from buttress.workflows.auditing import audit
from buttress.workflows.comparing import compare
from buttress.workflows.exporting import export
from buttress.workflows.hardening import harden
from buttress.workflows.listing import documentation, listing
from buttress.workflows.reproducing import reproduce
from buttress.workflows.settings import Network, Say, Source, Training
from buttress.workflows.training import train

__all__ = [
    "Network",
    "Say",
    "Source",
    "Training",
    "attack",
    "audit",
    "compare",
    "documentation",
    "export",
    "harden",
    "listing",
    "reproduce",
    "train",
]
