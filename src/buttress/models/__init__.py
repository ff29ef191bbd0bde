"""Models: plain modules that take inputs in [0, 1] and return logits, one file per architecture."""

from buttress.models.checks import describe_mismatch, forward_checked
from buttress.models.creation import create, from_spec, names, spec_of
from buttress.models.ensemble import Ensemble
from buttress.models.normalized import Normalized
from buttress.models.outputs import FromProbabilities, Output
from buttress.models.weights import load_weights, save_weights

__all__ = [
    "Ensemble",
    "FromProbabilities",
    "Normalized",
    "Output",
    "create",
    "describe_mismatch",
    "forward_checked",
    "from_spec",
    "load_weights",
    "names",
    "save_weights",
    "spec_of",
]
