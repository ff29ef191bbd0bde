"""What the jobs have in common: where data and networks come from, how long to train, who receives progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

from torch import nn

from buttress import data, models, processes, registry, tasks
from buttress.data.dataset import Dataset
from buttress.defences.base.defence import Defence
from buttress.engine.preserved_model import switch_mode
from buttress.errors import UserError
from buttress.jobs.fit_to_data import check_fit, check_options, create_for, with_training_output
from buttress.jobs.folder_options import folder_options, is_own_data, recorded_source
from buttress.jobs.no_effect import refuse_without_effect
from buttress.jobs.preprocessing import check_statistics, chosen_statistics, told
from buttress.jobs.tokens import from_embedding
from buttress.models.libraries import check_trained
from buttress.models.preprocessing import Statistics
from buttress.models.weights import Head
from buttress.tasks import Task, task_facts, task_of
from buttress.training import Schedule, Trained, TrainingConfig, fit, load, read_facts
from buttress.training.loop import Progress
from buttress.training.token_inputs import embedded_data
from buttress.user_modules import absolute


class Reporter:
    """Receives messages and progress. This one drops them; the command line's writes to the terminal."""

    def line(self, text: str) -> None:
        """Write a sentence for the user."""

    def watch(self, title: str) -> Progress | None:
        """A callable that receives the progress of one piece of work, or None."""
        return None


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the data come from.

    Args:
        data: a registered name, folder:PATH, or package.module:function; for a run's folder, its own data by default;
            where a registered model is trained, fashion-mini by default.
        data_dir: folder with the original files; without it they are downloaded and kept.
        data_args: further options of the data set, such as noise for moons, or size for folders of images.
        classes: of a folder, the network's classes in its order: names, a file of them (text, JSON, ImageNet's list of
            synsets), or how many there are; a run knows its own.
        labels: of a folder, a table of labels (CSV, TSV, JSON lines) with columns such as file, label and split.
        without_classes: classes whose inputs are left out, by name or by index; a run remembers them.
        limit: the largest number of inputs of each split, classes in proportion.
        pool: side of the squares of pixels that become one, their mean: 2 halves the resolution of images.
    """

    flat: ClassVar[bool] = True  # its fields are options of the job itself on the command line

    data: Annotated[str | None, registry.dataset] = None
    data_dir: Path | None = None
    data_args: dict[str, Any] = field(default_factory=dict)
    classes: list[str] | None = None
    labels: Path | None = None
    without_classes: list[str] | None = None
    limit: int | None = None
    pool: int | None = None

    def require(self, what: str) -> None:
        """Refuse to guess the data of a network that was made elsewhere.

        Args:
            what: the network, for the error line.

        Raises:
            UserError: where they are not named.
        """
        if self.data is None:
            raise UserError(
                f"{what} does not say what data it is for: give --data, a name (buttress list datasets), folder:PATH "
                "or file.py:function"
            )

    def load(
        self,
        seed: int,
        known: Mapping[str, Any] | None = None,
        task: Task | None = None,
        *,
        trained: bool = False,
    ) -> tuple[Dataset, dict[str, Any]]:
        """The data set for a task, and what it takes to load it again.

        Args:
            seed: of data that are drawn.
            known: facts of an earlier run.
            task: what the data are for.
            trained: whether a network that is trained already is looked at, so that what is no split, such as a folder
                of classes, is the test; but for the data that the run was trained on.
        """
        own = known is not None and is_own_data(self, known)
        if known is not None and own:
            facts = recorded_source(known)
            facts |= {"data_dir": str(self.data_dir.resolve())} if self.data_dir and self.data is None else {}
            facts["data_args"] = {**facts["data_args"], **folder_options(self)}
        else:
            folder = None if self.data_dir is None else str(self.data_dir.resolve())
            facts = {"data": self.data or "fashion-mini", "data_dir": folder, "seed": seed}
            facts["data_args"] = folder_options(self, known)
        if not facts["data"].startswith("folder:"):
            check_options(f"data set {facts['data']!r}", registry.dataset.get(facts["data"]), facts["data_args"])
        facts["data"] = absolute_data(facts["data"])
        where, drawn, task = facts["data_dir"], facts["seed"], task or tasks.classification
        for name, instead in (("seed", "--seed"), ("task", "--task"), ("data_dir", "--data-dir")):
            if name in facts["data_args"]:
                raise UserError(f"--data-args.{name} is an option of its own: type {instead}")
        if "test_only" in facts["data_args"]:
            raise UserError("--data-args.test_only has no effect, since the command decides it: leave it out")
        read = partial(data.load, facts["data"], data_dir=where, seed=drawn, task=task, test_only=trained and not own)
        dataset = processes.first_of_host(partial(read, **facts["data_args"]))
        if self.without_classes is not None:  # remembered: a network is made for the classes of its data
            facts["without_classes"] = list(self.without_classes)
        if facts.get("without_classes"):
            dataset = data.without_classes(dataset, facts["without_classes"])
        dataset = dataset if self.limit is None else dataset.limited(self.limit, seed)
        dataset = dataset if facts.get("half") is None else dataset.halved(facts["half"])  # as `train` left it out
        if self.pool is not None:  # remembered: a network is made for the size of its images
            facts["pool"] = self.pool
        return dataset.pooled(facts["pool"]) if facts.get("pool") is not None else dataset, facts


def absolute_data(name: str) -> str:
    """A name of data that means the same in every working directory."""
    folder = name.removeprefix("folder:")
    return absolute(name) if folder == name else f"folder:{Path(folder).resolve()}"


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network.

    Args:
        model: a registered name, timm:NAME, robustbench:NAME, package.module:function or file.py:function.
        model_args: options of the model; classes, channels and image size are taken from the data.
        normalise: what is done to inputs inside the model: MEAN/STD, as in 0.5,0.4,0.4/0.2,0.2,0.2, or imagenet, half,
            clip, cifar10, cifar100, mnist, 0..255; data, by the training inputs; none. By default what a configuration
            beside the weights says (of Hugging Face or timm), else what timm records, else data for architectures of
            buttress; nothing for networks of your own.
        weights: a file of weights: .safetensors, what torch.save wrote, a checkpoint of another library's.
        weights_key: where in that file they are, where several are there: state_dict_ema, model.ema.
        strict: whether all weights of the network must be in the file, and no others of it.
        head: new where the last layer is for other classes and is to be trained anew: the rest is taken from the file.
        output: the entry of the model's output that holds the logits, where it returns a tuple or a dict.
        activation: replaces every ReLU by a smooth activation: elu, gelu, silu or softplus.
        stem_stride: stride of the first convolution.
        task: what its output is for: classification, multi-label, regression, ordinal or denoising; that of the run's
            training by default, else classification.
    """

    flat: ClassVar[bool] = True

    model: Annotated[str, registry.model] = "cnn"
    model_args: dict[str, Any] = field(default_factory=dict)
    normalise: str | bool = "auto"
    weights: Path | None = None
    weights_key: str | None = None
    strict: bool = True
    head: Head = "kept"
    output: str | None = None
    activation: str | None = None
    stem_stride: int | None = None
    task: Task | None = None

    def load_data(self, source: Source, seed: int, task: Task | None = None) -> tuple[Dataset, dict[str, Any]]:
        """What `Source.load` returns, for a network that is trained: one of the user's own has data of its own.

        Raises:
            UserError: also where a network of the user's, or one with weights, comes without its data.
        """
        if ":" in self.model or self.weights is not None:
            source.require(self.model)
        return source.load(seed, task=task)

    def create(self, dataset: Dataset, seed: int) -> nn.Module:
        """The network for this data set, its initial weights drawn from ``seed``; of tokens, from its embedding on.

        Raises:
            UserError: also when it does not fit the data.
        """
        model = from_embedding(self.build(dataset, seed), dataset)
        embedded = embedded_data(model, dataset)
        check_fit(model, embedded, self.task or tasks.classification)
        return with_training_output(model, embedded)

    def build(self, dataset: Dataset, seed: int) -> nn.Module:
        """As `create`, not yet held against the data."""
        swaps = {"activation": self.activation, "stem_stride": self.stem_stride}
        options = {**self.model_args, **{name: value for name, value in swaps.items() if value is not None}}
        statistics = self.statistics(dataset)
        model = self.finish(create_for(dataset, self.model, options, statistics, seed))
        check_statistics(model, self.model, self.normalise, statistics, self.weights)
        return model

    def statistics(self, dataset: Dataset) -> Statistics | None:
        """By which inputs are normalised before a network that is no run's; None for inputs as they are."""
        return chosen_statistics(self.normalise, dataset, self.model, self.weights)

    def preprocessing(self, model: nn.Module, dataset: Dataset) -> str:
        """A sentence on what is done to the inputs of this network; or empty."""
        return told(model, self.model, dataset, self.normalise, self.statistics(dataset))

    def finish(self, model: nn.Module) -> nn.Module:
        """Load the weights and pick the output, where asked for."""
        if self.weights is None:
            refuse_without_effect(self, _WITHOUT_WEIGHTS, "a network without --weights, which it would be about")
        else:
            options: dict[str, Any] = {"strict": self.strict, "key": self.weights_key, "head": self.head}
            misfits = models.load_weights(model, self.weights, **options)
            if not self.strict and not any(misfits):
                raise UserError(f"--strict false has no effect on {self.weights}, which fits as it is: leave it out")
        if self.output is None:
            return model
        picked = models.Output(model, self.output)
        if models.spec_of(model) is not None:  # so that a run remembers how the network inside is made
            picked._buttress_spec = model._buttress_spec
        return picked


