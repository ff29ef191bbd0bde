"""Made by scripts/write_stubs.py from the registry: the audits."""

from buttress.audits.adaptive.audit import Adaptive as Adaptive
from buttress.audits.base.evaluation import Evaluation as Evaluation
from buttress.audits.base.evaluation import evaluate as evaluate
from buttress.audits.base.finding import Finding as Finding
from buttress.audits.base.subject import Audit as Audit
from buttress.audits.base.subject import Subject as Subject
from buttress.audits.base.subject import run as run
from buttress.audits.base.subject import subject as subject
from buttress.audits.boundary import Boundary as Boundary
from buttress.audits.calibration import Calibration as Calibration
from buttress.audits.channels import Channels as Channels
from buttress.audits.classes import Classes as Classes
from buttress.audits.end_time import EndTime as EndTime
from buttress.audits.examples import Examples as Examples
from buttress.audits.imported.audit import Imported as Imported
from buttress.audits.latent_boundary import LatentBoundary as LatentBoundary
from buttress.audits.layers import Layers as Layers
from buttress.audits.lipschitz.audit import Lipschitz as Lipschitz
from buttress.audits.masking.audit import Masking as Masking
from buttress.audits.perturbations import Perturbations as Perturbations
from buttress.audits.robustness import Robustness as Robustness
from buttress.audits.roughness import Roughness as Roughness
from buttress.audits.saliency import Saliency as Saliency
from buttress.audits.uncertainty import UncertaintyPropagation as UncertaintyPropagation
from buttress.audits.unseen import Unseen as Unseen
from buttress.audits.weights import Weights as Weights
from buttress.audits.zero_stability import ZeroStability as ZeroStability

def names() -> list[str]: ...
