"""Robust self-training (RST)."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress import losses
from buttress.attacks.composed.transfer import check_network
from buttress.data.dataset import Dataset, Split
from buttress.defences.base.defence import Batch, Loss, StepContext
from buttress.defences.base.networks import load_network, new_network
from buttress.defences.base.pretraining import pretrain
from buttress.defences.trades import TRADES
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.random import derive
from buttress.registry import defence
from buttress.threat import NOT_GIVEN, Threat
from buttress.validation import not_negative, number, one_name, whole


@defence("self-training")
class SelfTraining(TRADES):
    """TRADES on labelled inputs and on unlabelled ones, whose classes a standard network guesses (RST).

    Carmon et al., NeurIPS 2019, algorithm 1: before training, a teacher learns from the labelled inputs, clean, and its
    argmax becomes the class of each unlabelled input. Then each input's TRADES loss counts 1, or ``weight`` where its
    class is a guess; the mean is by these weights. The authors fill half of each batch with unlabelled inputs; here
    batches are drawn from both together. As TRADES, released with 10 steps of 0.007 at eps 0.031 and beta 6.

    Cost: that of TRADES; before training 2 passes per labelled input and epoch of the teacher's.

    Args:
        threat: what the model is trained against.
        steps: steps of the attack.
        step_size: their length in input units; 2.5 eps / steps unless given.
        beta: weight of the divergence, 0 or more.
        unlabelled: the share of the training split that loses its labels (by class, so that the labelled rest stays
            balanced), in (0, 1); or a .npz file whose array ``x`` holds further inputs of the training split's shape
            and type, none of which may be in the validation or test split.
        weight: of an input with a guessed class, 0 or more.
        teacher: a trained network, or a run's folder; unless given one is trained, of the model's architecture.
        epochs: of training the teacher by Adam, without augmentation.
    """

    needs_classes = True
    paper = "Carmon et al., NeurIPS 2019"
    keeps_inputs = True
    preparation = "trains a teacher"

    guessed: Tensor
    teacher: str | nn.Module | None

    def __init__(
        self,
        threat: Threat = NOT_GIVEN,
        steps: int = 10,
        step_size: float | None = None,
        beta: float = 6.0,
        unlabelled: float | str = 0.5,
        weight: float = 1.0,
        teacher: str | nn.Module | None = None,
        epochs: int = 50,
    ) -> None:
        super().__init__(threat, steps, step_size, beta)
        if isinstance(unlabelled, str):
            one_name("unlabelled", unlabelled)
        else:
            number("unlabelled, if it is no .npz file,", unlabelled, "(0, 1)")
        if teacher is not None:
            check_network("teacher", teacher)
        not_negative("weight", weight)
        whole("epochs", epochs)
        self.unlabelled, self.weight, self.epochs = unlabelled, weight, epochs
        object.__setattr__(self, "teacher", teacher)  # not as a submodule: neither trained nor in a checkpoint
        self.register_buffer("guessed", torch.zeros(0, dtype=torch.int64), persistent=False)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Trains the teacher where none was given, and returns the data with its guesses."""
        labelled, rest = self._parts(data, seed)
        if self.teacher is None:
            teacher = new_network(model, derive(seed, "teacher"))
            pretrain(teacher, labelled, epochs=self.epochs, seed=derive(seed, "pretraining"), task=self.task)
        else:
            teacher = load_network(self.teacher).to(next(model.parameters()))
        guesses = predicted(teacher, rest)
        self.guessed = rest.ids.to(self.guessed.device)
        if isinstance(self.unlabelled, str):
            x = torch.cat([part.in_memory(f"{self.label()} with inputs of a file") for part in (labelled, rest)])
            train = Split(x, torch.cat([labelled.y, guesses]), torch.cat([labelled.ids, rest.ids]))
        else:
            y = data.train.y.clone()
            y[torch.isin(data.train.ids, rest.ids)] = guesses  # both in the order of the split
            train = replace(data.train, y=y)
        return replace(data, train=train)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """The weighted mean of both terms over the batch."""
        x_adv = context.craft(self.attack)
        clean, adversarial = context.clean(batch.x), context.adversarial(x_adv)
        guessed = torch.isin(batch.ids, self.guessed)
        weight = clean.new_ones(len(clean)).masked_fill(guessed, self.weight)
        weight = weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)  # all may count 0
        natural = (weight * F.cross_entropy(clean, batch.y, reduction="none")).sum()
        boundary = (weight * losses.kl(adversarial, clean)).sum()
        logs = {"natural": natural.detach(), "boundary": boundary.detach(), "guessed": guessed.to(clean.dtype).mean()}
        return Loss(natural + self.beta * boundary, logs)

    def _parts(self, data: Dataset, seed: int) -> tuple[Split, Split]:
        """The inputs with labels, and those without."""
        if not isinstance(self.unlabelled, str):
            count = min(max(1, round(self.unlabelled * len(data.train))), len(data.train) - 1)
            return data.train.divide(count, derive(seed, "unlabelled"))
        x = read_inputs(Path(self.unlabelled))
        if x.dtype != data.train.x.dtype or x.shape[1:] != data.train.x.shape[1:] or not len(x):
            wanted = f"{str(data.train.x.dtype).removeprefix('torch.')} of shape (N, {str(data.shape)[1:]}"
            got = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
            raise UserError(f"{self.unlabelled}: expected inputs like the training split's, {wanted}; got {got}")
        first = 1 + max(int(split.ids.max()) for split in data.splits.values())
        return data.train, Split(x, torch.zeros(len(x), dtype=torch.int64), torch.arange(first, first + len(x)))


def predicted(model: nn.Module, split: Split) -> Tensor:
    """(N,) int64, on the CPU: the classes that a model, in eval mode, gives the inputs of a split."""
    like = next(model.parameters())
    with preserved(model, "eval", 0, like.device), torch.no_grad():
        return torch.cat([call_model(model, x.to(like)).argmax(1).cpu() for x, _ in split])


def read_inputs(file: Path) -> Tensor:
    """The array ``x`` of a .npz file, as a tensor; nothing in the file is executed.

    Raises:
        UserError: when it cannot be read, or holds no such array of numbers.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return torch.from_numpy(arrays["x"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} must be a .npz file with an array x of inputs: {reason}") from None
