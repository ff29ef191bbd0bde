"""What all tasks share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from buttress import losses, registry
from buttress.errors import UserError
from buttress.losses import Loss, LossLike
from buttress.model_call import output_parts
from buttress.tasks.chance import best_class
from buttress.tasks.returned import one_number, one_number_each, one_verdict_each, rows
from buttress.users_returns import returning


class Task(ABC):
    """What a model's output is for: a frozen dataclass of plain fields.

    Attributes:
        loss: the name of the loss that an attack maximises by default; what decides whether an output is wrong.
        objective_loss: the name of the loss whose mean training minimises, smooth where ``loss`` follows what decides;
            ``loss`` itself unless a task says otherwise.
        classes: whether each input has one of several classes, and every other one is wrong: what methods that set
            ``needs_classes`` ask for.
        right: completes "the inputs that are ...", of outputs that no attacker wants.
        score_name: what reports call the share of such outputs.
    """

    # Properties, so that a task can say otherwise by a plain attribute, or for its settings by a property.
    @property
    @abstractmethod
    def loss(self) -> str:
        """See `Task`."""

    @property
    def objective_loss(self) -> str:
        """See `Task`."""
        return self.loss

    @property
    def classes(self) -> bool:
        """See `Task`."""
        return False

    @property
    def right(self) -> str:
        """See `Task`."""
        return "right"

    @property
    def score_name(self) -> str:
        """See `Task`."""
        return "accuracy"

    @property
    def meanings(self) -> Mapping[str, Loss]:
        """The named losses that mean something of this task's own: "margin", and "kl", how far outputs are apart."""
        return {}

    @abstractmethod
    @returning(rows)
    def read(self, output: object) -> Tensor:
        """The model's raw output in this task's standard form, float32 or float64; refuses what is no such output."""

    @abstractmethod
    def check(self, output: Tensor, y: Tensor) -> None:
        """Refuse a truth ``y`` that cannot belong to this output."""

    def mean(self, outputs: Sequence[Tensor]) -> Tensor:
        """What several outputs of a randomised model for the same inputs say together."""
        return torch.stack(tuple(outputs)).mean(0)

    @abstractmethod
    @returning(one_verdict_each)
    def is_adversarial(self, output: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """(N,) bool: whether the attacker has what it wants: a wrong output, or the target."""

    @returning(one_number_each)
    def score(self, output: Tensor, y: Tensor) -> Tensor:
        """(N,) how good each output is, higher is better: 1 for a right one, else 0."""
        return (~self.is_adversarial(output, y)).to(output.dtype)

    def chance(self, y: Tensor, outputs: int) -> float | None:
        """The share of right outputs that the best answer gets which is the same for all inputs; None if unknown.

        Args:
            y: the truth of the inputs.
            outputs: how many numbers the model returns for each: classes, labels or values.
        """
        return best_class(y, outputs) if self.classes else None

    @returning(one_number)
    def objective(self, output: Tensor, y: Tensor) -> Tensor:
        """() what training minimises: the mean of ``objective_loss``, unless a task says otherwise."""
        return self.resolve(self.objective_loss).value(output, y).mean()

    def divergence(self, output: Tensor, clean: Tensor) -> Tensor:
        """(N,) how far outputs are from those for the clean inputs, gradients flowing through both; as in TRADES."""
        return self.resolve("kl").function(output, clean)

    def resolve(self, loss: LossLike) -> Loss:
        """A loss by name, or one that was given, as this task means it.

        Raises:
            UserError: for an unknown name, and for a loss of classes where there are none.
        """
        if isinstance(loss, str) and loss in self.meanings:
            return self.meanings[loss]
        spec = losses.resolve(loss)
        if spec.needs_classes and not self.classes:
            own = ", ".join(dict.fromkeys((self.loss, self.objective_loss, *self.meanings)))
            raise UserError(f"the loss {loss!r} needs classes, which {self.label()} has not: use {own}")
        return spec

    def decision(self, output: Tensor) -> Tensor:
        """What outputs say, in the form of the truth."""
        return output

    def confidence(self, output: Tensor) -> Tensor | None:
        """(N,) the probability that each decision has by the model itself; None where it gives none."""
        return None

    def words(self, y: Tensor, names: Sequence[str]) -> str:
        """The truth of one input, or a decision, for people.

        Args:
            y: one row of them.
            names: of classes, labels or values.
        """
        values = [f"{value:.3g}" for value in y.flatten().tolist()]
        return ", ".join(values[:8]) + (", ..." if len(values) > 8 else "")

    def label(self) -> str:
        """The registered name of the task; a user's own: the class's."""
        return registry.task.name_of(self).rpartition(":")[2]


def as_tensor(output: object, wanted: str, form: str = "") -> Tensor:
    """An output in float32, or float64 if it is.

    Args:
        output: what a model returned.
        wanted: what it should be, in words: "logits".
        form: of which form: "(inputs, classes)".

    Raises:
        UserError: for what is no tensor.
    """
    whole = f"{wanted} {form}".strip()
    if not isinstance(output, Tensor):
        raise UserError(f"the model must return {whole}; {_adapter(output, wanted.removeprefix('the '))}")
    if not output.is_floating_point():
        what = f"{str(output.dtype).removeprefix('torch.')} of shape {tuple(output.shape)}"
        numbers = not output.is_complex() and (output.dim() == 1 or output.shape[1:] == (1,))
        hint = ": if these are numbers of classes, wrap it as models.FromLabels(model, classes)" if numbers else ""
        raise UserError(f"the model must return {whole}; it returned {what}{hint}")
    return output if output.dtype == torch.float64 else output.float()


def _adapter(output: object, wanted: str) -> str:
    """What came that is no tensor, and the adapter that picks a tensor out of it."""
    came = f"it returned a {type(output).__name__}"
    parts = output_parts(output)
    if parts is None:
        return f"{came}: wrap it in a module whose forward returns the tensor of {wanted} alone"
    tensors = {key: value for key, value in parts.items() if isinstance(value, Tensor)}
    held = ", ".join(f"{key} {tuple(value.shape)}" for key, value in list(tensors.items())[:6]) or "no tensor"
    key = "logits" if "logits" in tensors else next(iter(tensors), "KEY")
    return f"{came} of {held}: wrap it as models.Output(model, {key!r}), or --output {key}, to pick the {wanted} out"


def refuse_not_finite(output: Tensor) -> None:
    """Refuse outputs (N, ...) with NaN or infinity among them.

    Raises:
        UserError: saying for how many inputs.
    """
    bad = int((~torch.isfinite(output)).flatten(1).any(1).sum())
    if bad:
        raise UserError(
            f"the model's output is NaN or infinite for {bad} of the {len(output)} inputs it was first asked about"
        )


def described(y: Tensor) -> str:
    """Kind and shape of labels, for an error line."""
    return f"{y.dtype} of shape {tuple(y.shape)}"


def length_hint(y: Tensor, count: int) -> str:
    """What to type for labels of which there is not one for each of ``count`` inputs; nothing where that is not known.

    Args:
        y: of any shape.
        count: how many inputs there are.
    """
    if not y.dim():
        return f": use y.expand({count})"
    return ": use y.T" if y.dim() == 2 and y.shape[1] == count else ""


def shape_hint(y: Tensor, shape: tuple[int, ...]) -> str:
    """What to type for labels that have this shape turned over, or with further axes of length 1; or nothing."""
    if y.dim() == 2 and tuple(y.T.shape) == shape:
        return ": use y.T"
    return ": use y.flatten(1)" if y.dim() > 2 and tuple(y.flatten(1).shape) == shape else ""


def is_whole(y: Tensor) -> bool:
    """Whether all values are whole numbers, whatever the dtype."""
    return not y.is_complex() and bool((y == y.round()).all() if y.is_floating_point() else True)


def is_signs(y: Tensor) -> bool:
    """Whether all values are 1 or -1, whatever the dtype."""
    return bool(((y == 1) | (y == -1)).all())


def is_binary(y: Tensor) -> bool:
    """Whether all values are 0 or 1, whatever the dtype."""
    return y.dtype == torch.bool or bool(((y == 0) | (y == 1)).all())
