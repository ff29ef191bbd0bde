"""Models: plain modules that take inputs in [0, 1] and return logits, one file per architecture."""

from buttress.models.create import create, from_spec, names, spec_of
from buttress.models.input_checks import describe_mismatch, forward_checked
from buttress.models.weights import load_weights, save_weights
from buttress.models.wrapping.black_boxes import FromLabels, FromNumpy
from buttress.models.wrapping.from_embedding import FromEmbedding
from buttress.models.wrapping.from_onnx import FromONNX
from buttress.models.wrapping.mean_ensemble import Ensemble
from buttress.models.wrapping.normalized import Normalized
from buttress.models.wrapping.onnx_graph import from_onnx
from buttress.models.wrapping.outputs import FromProbabilities, Output

__all__ = [
    "Ensemble",
    "FromEmbedding",
    "FromLabels",
    "FromNumpy",
    "FromONNX",
    "FromProbabilities",
    "Normalized",
    "Output",
    "create",
    "describe_mismatch",
    "forward_checked",
    "from_onnx",
    "from_spec",
    "load_weights",
    "names",
    "save_weights",
    "spec_of",
]
