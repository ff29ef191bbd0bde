"""Made by scripts/write_stubs.py from the registry: the attacks."""

from buttress.attacks.apgd import APGD as APGD
from buttress.attacks.autoattack import AutoAttack as AutoAttack
from buttress.attacks.base import Attack as Attack
from buttress.attacks.base import Attacked as Attacked
from buttress.attacks.base import Perturbation as Perturbation
from buttress.attacks.bim import BIM as BIM
from buttress.attacks.boundary_attack import BoundaryAttack as BoundaryAttack
from buttress.attacks.bpda import BPDA as BPDA
from buttress.attacks.cw import CW as CW
from buttress.attacks.ddn import DDN as DDN
from buttress.attacks.deepfool import DeepFool as DeepFool
from buttress.attacks.difgsm import DIFGSM as DIFGSM
from buttress.attacks.ensemble import Ensemble as Ensemble
from buttress.attacks.eot import EoT as EoT
from buttress.attacks.fab import FAB as FAB
from buttress.attacks.fgsm import FGSM as FGSM
from buttress.attacks.fgsm_rs import FGSMRS as FGSMRS
from buttress.attacks.fmn import FMN as FMN
from buttress.attacks.gaussian import Gaussian as Gaussian
from buttress.attacks.hopskipjump import HopSkipJump as HopSkipJump
from buttress.attacks.jsma import JSMA as JSMA
from buttress.attacks.lbfgs import LBFGS as LBFGS
from buttress.attacks.mifgsm import MIFGSM as MIFGSM
from buttress.attacks.nifgsm import NIFGSM as NIFGSM
from buttress.attacks.one_pixel import OnePixel as OnePixel
from buttress.attacks.pepper import Pepper as Pepper
from buttress.attacks.pgd import PGD as PGD
from buttress.attacks.salt import Salt as Salt
from buttress.attacks.salt_and_pepper import SaltAndPepper as SaltAndPepper
from buttress.attacks.speckle import Speckle as Speckle
from buttress.attacks.spsa import SPSA as SPSA
from buttress.attacks.square import Square as Square
from buttress.attacks.tifgsm import TIFGSM as TIFGSM
from buttress.attacks.tpgd import TPGD as TPGD
from buttress.attacks.transfer import Transfer as Transfer
from buttress.attacks.uniform import Uniform as Uniform
from buttress.attacks.universal import Universal as Universal
from buttress.attacks.zoo import ZOO as ZOO

def names() -> list[str]: ...
