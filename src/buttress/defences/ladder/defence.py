"""Latent boundary-guided adversarial training (LADDER)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.attacks.unrestricted.latent_step import Ladder, LatentSpace
from buttress.data.dataset import Dataset, Split
from buttress.data.memory import require_memory
from buttress.defences.base.defence import Batch, Cost, Defence, Loss, StepContext
from buttress.defences.base.memory import Rows
from buttress.defences.base.pretraining import pretrain
from buttress.defences.ladder.directions import Direction, check_direction
from buttress.defences.ladder.latent_space import fit_space, some_of_each
from buttress.defences.ladder.support_vector_machines import Attention, SVMSettings
from buttress.engine.preserved_model import preserved
from buttress.errors import UserError
from buttress.model_call import call_model
from buttress.random import derive
from buttress.registry import defence
from buttress.threat import norms
from buttress.validation import not_negative, one_name, whole

_BATCH = 256


@defence("ladder")
class LADDER(Defence):
    """Fine-tuning on inputs whose latent vectors were moved towards another class, with the labels they had.

    Zhou, Tsang and Yin (Machine Learning 2022). Before training: the classifier learns from clean inputs, a decoder
    learns to invert one of its layers, a support vector machine with attention is fitted for each ordered pair of
    classes, and up to ``per_class`` training inputs of each class are encoded, moved by ``eps * a(z) * w`` towards a
    class drawn uniformly from the others, and decoded. Training then is on these inputs alone, in pairs: half the
    cross-entropy of the original, half that of the moved one, which is made once and not augmented.

    The moved inputs are not bounded in any norm, and ``eps`` is in units of the latent space and of w, which say
    nothing about pixels: the log has the mean linf and l2 size of the change (decoding alone makes one) and the share
    of inputs whose class changes for the classifier that they were made with. Labels can be wrong at a large ``eps``.
    No threat is trained against, so validation runs no attack by default; robustness has to be measured.

    Unlike the authors' code: inputs reach the classifier in its own units throughout, targets are uniform, and each
    ordered pair keeps an attention of its own.

    Cost: 4 passes per input and visit. Before training, for N training inputs: ``2 * pretrain_epochs * N`` passes of
    the network and ``2 * decoder_epochs * N`` of the decoder, both linear in the size of the data; and for C classes
    ``1.34 * svm_epochs * svm_inputs`` steps of C (C - 1) d^2 operations for the machines.

    Args:
        eps: length of the move; the paper's list for MNIST is 0.5 to 25. Where ``adaptive``, the first length tried.
        adaptive: whether each input's length grows until the classifier's answer changes, see `Ladder`.
        direction: "attention" is the method; "svm", "closest", "random" and "svm-noise" are baselines, see
            `fit_directions`.
        attention: "none" leaves the attention out, which hardly matters: its entries are nearly equal.
        normalize_w: whether w (of the baselines, each direction) is scaled to length 1.
        layer: the latent layer, see `Encoder`; found by `latent_layer` unless given.
        per_class: inputs of each class that are moved and trained on; None for all.
        pretrain_epochs: of the classifier, by Adam (the paper: SGD) on clean inputs; 0 keeps the weights as given.
        decoder_epochs: of the decoder; the paper has up to 1000.
        decoder_width: its channels, see `Decoder`.
        svm_inputs: latent vectors of each class for the machines, at most; a third of them only judges.
        svm_epochs: over them.
        svm_c: weight of the hinge loss.
        svm_lr: learning rate of the machines.
    """

    paper = "Zhou et al., Machine Learning 2022"
    preparation = "trains the network, a decoder and SVMs"
    clean_pass = True
    keeps_inputs = True
    reconstruction = "decoder for images other than 1x28x28, and Adam for pretraining"

    made: Tensor
    sizes: Tensor
    flipped: Tensor
    accuracy: Tensor
    space: LatentSpace | None

    def __init__(
        self,
        eps: float = 0.5,
        adaptive: bool = False,
        direction: Direction = "attention",
        attention: Attention = "pairwise",
        normalize_w: bool = False,
        layer: str | None = None,
        per_class: int | None = 450,
        pretrain_epochs: int = 10,
        decoder_epochs: int = 100,
        decoder_width: int = 32,
        svm_inputs: int = 200,
        svm_epochs: int = 10,
        svm_c: float = 0.01,
        svm_lr: float = 0.01,
    ) -> None:
        super().__init__()
        not_negative("eps", eps)
        check_direction(direction)
        whole("pretrain_epochs", pretrain_epochs, 0)
        whole("decoder_epochs", decoder_epochs, 0)
        if per_class is not None:
            whole("per_class", per_class)
        whole("decoder_width", decoder_width)
        whole("svm_inputs", svm_inputs, 2)
        whole("svm_epochs", svm_epochs, 0)
        self.svm = SVMSettings(c=svm_c, lr=svm_lr, epochs=svm_epochs, attention=attention)
        self.eps, self.adaptive, self.direction, self.attention = eps, adaptive, direction, attention
        self.layer = None if layer is None else one_name("layer", layer)
        self.normalize_w, self.per_class = normalize_w, per_class
        self.pretrain_epochs, self.decoder_epochs, self.decoder_width = pretrain_epochs, decoder_epochs, decoder_width
        self.svm_inputs, self.svm_epochs, self.svm_c, self.svm_lr = svm_inputs, svm_epochs, svm_c, svm_lr
        object.__setattr__(self, "space", None)  # not as a submodule: neither trained nor in a checkpoint
        self.rows: Rows | None = None
        self.register_buffer("made", torch.zeros(0))
        self.register_buffer("sizes", torch.zeros(0, 2))
        self.register_buffer("flipped", torch.zeros(0))
        self.register_buffer("accuracy", torch.zeros(()))

    @property
    def cost(self) -> Cost:
        """A clean and a moved batch."""
        return Cost(crafting=0, training=4)

    def prepare(self, model: nn.Module, data: Dataset, seed: int) -> Dataset:
        """Stages 1 to 4; returns the data with the inputs that were moved as its training split."""
        classes = len(data.classes)
        rows = some_of_each(data.train.y, classes, self.per_class, derive(seed, "chosen"))
        train = data.train.subset(rows)
        require_memory(train.x.nbytes, f"{self.label()} keeps what it makes of {len(train)} inputs, which")
        pretrain(model, data.train, epochs=self.pretrain_epochs, seed=derive(seed, "pretraining"), task=self.task)
        model.zero_grad()
        result = fit_space(
            model,
            data.train,
            classes,
            seed=derive(seed, "space"),
            layer=self.layer,
            direction=self.direction,
            svm=self.svm,
            normalize=self.normalize_w,
            per_class=self.svm_inputs,
            decoder_epochs=self.decoder_epochs,
            decoder_width=self.decoder_width,
            box=data.box,
        )
        object.__setattr__(self, "space", result.space)
        self._make(model, train, self.perturbation(data.box), derive(seed, "making"))
        self.accuracy.fill_(result.accuracy or 0.0)
        self.rows = Rows(train).to(self.made.device)
        return replace(data, train=train)

    def perturbation(self, box: tuple[float, float] | None = (0.0, 1.0)) -> Ladder:
        """The move as a perturbation of its own, for any inputs.

        Args:
            box: range of the inputs, or None.

        Raises:
            UserError: before `prepare`, which fits it.
        """
        if self.space is None:
            raise UserError("LADDER fits its latent space in prepare(model, data, seed): call that first")
        return Ladder(eps=self.eps, adaptive=self.adaptive, space=self.space, box=box)

    def loss(self, model: nn.Module, batch: Batch, context: StepContext) -> Loss:
        """Half the cross-entropy of the originals, half that of the moved inputs, with the same labels (stage 5).

        Raises:
            UserError: for inputs that `prepare` has not moved.
        """
        rows = self._positions(batch.ids)
        x_adv = self.made[rows]
        x_adv = x_adv.to(batch.x.dtype) / 255 if x_adv.dtype == torch.uint8 else x_adv.to(batch.x.dtype)
        natural = F.cross_entropy(context.clean(batch.x), batch.y)
        boundary = F.cross_entropy(context.adversarial(x_adv), batch.y)
        linf, l2 = self.sizes[rows].mean(0)
        logs = {"natural": natural.detach(), "boundary": boundary.detach(), "pixel linf": linf, "pixel l2": l2}
        logs["flipped"] = self.flipped[rows].mean()
        if self.direction not in ("closest", "random"):
            logs["svm accuracy"] = self.accuracy.clone()
        return Loss(0.5 * natural + 0.5 * boundary, logs)

    def _positions(self, ids: Tensor) -> Tensor:
        """(N,) rows of what was made of the inputs with these ids."""
        if self.rows is None:
            raise UserError("LADDER moves its inputs in prepare(model, data, seed): call that first")
        known: Tensor = torch.isin(ids, self.rows.ids)
        if not known.all():
            raise UserError(
                "LADDER trains on the data that prepare returned: there are inputs here that it has not moved"
            )
        positions: Tensor = self.rows(ids)
        return positions

    def _make(self, model: nn.Module, split: Split, attack: Ladder, seed: int) -> None:
        """Stage 4: move every input of the split, keep what came out as it would be stored, and measure it."""
        like, parts, sizes, flips = next(model.parameters()), [], [], []
        for index in torch.split(torch.arange(len(split)), _BATCH):
            x, y, ids = split.take(index)
            x = x.to(like)
            x_adv = attack.craft(model, x, y.to(x.device), seed=seed, ids=ids.to(x.device))
            stored = (x_adv * 255).round().to(torch.uint8) if split.x.dtype == torch.uint8 else x_adv.float()
            read_back = stored.to(x.dtype) / 255 if stored.dtype == torch.uint8 else stored.to(x.dtype)
            with preserved(model, "eval", seed, x.device), torch.no_grad():
                flips.append(call_model(model, read_back).argmax(1) != call_model(model, x).argmax(1))
            parts.append(stored)
            sizes.append(torch.stack([norms(read_back - x, "linf"), norms(read_back - x, "l2")], 1))
        where = self.made.device
        self.made, self.sizes = torch.cat(parts).to(where), torch.cat(sizes).float().to(where)
        self.flipped = torch.cat(flips).float().to(where)
