"""Adversarial kernel inducing points: a training set that is learned so that plain training on it is robust."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.attacks import Perturbation
from buttress.attacks.gradient.pgd import PGD
from buttress.data.dataset import Dataset
from buttress.defences.adv_kip.files import as_split, check_fits, free_id, read_set, write_picture, write_set
from buttress.defences.adv_kip.kernel_inducing_points import Inner, Learned, LearningSettings, View, learn
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, Step, StepContext
from buttress.errors import UserError
from buttress.models.blocks.kernel_regression import Kernel, KernelRegression, centred
from buttress.models.wrapping.normalized import Normalized
from buttress.models.wrapping.wrappers import nested
from buttress.random import derive
from buttress.registry import defence
from buttress.validation import one_name, one_of, positive, whole

Objective = Literal["mse", "cross_entropy"]
USUAL = Kernel()


@defence("adv-kip")
class AdvKIP(Defence):
    """Plain training on a few learned inputs, on which kernel regression is robust (adv-KIP).

    Tsilivis, Su and Kempe, arXiv 2207.11727: before training, the set is learned so that regression on it with the
    tangent kernel of a wide network, fully connected or convolutional, errs little at attacked real inputs; the attack
    is on the regression itself, which is KIP (Nguyen et al., ICLR 2021) without it. Then the network learns the set,
    clean and without augmentation; validation and test stay real. The kernel sees inputs normalised as the network's
    `Normalized` does.

    A `KernelRegression` as the model (``--model buttress.models.blocks.kernel_regression:kernel_regression``) is given
    the learned set in place of training, with its own kernel: it is the classifier that the set was learned for.

    Robustness of the kernel need not be the network's, and was optimised against one gradient attack: audit both with
    PGD-100 and restarts, a margin loss, and an attack without gradients (AutoAttack, Square), by networks of several
    seeds and widths. No code of the authors' was at hand: the default sizes and steps are ours.

    Cost: that of standard training on the few inputs; before it, for each step, the attack's passes and two more of
    the kernel over ``batch`` inputs.

    Args:
        attack: what real inputs are perturbed by while the set is learned; a budget of 0 gives KIP.
        inner: what it maximises: "own" is the attack's own loss, cross-entropy on the regression's outputs unless it
            names another; "mse" is the squared error.
        points: inputs to learn, as many of each class; fewer where a class has not so many to start from.
        steps: of Adam on the set; a tenth of the real inputs, between 20 and 300, unless given (KIP: 300 to 1000).
        batch: real inputs a step, equally many of each class (KIP: 5000).
        lr: Adam's learning rate, in input units.
        learn_labels: whether labels are learned along; otherwise they are one-hot minus 1 / C.
        kernel: which, "fc" or "conv" by its ``kind``, how deep, and the ridge of the regression.
        objective: of the network: "mse" is the mean squared error of its logits, "cross_entropy" is against the
            labels brought back to probabilities (1 / C added, cut off at 0, summing to 1).
        dataset: the dataset.safetensors of an earlier run, taken in place of learning: for networks of other seeds and
            widths on one set.
    """

    paper = "Tsilivis et al., 2022"
    preparation = "learns a training set"
    clean_pass = True
    keeps_inputs = True
    perturbed_pass = False
    reconstruction = "sizes, steps and defaults: no code of the authors' is public"

    learned: Tensor
    targets: Tensor
    outer: Tensor
    first: Tensor
    dataset: str | None

    def __init__(
        self,
        attack: Perturbation = PGD(steps=10),
        inner: Inner = "own",
        points: int = 100,
        steps: int | None = None,
        batch: int = 500,
        lr: float = 0.01,
        learn_labels: bool = False,
        kernel: Kernel = USUAL,
        objective: Objective = "mse",
        dataset: str | None = None,
    ) -> None:
        super().__init__()
        whole("points", points, 2)
        whole("batch", batch, 1)
        if steps is not None:
            whole("steps", steps, 0)
        positive("lr", lr)
        one_of("objective", objective, get_args(Objective))
        self._attack, self.inner, self.points, self.steps, self.batch = attack, inner, points, steps, batch
        self.lr, self.learn_labels, self.kernel, self.objective = lr, learn_labels, kernel, objective
        self.dataset = None if dataset is None else one_name("dataset", dataset)
        self._box: tuple[float, float] | None = None
        self._learning_settings(kernel)
        self._keep(Learned(torch.zeros(0), torch.zeros(0, 0), torch.zeros(0)), 0)

    @property
    def attack(self) -> Perturbation:
        """What real inputs are perturbed by while the set is learned."""
        return self._attack

    @property
    def cost(self) -> Cost:
        """One pass of each kind."""
        return Cost(crafting=0)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Learns the set, or reads it, and returns the data with it as the training split.

        Raises:
            UserError: when a file does not fit the data, or a kernel regression holds another number of points.
        """
        view, inner = normalisation(model)
        like = next(model.parameters())
        if self.dataset is None:
            kernel = inner.kernel if isinstance(inner, KernelRegression) else self.kernel
            settings, classes = self._learning_settings(kernel), len(data.classes)
            seed = derive(seed, "adv-kip")
            result = learn(data.train, classes, settings, box=data.box, view=view, seed=seed, device=like.device)
        else:
            images, labels = read_set(self.dataset)
            check_fits(images, labels, data, self.dataset)
            result = Learned(images, labels, torch.zeros(0))
        if isinstance(inner, KernelRegression):
            _fill(inner, view(result.images.to(like.device)), result.labels)
        self._keep(result, free_id(data))
        self._box = data.box
        return replace(data, train=as_split(self.learned, self.targets, int(self.first)), augment=None)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The objective at the clean inputs.

        Raises:
            UserError: when the network tells another number of classes apart than the labels.
        """
        logits = context.clean(batch.x)
        labels = self.labels(batch, logits.shape[1])
        if self.objective == "mse":
            return Loss(F.mse_loss(logits, labels.to(logits)))
        return Loss(F.cross_entropy(logits, probabilities(labels).to(logits)))

    def step(self, step: Step) -> None:
        """One update; of a kernel regression none, since it holds the set already."""
        if not isinstance(normalisation(step.model)[1], KernelRegression):
            super().step(step)

    def labels(self, batch: Batch, classes: int) -> Tensor:
        """(N, C) float64 labels of a batch: the learned set's by id; of other inputs, one-hot minus 1 / C."""
        own = centred(batch.y, classes)
        if not len(self.targets):
            return own
        if self.targets.shape[1] != classes:
            raise UserError(f"the network tells {classes} classes apart, the learned labels {self.targets.shape[1]}")
        rows = batch.ids - self.first
        is_learned = (rows >= 0) & (rows < len(self.targets))
        return torch.where(is_learned[:, None], self.targets[rows.clamp(0, len(self.targets) - 1)].double(), own)

    def save(self, folder: str | Path) -> None:
        """Write the learned set into a folder: dataset.safetensors, and dataset.png where it is images.

        Raises:
            UserError: before `prepare`.
        """
        if not len(self.learned):
            raise UserError("there is no learned set yet: call prepare first")
        write_set(Path(folder) / "dataset.safetensors", self.learned, self.targets)
        if self.learned.dim() == 4 and self.learned.shape[1] in (1, 3):
            self.save_images(Path(folder) / "dataset.png")

    def save_images(self, path: str | Path) -> None:
        """Write the learned inputs as one PNG, ten in a row, sorted by class as they were at the start.

        Raises:
            UserError: for inputs that are no images.
        """
        write_picture(path, self.learned, self._box)

    def _learning_settings(self, kernel: Kernel) -> LearningSettings:
        return LearningSettings(
            kernel=kernel,
            attack=self._attack,
            inner=self.inner,
            points=self.points,
            steps=self.steps,
            batch=self.batch,
            lr=self.lr,
            learn_labels=self.learn_labels,
        )

    def _keep(self, result: Learned, first: int) -> None:
        self.register_buffer("learned", result.images)
        self.register_buffer("targets", result.labels)
        self.register_buffer("outer", result.outer)
        self.register_buffer("first", torch.tensor(first))


