"""What `harden` starts from: the network as it is, and the weights that its own trainings begin with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn

from buttress import models, tasks
from buttress.data.dataset import Dataset
from buttress.errors import UserError
from buttress.jobs.first_look import recorded
from buttress.jobs.fit_to_data import with_training_output
from buttress.jobs.no_effect import refuse_without_effect
from buttress.jobs.questions import lacks_gradient
from buttress.jobs.settings import Network, Source, open_network
from buttress.jobs.tokens import from_embedding
from buttress.tasks import Task, task_of
from buttress.tensor_forms import copied_network
from buttress.training.token_inputs import embedded_data
from buttress.validation import one_of

Weights = Literal["new", "given"]

# Options that count where the network is given; what counts for a run, `open_network` knows.
_GIVEN = (
    *("model_args", "normalise", "weights", "weights_key", "strict", "head"),
    *("output", "activation", "stem_stride", "task"),
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is hardened.

    Attributes:
        name: what the user calls the network.
        original: the network; with initial weights where ``given`` is False.
        given: whether the user gave it, or it is to be trained first.
        weights: what base and hardened start from: new weights, or those of the given network.
        dataset: the data.
        source: what it takes to load them again.
        architecture: of the networks that are trained.
        spec: by which `models.create` makes them; None where the architecture does.
        preprocessing: a sentence on what is done to the inputs; or empty.
        recorded: what is recorded of the given network's accuracy, see `first_look`.
        task: what their output is for.
        seed: of the initial weights of those that are trained.
    """

    name: str
    original: nn.Module
    given: bool
    weights: Weights
    dataset: Dataset
    source: dict[str, Any]
    architecture: Network
    spec: dict[str, Any] | None
    preprocessing: str
    recorded: tuple[str, float] | None
    task: Task
    seed: int

    @classmethod
    def of(
        cls, network: str | None, architecture: Network, source: Source, seed: int, weights: Weights = "new"
    ) -> Start:
        """A given network, or one to be trained: ``--model NAME --weights FILE`` gives one as ``NAME`` does.

        Raises:
            UserError: for a network that cannot be trained, and for options that say two things.
        """
        one_of("start", weights, ("new", "given"))
        facts, known = dict[str, Any](), None
        if network is None and architecture.weights is not None:
            network = architecture.model
            architecture = replace(architecture, model=Network().model)
        if network is None:
            if weights == "given":
                raise UserError("--start given needs a trained network: a run's folder, or --weights FILE")
            dataset, where = architecture.load_data(source, seed, architecture.task)
            original = architecture.create(dataset, seed)
            preprocessing = architecture.preprocessing(original, dataset)
            dataset = embedded_data(original, dataset)
        else:
            if network in models.names() and architecture.weights is None:
                raise UserError(
                    f"{network} is an architecture without trained weights: give --weights, or type --model {network} "
                    "to have one trained first"
                )
            refuse_without_effect(architecture, _GIVEN, f"{network}, which is the network")
            original, dataset, facts = open_network(network, architecture, source, seed)
            where, preprocessing = facts["source"], facts["preprocessing"]
            # As for the original: what lies beside its weights, or the run has, is not there for the others to read.
            statistics = replace(architecture, model=network).statistics(dataset)
            known = recorded(network, architecture.weights, facts, source.data is None)
            architecture = replace(
                architecture,
                task=task_of(facts),
                model=architecture.model if "model" in facts else network,
                output=architecture.output or facts.get("output"),
                normalise="none" if statistics is None else statistics.words,
                weights=None,
                weights_key=None,
                strict=True,
            )
        task = architecture.task or tasks.classification
        if lacks_gradient(original, dataset, task):
            raise UserError("harden trains networks, and this one gives no gradients: give the torch network itself")
        return cls(
            name=network or architecture.model,
            original=original,
            given=network is not None,
            weights=weights,
            dataset=dataset,
            source=where,
            architecture=architecture,
            spec=facts.get("model"),
            preprocessing=preprocessing,
            recorded=known,
            task=task,
            seed=seed,
        )

    def fresh(self) -> nn.Module:
        """A network of the same architecture for a training to start with, the same each time."""
        if self.weights == "given":
            return with_training_output(copied_network(self.original), self.dataset)
        if self.spec is None:
            return self.architecture.create(self.dataset, self.seed)
        spec = self.spec
        made = {key: value for key, value in spec.items() if key not in ("name", "options")}  # surgery, too
        model = models.create(spec["name"], seed=self.seed, **made, **spec["options"])
        model = from_embedding(self.architecture.finish(model), self.dataset)
        return with_training_output(model, embedded_data(model, self.dataset))

    @cached_property
    def words(self) -> str:
        """Where the trainings start, in a sentence."""
        if not self.given:
            return f"{self.name} is trained first, as original; base and hardened start from the same new weights as it"
        told = f"original is {self.name} as it is; base and hardened start from "
        if self.weights == "given":
            return told + (
                "its weights (--start given); figures of validation images that it was trained on are too good"
            )
        if self._same_weights(self.fresh()):
            return told + f"the weights that {self.architecture.model} gives its network, which are those of original"
        return told + "new weights (--start given: from its own)"

    def _same_weights(self, other: nn.Module) -> bool:
        pairs = zip(self.original.parameters(), other.parameters(), strict=True)
        return all(torch.equal(one, another) for one, another in pairs)
