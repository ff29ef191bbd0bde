"""Looking inside a network: its layers' values, their displacement under attack, and what they tolerate."""

from buttress.layers.capture import capture, layer_names
from buttress.layers.measures import MEASURES, Measure
from buttress.layers.patching import LayerPatching, patching
from buttress.layers.paths import crossed_by_every_path
from buttress.layers.select import LayerSelection
from buttress.layers.sustainability import LayerProfile, sustainability
from buttress.layers.tolerance import LayerTolerance, tolerance

__all__ = [
    "MEASURES",
    "LayerPatching",
    "LayerProfile",
    "LayerSelection",
    "LayerTolerance",
    "Measure",
    "capture",
    "crossed_by_every_path",
    "layer_names",
    "patching",
    "sustainability",
    "tolerance",
]
