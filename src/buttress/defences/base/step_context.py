"""A training step as its objective sees it: the batch, where in training it is, and the passes that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from buttress import tasks
from buttress.attacks import Attack, Perturbation
from buttress.engine.preserved_model import Mode, preserved
from buttress.engine.runner import Precision, Twins
from buttress.errors import UserError
from buttress.layers.capture import capture
from buttress.layers.network_code import NetworkCode
from buttress.layers.places import Place
from buttress.layers.rows import Layout
from buttress.model_call import call_model
from buttress.models.wrapping.from_embedding import FromEmbedding
from buttress.models.wrapping.wrappers import inner
from buttress.random import Random, derive
from buttress.tasks import Task
from buttress.tensor_forms import copied, put_back
from buttress.threat.row_threat import RowThreat

_Result = TypeVar("_Result")
Kind = Literal["clean", "adversarial", "added"]


@dataclass(frozen=True)
class Batch:
    """One batch of training data.

    Attributes:
        x: (N, ...) inputs in their own units.
        y: the truth: (N,) int64 classes, or what else the task asks for.
        ids: (N,) int64, which inputs of the data set these are.
        tokens: (N, T) int64, where ``x`` are the values of an embedding that is trained: those of these tokens.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    tokens: Tensor | None = None

    def embedded(self, model: nn.Module) -> Batch:
        """The batch with what the model's embedding has for its tokens at present, and the gradient for its weights."""
        if self.tokens is None or not isinstance(model, FromEmbedding):
            return self
        return replace(self, x=model.values(self.tokens).to(self.x))

    def attached(self, moved: Tensor) -> Tensor:
        """Perturbed inputs whose gradient goes to the embedding's weights as that of the inputs does.

        The perturbation itself is a constant. Inputs that are no values of a trained embedding, and what is attached
        already, come back as they are.

        Args:
            moved: (N, ...) this batch, perturbed.
        """
        if not self.x.requires_grad or moved.requires_grad:
            return moved
        return moved + (self.x - self.x.detach())  # 0, so not a bit of the values changes


@dataclass(frozen=True)
class Pass:
    """One pass of a step's objective.

    Attributes:
        logits: what the task reads from the output.
        activations: the values (N, ...) of the layers that are watched.
        edges: where these values are in the graph, also of one that the network has overwritten since; none of a value
            that carries no gradient.
        places: where each layer of the pass was called, watched or not; see `told_apart`.
    """

    logits: Tensor
    activations: Mapping[str, Tensor]
    edges: Mapping[str, GradientEdge]
    places: Mapping[str, Place]