def normalisation(model: nn.Module) -> tuple[View, nn.Module]:
    """What a model does to its inputs first, and the network behind it."""
    *wrappers, network = nested(model)
    for wrapper in wrappers:
        if isinstance(wrapper, Normalized):
            return Normalized(nn.Identity(), wrapper.mean, wrapper.std), network
    return nn.Identity(), network


def probabilities(labels: Tensor) -> Tensor:
    """(N, C) centred labels as probabilities: 1 / C added, cut off at 0, divided by their sum."""
    positive = (labels + 1 / labels.shape[1]).clamp(min=0)
    return positive / positive.sum(1, keepdim=True).clamp(min=torch.finfo(labels.dtype).tiny)


def _fill(model: KernelRegression, support: Tensor, labels: Tensor) -> None:
    """Give a kernel regression its support set."""
    if len(support) != len(model.support) or support[0].numel() != model.support[0].numel():
        expected, got = tuple(model.support.shape), tuple(support.flatten(1).shape)
        raise UserError(
            f"the kernel regression holds points {expected}, the learned set is {got}: make it of these sizes"
        )
    if labels.shape[1] != model.labels.shape[1]:
        raise UserError(f"the kernel regression tells {model.labels.shape[1]} classes apart, not {labels.shape[1]}")
    with torch.no_grad():
        model.support.copy_(support.view_as(model.support))
        model.labels.copy_(labels)
