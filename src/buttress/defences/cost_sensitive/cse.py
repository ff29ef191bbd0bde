"""CSE: cost-sensitive training whose penalty makes weights few and large."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.data.class_names import ClassName, class_indices
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Batch, Cost, Defence, Epoch, Loss, StepContext
from buttress.defences.base.pretraining import pretrain
from buttress.defences.cost_sensitive.cost_matrix import (
    Mistakes,
    check_protected,
    check_weights,
    cost_matrix,
    expected_cost,
)
from buttress.errors import UserError
from buttress.registry import defence, nearest
from buttress.validation import name_list, not_negative

SMALL = 1e-2  # a weight below is next to nothing


def l1_minus_l2(weight: Tensor) -> Tensor:
    """The L1 norm of a weight tensor minus its L2 norm: 0 for one with a single entry that is not 0, else positive."""
    flat = weight.flatten()
    difference: Tensor = flat.abs().sum() - torch.linalg.vector_norm(flat)
    return difference


def min_max_figures(weight: Tensor) -> dict[str, float]:
    """How far a weight tensor has the min-max property, that most weights are next to 0 and few are large.

    Returns:
        ``kurtosis``, the fourth central moment over the squared variance, 3 for a normal distribution; ``spread``, the
        L1 norm over sqrt(n) times the L2 norm, from 1 / sqrt(n) for a single weight to 1 for weights of one size;
        ``small``, the share of weights below 0.01 in size; ``largest``, the largest size. NaN where all weights are
        equal (kurtosis) or 0 (spread).
    """
    flat = weight.detach().double().flatten()
    centred = flat - flat.mean()
    variance, size = centred.square().mean(), torch.linalg.vector_norm(flat)
    constant = float(variance) <= 1e-24 * float(flat.square().mean())  # but for rounding
    return {
        "kurtosis": math.nan if constant else float(centred.pow(4).mean() / variance.square()),
        "spread": float(flat.abs().sum() / (math.sqrt(flat.numel()) * size)),
        "small": float((flat.abs() < SMALL).double().mean()),
        "largest": float(flat.abs().max()),
    }


@defence("cse")
class CSE(Defence):
    """Cost-sensitive training on clean inputs with a penalty on the first convolutions' weights.

    Shen, Chen, Wang and Wang (arXiv 2101.12372), by the authors' code: from a naturally trained network on,
    cross-entropy plus a weighted expected cost plus, for each penalised layer, a weight times the L1 norm minus the L2
    norm of its kernel, which is 0 for a kernel of one weight. No example is attacked; whether what is found to resist
    FGSM resists stronger attacks is for an audit to measure. The authors' weights are 1 and (1, 0) on MNIST, 0.1 and
    (5, 0.1) on Fashion-MNIST, 1 and (0.05, 0.05) with c = 5 on CIFAR-10.

    Cost: that of standard training, and ``pretrain_epochs`` of it before.

    Args:
        protected: the classes to protect, by name or index.
        c: cost of a mistake about them, where any other costs 1.
        mistakes: about which: "both", as published, where a protected class is true or is predicted. There the more
            frequent kind, other classes taken for it, may outweigh its own, so that it is predicted less than before;
            "missed" counts only mistakes in which it is true, "false" only those in which it is predicted.
        weight: of the expected cost.
        penalties: weight of each penalised layer's term, in the layers' order.
        layers: names of as many layers; the network's first convolutions unless given, fewer where it has fewer.
        pretrain_epochs: of standard training before, by Adam; 0 goes on from the network as it is.
        pretrain_lr: learning rate of that.
    """

    paper = "Shen et al., arXiv 2101.12372"
    preparation = "trains the network plainly"
    clean_pass = True
    perturbed_pass = False
    index: Tensor

    def __init__(
        self,
        protected: ClassName | Sequence[ClassName] = (0,),
        c: float = 10.0,
        mistakes: Mistakes = "both",
        weight: float = 1.0,
        penalties: Sequence[float] = (0.05, 0.05),
        layers: Sequence[str] | None = None,
        pretrain_epochs: int = 10,
        pretrain_lr: float = 1e-3,
    ) -> None:
        super().__init__()
        check_weights(weight, pretrain_epochs, pretrain_lr)
        for penalty in penalties:
            not_negative("penalties", penalty)
        layers = None if layers is None else name_list("layers", layers)
        if layers is not None and len(layers) != len(penalties):
            raise UserError(f"{len(layers)} layers need as many penalties; got {len(penalties)}")
        self.protected, self.c, self.weight = check_protected(protected, c, mistakes), c, weight
        self.mistakes = mistakes
        self.penalties, self.layers = tuple(penalties), layers
        self.pretrain_epochs, self.pretrain_lr = pretrain_epochs, pretrain_lr
        self.register_buffer("index", torch.zeros(0, dtype=torch.int64))

    @property
    def cost(self) -> Cost:
        """That of standard training."""
        return Cost(0)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Look classes and layers up, and train the network on clean inputs."""
        self.index = torch.tensor(class_indices(self.protected, data.classes), device=self.index.device)
        self.kernels(model)
        pretrain(model, data.train, epochs=self.pretrain_epochs, seed=seed, lr=self.pretrain_lr)
        model.zero_grad()  # what the training before left behind
        return data

    def kernels(self, model: nn.Module) -> dict[str, Tensor]:
        """The penalised weight tensors, by their layers' names.

        Raises:
            UserError: for a name that is no layer with a weight; for a network without convolutions and no names.
        """
        weights = {
            name: module.weight
            for name, module in model.named_modules()
            if isinstance(getattr(module, "weight", None), Tensor) and module.weight.dim() > 1
        }
        if self.layers is not None:
            for name in self.layers:
                if name not in weights:
                    raise UserError(
                        f"there is no layer {name!r} with a kernel to penalise; {nearest(name, [*weights])}"
                    )
            return {name: weights[name] for name in self.layers}
        kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        first = [name for name, module in model.named_modules() if isinstance(module, kinds)][: len(self.penalties)]
        if not first and self.penalties:
            raise UserError(f"the network has no convolution to penalise; name layers of it: {', '.join(weights)}")
        return {name: weights[name] for name in first}

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Cross-entropy, expected cost and penalty."""
        logits = context.clean(batch.x)
        costs = cost_matrix(logits.shape[1], self.index.to(logits.device), self.c, self.mistakes)
        cost = expected_cost(logits, batch.y, costs).mean()
        value = F.cross_entropy(logits, batch.y) + self.weight * cost
        logs = {"cost": cost.detach()}
        for weight, (name, kernel) in zip(self.penalties, self.kernels(model).items(), strict=False):
            penalty = l1_minus_l2(kernel)
            value = value + weight * penalty
            logs[f"penalty {name}"] = penalty.detach()
        return Loss(value, logs)

    def end_epoch(self, epoch: Epoch) -> None:
        """Log the kurtosis of each penalised kernel, which the min-max property raises."""
        for name, kernel in self.kernels(epoch.model).items():
            kurtosis = min_max_figures(kernel)["kurtosis"]
            if math.isfinite(kurtosis):
                epoch.figures[f"kurtosis {name}"] = kurtosis