_WITHOUT_WEIGHTS = {field.name for field in fields(Network)} - {"weights_key", "strict", "head"}


@dataclass(frozen=True, kw_only=True)
class Training(TrainingConfig):  # noqa: D101  (its base's)
    __doc__ = TrainingConfig.__doc__  # what the command line reads; below are a job's own defaults

    flat: ClassVar[bool] = True

    epochs: int = 20
    schedule: Schedule = Schedule(name="cosine")

    def run(
        self,
        model: nn.Module,
        dataset: Dataset,
        defence: Defence,
        *,
        seed: int,
        out: Path | None,
        resume: bool,
        facts: Mapping[str, Any],
        reporter: Reporter,
        title: str,
    ) -> Trained:
        """`fit` with these settings; what monitors report goes to the user."""
        trained = fit(
            model,
            dataset,
            defence,
            self,
            seed=seed,
            out=out,
            resume=resume,
            facts=facts,
            progress=reporter.watch(title),
        )
        for note in trained.notes:
            reporter.line(note)
        return trained


def open_network(
    reference: str, network: Network, source: Source, seed: int, *, trained: bool = False
) -> tuple[nn.Module, Dataset, dict[str, Any]]:
    """A trained network and the data to audit it on.

    Args:
        reference: a run's folder, an ONNX file, or what ``Network.model`` may be; a registered architecture needs its
            weights.
        network: options and weights for one that is no run's.
        source: the data; for a run, those it was trained on unless said otherwise.
        seed: of data that are drawn.
        trained: whether nothing is trained on the data, as in `Source.load`.

    Returns:
        The network in eval mode, the data set, and the run's facts (or the source's), of which `task_of` is the task,
        and "preprocessing" a sentence on what is done to the inputs.
        Where the data are tokens, network and data are those from its embedding on.
    """
    if Path(reference).is_dir():
        refuse_without_effect(
            network, ("weights", "weights_key", "strict", "output", "task"), f"the run {reference}, which has its own"
        )
        facts = read_facts(reference)
        if not facts.get("source"):  # trained from Python
            source.require(f"the run in {reference}")
        task = network.task or task_of(facts)
        dataset, where = source.load(seed, facts, task, trained=trained)
        model: nn.Module = replace(network, output=network.output or facts.get("output")).finish(load(reference))
        model = from_embedding(model, dataset)
        dataset = embedded_data(model, dataset)
        check_fit(model, dataset, task)
        switch_mode(model, "eval")
        about = {"source": where, "preprocessing": told(model, reference, dataset, "none", None)}
        return model, dataset, {**facts, **about, **task_facts(task)}
    if network.head == "new":
        raise UserError("--head new gives an untrained last layer: train the network with it first (buttress train)")
    own = models.names()
    file = reference.endswith(".onnx")
    if ":" not in reference and reference not in own and not file:
        if Path(reference).is_file():
            raise UserError(
                f"{reference!r} is a file: give what makes the network in code, as in file.py:Net --weights {reference}"
            )
        known = registry.nearest(reference, own)
        if "/" in reference:  # a place, which is like no name
            known = f"there is no {Path(reference).resolve()}; buttress list models names the models"
        raise UserError(f"{reference!r} is no run's folder and no model; {known}")
    if reference in own and network.weights is None:
        raise UserError(f"{reference} is an architecture without trained weights: give --weights, or a run's folder")
    if network.weights is None:
        check_trained(reference, network.model_args)
    source.require(reference)
    task = network.task or tasks.classification
    network = replace(network, model=reference)
    if file:
        refuse_without_effect(
            network, ("normalise", "output", "task", "model"), f"the file {reference}, which has its own"
        )
    dataset, where = source.load(seed, task=task, trained=trained)
    statistics = network.statistics(dataset)
    if file:
        model = models.from_onnx(reference, network.output)
        if statistics is not None:
            model = models.Normalized(model, *statistics.by_channel(dataset.channels))
    else:
        model = from_embedding(network.build(dataset, seed), dataset)
        dataset = embedded_data(model, dataset)
    check_fit(model, dataset, task)
    switch_mode(model, "eval")
    facts = {"data": dataset.name, "classes": list(dataset.classes), "source": where}
    facts["preprocessing"] = network.preprocessing(model, dataset)
    return model, dataset, facts | task_facts(task)
