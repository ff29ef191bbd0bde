"""Made by scripts/write_stubs.py from the registry: the attacks."""

from buttress.attacks.apgd import APGD as APGD
from buttress.attacks.base import Attack as Attack
from buttress.attacks.base import Attacked as Attacked
from buttress.attacks.base import Perturbation as Perturbation
from buttress.attacks.bim import BIM as BIM
from buttress.attacks.fgsm import FGSM as FGSM
from buttress.attacks.fgsm_rs import FGSMRS as FGSMRS
from buttress.attacks.gaussian import Gaussian as Gaussian
from buttress.attacks.mifgsm import MIFGSM as MIFGSM
from buttress.attacks.pepper import Pepper as Pepper
from buttress.attacks.pgd import PGD as PGD
from buttress.attacks.salt import Salt as Salt
from buttress.attacks.salt_and_pepper import SaltAndPepper as SaltAndPepper
from buttress.attacks.speckle import Speckle as Speckle
from buttress.attacks.uniform import Uniform as Uniform

def names() -> list[str]: ...
