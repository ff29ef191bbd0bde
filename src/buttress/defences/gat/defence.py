"""Generative adversarial training (GAT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.unrestricted.generator_styles import LEVELS, Latent, Level
from buttress.attacks.unrestricted.image_edits import Semantic
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, StepContext
from buttress.defences.base.networks import freeze, new_network
from buttress.defences.base.pretraining import pretrain
from buttress.defences.gat.generator_training import style_vae, usual_batch
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.random import derive, generator
from buttress.registry import defence
from buttress.validation import not_negative, number, whole


@defence("gat")
class GAT(Defence):
    """Clean images and images whose styles and noises were attacked, one of each (Poursaeed et al., ICCV 2021).

    Before training a generator learns the training split; then `Latent` attacks a level drawn for each batch. An
    auxiliary classifier of the model's own architecture, trained on clean images, keeps out what it no longer takes for
    the true class; the loss is the mean cross-entropy over the clean and the kept images, and the share that was
    dropped is logged. Generator and classifier are frozen, follow from the seed and so are in no checkpoint: a resumed
    run trains them again. With ``steps=0`` the second half is reconstructions without an attack, the baseline that
    tells what the generator's blur does from what the attack does.

    The paper has a StyleGAN, and no code was published: the generator (`StyleVAE`), step sizes, limits and the
    auxiliary classifier are a reconstruction. It gives no robustness in any norm by itself, and accuracy under an
    attack with the same generator is circular: test with one of another seed, and with the audit `unseen`.

    Cost: ``steps`` gradients of the inputs, and 2 gradients of the weights per step. Not counted are the generator's
    passes, one of the auxiliary classifier per input, and the training of both.

    Args:
        edits: "latent" attacks with the generator; "low-level" with `Semantic` edits of light, colour, blur and place,
            which needs none.
        levels: one or several of high, mid, low and all, of which one is drawn for a batch; without meaning for
            low-level edits.
        steps: of the attack; 0 for reconstructions.
        style_step: length of a step of the styles, in their standard deviations within a class.
        style_limit: how far they may move, likewise.
        noise_step: length of a step of the noises.
        noise_limit: their largest size.
        strength: of low-level edits.
        stop: leave an input alone as soon as it is misclassified.
        residue: add the change to the clean image; otherwise train on the generated one.
        weight: of an attacked image relative to a clean one.
        legitimacy: probability of the true class that the auxiliary classifier must give, 0 to keep all; 0.5 unless
            given, and 0 for low-level edits, which change no class and to which that classifier is not robust either.
        epochs: of training the generator.
        latent: dimensions of its code.
        beta: weight of its codes' divergence; see `style_vae`.
        judge_epochs: of training the auxiliary classifier by Adam, without augmentation.
    """

    paper = "Poursaeed et al., ICCV 2021"
    preparation = "trains a generator and a classifier"
    clean_pass = True
    keeps_inputs = True
    reconstruction = "a conditional VAE for StyleGAN; step sizes, limits and the filter of illegitimate images"

    def __init__(
        self,
        edits: Literal["latent", "low-level"] = "latent",
        levels: Level | Sequence[Level] = LEVELS,
        steps: int = 10,
        style_step: float = 0.05,
        style_limit: float = 0.3,
        noise_step: float = 0.1,
        noise_limit: float = 2.0,
        strength: float = 1.0,
        stop: bool = True,
        residue: bool = True,
        weight: float = 1.0,
        legitimacy: float | None = None,
        epochs: int = 15,
        latent: int = 32,
        beta: float | None = None,
        judge_epochs: int = 10,
    ) -> None:
        super().__init__()
        names = tuple(level for level in LEVELS if level == levels) if isinstance(levels, str) else tuple(levels)
        if edits not in ("latent", "low-level"):
            raise UserError(f"edits must be latent or low-level; got {edits!r}")
        if not names or any(level not in LEVELS for level in names):
            raise UserError(f"levels must be some of {', '.join(LEVELS)}; got {levels!r}")
        if whole("steps", steps, 0) == 0 and edits == "low-level":
            raise UserError("steps=0 trains on a generator's reconstructions, which low-level edits have none of")
        not_negative("strength", strength)
        not_negative("weight", weight)
        if beta is not None:
            not_negative("beta", beta)
        if legitimacy is not None:
            number("legitimacy", legitimacy, "[0, 1)")
        whole("epochs", epochs, 0)
        whole("latent", latent)
        whole("judge_epochs", judge_epochs, 0)
        self.edits, self.levels, self.steps = edits, names, steps
        self.style_step, self.style_limit, self.noise_step = style_step, style_limit, noise_step
        self.noise_limit, self.strength, self.stop, self.residue = noise_limit, strength, stop, residue
        self.weight, self.legitimacy, self.epochs, self.latent = weight, legitimacy, epochs, latent
        self.beta, self.judge_epochs = beta, judge_epochs
        self._attacks: list[Perturbation] = [self._attack_on(level, None, (0.0, 1.0)) for level in names]  # or refused
        self._ready = False
        self._judge: list[nn.Module] = []  # in a list, not as a submodule: neither trained nor in a checkpoint

    @property
    def attack(self) -> Perturbation | None:
        """The attack on the last of the levels; None before the generator is trained."""
        return self._attacks[-1] if self._ready or self.edits == "low-level" else None

    @property
    def share(self) -> float:
        """The probability that the auxiliary classifier must give."""
        return (0.5 if self.edits == "latent" else 0.0) if self.legitimacy is None else self.legitimacy

    @property
    def cost(self) -> Cost | None:
        """A forward and a backward for each step of the attack, and those of a clean and of an attacked batch."""
        return Cost(2 * self.steps, 4)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Trains the generator and the auxiliary classifier."""
        maker = None
        if self.edits == "latent":
            maker = style_vae(
                data.train,
                len(data.classes),
                seed=derive(seed, "generator"),
                epochs=self.epochs,
                latent=self.latent,
                beta=self.beta,
                box=data.box,
                device=next(model.parameters(), torch.zeros(())).device,
            )
        self._attacks = [self._attack_on(level, maker, data.box) for level in self.levels]
        self._judge = []
        if self.share > 0:
            judge = new_network(model, derive(seed, "judge"))
            batch_size, judging = usual_batch(len(data.train)), derive(seed, "judging")
            pretrain(judge, data.train, epochs=self.judge_epochs, seed=judging, batch_size=batch_size, task=self.task)
            self._judge = [freeze(judge)]
        self._ready = True
        return data

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Mean over clean images and those attacked ones that are still what they were."""
        if not self._ready:
            raise UserError("GAT trains its generator in prepare(model, data, seed): call that first")
        level = int(torch.randint(len(self.levels), (), generator=generator(derive(context.seed, "level"))))
        x_adv = context.craft(self._attacks[level])
        legitimate = self.legitimate(x_adv, batch.y)
        x_adv = torch.where(legitimate[:, None, None, None], x_adv, batch.x)  # nor does BatchNorm see what was dropped
        natural = F.cross_entropy(context.clean(batch.x), batch.y, reduction="none")
        attacked = F.cross_entropy(context.adversarial(x_adv), batch.y, reduction="none")
        share = self.weight * legitimate.to(attacked)
        value = (natural.sum() + (share * attacked).sum()) / (len(natural) + share.sum())
        logs = {
            "natural": natural.detach().mean(),
            "adversarial": (legitimate * attacked).detach().sum() / legitimate.sum().clamp(min=1),
            "dropped": 1 - legitimate.double().mean(),
        }
        return Loss(value, logs)

    def legitimate(self, x: Tensor, y: Tensor) -> Tensor:
        """(N,) bool: whether the auxiliary classifier gives the class at least the required probability."""
        if not self._judge:
            return torch.ones(len(x), dtype=torch.bool, device=x.device)
        judge = self._judge[0].to(x.device, x.dtype)
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            probability: Tensor = call_model(judge, x).softmax(1).gather(1, y[:, None]).squeeze(1)
        return probability >= self.share

    def _attack_on(self, level: Level, maker: nn.Module | None, box: tuple[float, float] | None) -> Perturbation:
        if self.edits == "low-level":
            return Semantic(strength=self.strength, steps=self.steps, stop=self.stop, box=box)
        return Latent(
            generator=maker,
            level=level,
            steps=self.steps,
            style_step=self.style_step,
            style_limit=self.style_limit,
            noise_step=self.noise_step,
            noise_limit=self.noise_limit,
            stop=self.stop,
            residue=self.residue and self.steps > 0,
            box=box,
        )
