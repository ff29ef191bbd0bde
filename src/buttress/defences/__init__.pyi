"""Made by scripts/write_stubs.py from the registry: the defences."""

from buttress.defences.adv_kip.defence import AdvKIP as AdvKIP
from buttress.defences.adversarial_training import AdversarialTraining as AdversarialTraining
from buttress.defences.alp import ALP as ALP
from buttress.defences.apart.defence import APART as APART
from buttress.defences.auxiliary_from import AuxiliaryFrom as AuxiliaryFrom
from buttress.defences.awp import AWP as AWP
from buttress.defences.base.defence import Batch as Batch
from buttress.defences.base.defence import Cost as Cost
from buttress.defences.base.defence import Defence as Defence
from buttress.defences.base.defence import Epoch as Epoch
from buttress.defences.base.defence import Loss as Loss
from buttress.defences.base.defence import Pass as Pass
from buttress.defences.base.defence import Step as Step
from buttress.defences.base.defence import StepContext as StepContext
from buttress.defences.cfa import CFA as CFA
from buttress.defences.class_corrected import ClassCorrected as ClassCorrected
from buttress.defences.cost_sensitive.csa import CSA as CSA
from buttress.defences.cost_sensitive.cse import CSE as CSE
from buttress.defences.cost_sensitive.wrapper import CostSensitive as CostSensitive
from buttress.defences.dial.defence import DIAL as DIAL
from buttress.defences.ensemble_at import EnsembleAT as EnsembleAT
from buttress.defences.eps_warmup import EpsWarmup as EpsWarmup
from buttress.defences.fgsm_training import Fast as Fast
from buttress.defences.fgsm_training import FGSMTraining as FGSMTraining
from buttress.defences.fgsm_training import NFGSMTraining as NFGSMTraining
from buttress.defences.first_layer_decay import FirstLayerDecay as FirstLayerDecay
from buttress.defences.free import Free as Free
from buttress.defences.friendly import Friendly as Friendly
from buttress.defences.frl import FRL as FRL
from buttress.defences.gat.defence import GAT as GAT
from buttress.defences.gaussian import GaussianTraining as GaussianTraining
from buttress.defences.grad_align import GradAlign as GradAlign
from buttress.defences.iat import IAT as IAT
from buttress.defences.instance_eps import InstanceEps as InstanceEps
from buttress.defences.j_sigr import JSIGR as JSIGR
from buttress.defences.ladder.defence import LADDER as LADDER
from buttress.defences.layer_regularised import LayerRegularised as LayerRegularised
from buttress.defences.mart import MART as MART
from buttress.defences.masked_fgsm import MaskedFGSM as MaskedFGSM
from buttress.defences.self_ensemble import SelfEnsemble as SelfEnsemble
from buttress.defences.self_training import SelfTraining as SelfTraining
from buttress.defences.snode.defence import SnodeNCG as SnodeNCG
from buttress.defences.standard import Standard as Standard
from buttress.defences.trades import TRADES as TRADES

def names() -> list[str]: ...
