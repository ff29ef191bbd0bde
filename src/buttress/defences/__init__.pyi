"""Made by scripts/write_stubs.py from the registry: the defences."""

from buttress.defences.adversarial_training import AdversarialTraining as AdversarialTraining
from buttress.defences.base import At as At
from buttress.defences.base import Batch as Batch
from buttress.defences.base import Cost as Cost
from buttress.defences.base import Defence as Defence
from buttress.defences.base import Epoch as Epoch
from buttress.defences.base import Loss as Loss
from buttress.defences.base import Pass as Pass
from buttress.defences.base import Step as Step
from buttress.defences.fast import Fast as Fast
from buttress.defences.layer_regularised import LayerRegularised as LayerRegularised
from buttress.defences.standard import Standard as Standard
from buttress.defences.trades import TRADES as TRADES

def names() -> list[str]: ...