class StepContext:
    """Where in training a step is, and the way in which its objective uses the model.

    Attributes:
        index: number of this step, from 0.
        progress: share of the training that is done, in [0, 1].
        epoch: epochs done, as a fraction.
        epochs: of the whole training, where that is known.
        seed: this step's seed.
        task: what the model's output is for.
        scale: share of its budget that an attack has at this step, for wrappers that let it grow.
        code: what has been read of the network's code, for those who look at its layers.
        passes: the last clean and the last adversarial pass of this step, for wrappers to read.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        index: int = 0,
        progress: float = 0.0,
        epoch: float = 0.0,
        epochs: int | None = None,
        seed: int = 0,
        precision: Precision = "fp32",
        twins: Twins | None = None,
        code: NetworkCode | None = None,
        task: Task = tasks.classification,
    ) -> None:
        self.model, self.batch, self.precision, self.twins = model, batch, precision, twins
        self.index, self.progress, self.epoch, self.epochs = index, progress, epoch, epochs
        self.seed = derive(seed, "step", index)
        self.task = task
        self.code = code
        self.scale = 1.0
        self.passes: dict[Kind, Pass] = {}
        self.auxiliary: list[Tensor] = []
        self._watched: dict[str, Layout | None] = {}
        self._crafted: dict[Any, Any] | None = None

    @property
    def random(self) -> Random:
        """This step's draws, one stream per input; the same again on each access."""
        return Random(derive(self.seed, "defence"), self.batch.ids)

    def watch(self, layers: Sequence[str], layouts: Mapping[str, Layout] | None = None) -> None:
        """Keep the activations of these layers in the passes to come.

        Args:
            layers: names.
            layouts: name -> where the inputs are in its value; they are then moved to the front.
        """
        self._watched |= {layer: (layouts or {}).get(layer) for layer in layers}

    def clean(self, x: Tensor) -> Tensor:
        """(N, C) logits of the unperturbed inputs, a pass that trains."""
        return self._pass("clean", x)

    def adversarial(self, x_adv: Tensor) -> Tensor:
        """(N, C) logits of the perturbed inputs, a pass that trains.

        Raises:
            UserError: for inputs without a gradient for the embedding of tokens that is trained.
        """
        if self.batch.x.requires_grad and not x_adv.requires_grad:
            raise UserError(
                "this method perturbs inputs without regard to the embedding that they come from, which would not be "
                "trained on them: for tokens use at, trades, mart or free"
            )
        return self._pass("adversarial", x_adv)

    def craft(
        self,
        attack: Perturbation,
        *,
        mode: Mode = "eval",
        target: Tensor | None = None,
        scale: Tensor | None = None,
        move_statistics: bool = False,
    ) -> Tensor:
        """This batch perturbed by ``attack``; the model and the random state are left as they were.

        Args:
            attack: what perturbs.
            mode: the model's mode while crafting.
            target: (N,) classes wanted by a targeted attack.
            scale: (N,) share of the attack's budget that each input has, on top of ``self.scale``.
            move_statistics: whether the crafting passes move BatchNorm's running statistics, as they do in "train".
        """
        if self._crafted is not None and (id(attack), mode) in self._crafted:
            earlier, statistics = self._crafted[id(attack), mode]
            for buffer, value in statistics:  # whoever asked for them may have put the statistics back since
                put_back(buffer, value)
            return self.batch.attached(cast(Tensor, earlier))
        batch = self.batch
        alike: dict[Precision, Precision] = {"folded": "fp32", "twin": "bf16", "compiled": "bf16"}
        precision = alike.get(self.precision, self.precision) if mode == "train" else self.precision
        x_adv = rescaled(attack, self.scale, scale).craft(
            self.model,
            batch.x,
            batch.y,
            task=self.task,
            target=target,
            seed=self.seed,
            ids=batch.ids,
            mode=mode,
            precision=precision,
            twins=self.twins,
            move_statistics=move_statistics,
        )
        if self._crafted is not None:
            statistics = [(buffer, copied(buffer)) for buffer in self.model.buffers()] if move_statistics else []
            self._crafted[id(attack), mode] = x_adv, statistics
        return batch.attached(x_adv)

    def once(self, key: str, make: Callable[[], _Result]) -> _Result:
        """The result of ``make``, which within `craft_once` is called once: for methods that craft without `craft`."""
        if self._crafted is None:
            return make()
        if key not in self._crafted:
            self._crafted[key] = make()
        return cast(_Result, self._crafted[key])

    @contextmanager
    def craft_once(self) -> Iterator[None]:
        """Within this context an attack crafts once; later calls return the same points, whatever the weights are."""
        before = self._crafted
        self._crafted = {} if before is None else before
        try:
            yield
        finally:
            self._crafted = before

    def clean_pass(self) -> Pass:
        """The pass of the unperturbed batch: the objective's own if it made one.

        Otherwise a pass is added that leaves buffers and the random state alone, so that it changes nothing else.
        """
        if "clean" in self.passes:
            return self.passes["clean"]
        if "added" not in self.passes:  # not "clean": that is a pass of the objective itself
            with preserved(self.model, "train", self.seed, self.batch.x.device):
                self._pass("added", self.batch.x, keep_auxiliary=False)
        return self.passes["added"]

    def _pass(self, kind: Kind, x: Tensor, keep_auxiliary: bool = True) -> Tensor:
        nothing: AbstractContextManager[dict[str, Tensor]] = nullcontext({})
        edges: dict[str, GradientEdge] = {}
        places: dict[str, Place] = {}
        watched = (
            capture(self.model, list(self._watched), edges=edges, places=places, code=self.code)
            if self._watched
            else nothing
        )
        with watched as values:
            output = self._output(x, keep_auxiliary)
        logits = self.task.read(output)
        activations: dict[str, Tensor] = {}
        for name, value in values.items():
            layout = self._watched[name]
            if layout is None or layout.fits(value, len(x)):
                activations[name] = value if layout is None else layout.to_rows(value, len(x))
        self.passes[kind] = Pass(logits, activations, edges, places)
        return logits

    def _output(self, x: Tensor, keep_auxiliary: bool) -> Any:
        network = inner(self.model)
        labelled = getattr(network, "forward_with_auxiliary", None)
        if labelled is None:
            return call_model(self.model, x)

        def forward(*args: Any) -> Any:
            output, auxiliary = labelled(*args, self.batch.y)
            if keep_auxiliary:
                self.auxiliary.append(auxiliary)
            return output

        # In place of the module's own forward for this one call: wrappers and hooks, capture's too, see a usual pass.
        own = vars(network).get("forward")
        vars(network)["forward"] = forward
        try:
            return call_model(self.model, x)
        finally:
            del vars(network)["forward"]
            if own is not None:
                vars(network)["forward"] = own


def rescaled(attack: Perturbation, share: float, scale: Tensor | None = None) -> Perturbation:
    """An attack with a share of its budget; with ``scale``, (N,), with a share of its own for each input.

    A step size that was given shrinks with the budget, as those that follow from it do.

    Raises:
        UserError: for a perturbation that has no budget of its own to take a share of.
    """
    if share == 1 and scale is None:
        return attack
    attack = attack.within()
    runs = attack.innermost if isinstance(attack, Attack) else attack  # an attack around another has its threat
    threat, settings = runs.threat, runs.settings()
    if threat is None or "threat" not in settings:
        raise UserError(f"{type(attack).__name__} has no threat of its own, so no share of its budget can be taken")
    changes: dict[str, Any] = {}
    if scale is not None:
        changes["threat"] = RowThreat.of(threat, share * scale)
    else:
        changes["threat"] = replace(threat, eps=share * threat.eps)
        if share > 0 and settings.get("step_size") is not None:
            changes["step_size"] = share * settings["step_size"]
    if isinstance(attack, Attack):
        return attack.varied(**changes)
    return cast(Perturbation, replace(cast(Any, attack), **changes))
