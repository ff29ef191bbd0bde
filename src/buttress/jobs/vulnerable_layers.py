"""Which layers a job regularises: the most vulnerable ones that can be."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from buttress.audits import Audit, Subject
from buttress.audits.layer_verdict import displaced
from buttress.audits.layers import Layers
from buttress.data.dataset import Dataset
from buttress.engine.input_dtype import suited
from buttress.errors import UserError
from buttress.layers.regularisable import names_in, not_regularisable, sampled_rows
from buttress.layers.select import check_given
from buttress.layers.told_apart import refusal
from buttress.report.text import some
from buttress.training.token_inputs import embedded_data

log = logging.getLogger(__name__)


def named_layers(network: nn.Module, dataset: Dataset, layers: Sequence[str]) -> list[str]:
    """The layers that the user's names and patterns mean, each once.

    Args:
        network: that is trained, as it begins.
        dataset: that it is trained on.
        layers: names and patterns.

    Raises:
        UserError: for a layer that the network does not have, or that cannot be regularised, with the nearest names
            there are or the reason.
    """
    check_given(layers)
    batches = _batches(network, dataset)
    names = names_in(network, batches, layers)
    for layer, reason in not_regularisable(network, batches, names).items():
        raise UserError(refusal(layer, reason, "regularised"))
    return names


def vulnerable_layers(
    about: Subject, questions: Sequence[Audit], eta: float | None, network: nn.Module, dataset: Dataset
) -> list[str]:
    """The most vulnerable layers of a network; where none of them can be regularised, those of all that can.

    Args:
        about: the network, and the data that decide.
        questions: of the job's audits; that of layers says how displacement is measured.
        eta: cut-off of algorithm 1 in standard deviations; by default at the widest gap.
        network: that is trained, as it begins: whether a layer can be regularised is seen of it.
        dataset: that it is trained on.

    Raises:
        UserError: where no layer stands out, and where no layer can be regularised.
    """
    question = next(question for question in questions if isinstance(question, Layers))
    question = replace(question, perturbations=question.perturbations[:1])
    names, batches = _most_displaced(about, question, eta), _batches(network, dataset)
    refused = not_regularisable(network, batches, names)
    if refused:
        log.warning("displaced most, but not regularised: %s", _listed(refused))
    if len(refused) < len(names):
        return [name for name in names if name not in refused]
    everything = question.profile(about).layers
    refused = not_regularisable(network, batches, everything)
    allowed = [name for name in everything if name not in refused]
    if not allowed:
        raise _none(refused)
    return _most_displaced(about, replace(question, layers=allowed), eta)


def _batches(network: nn.Module, dataset: Dataset) -> list[Tensor]:
    """A sample of the inputs that are trained on, of tokens the values."""
    split = embedded_data(network, dataset).train
    return [suited(network, split.take(rows)[0]) for rows in sampled_rows(len(split))]


def _most_displaced(about: Subject, question: Layers, eta: float | None) -> list[str]:
    """The layers that algorithm 1 names under the first perturbation, and those that are tied with them."""
    profile = question.profile(about)
    found = displaced(profile, eta)
    if found.remark:
        log.warning(found.remark)
    named = found.names
    if named or len(profile.layers) == 1:
        return named or profile.layers
    if not profile.layers:
        raise _none(profile.left_out)
    raise UserError(
        f"no layer stands out under {profile.perturbations[0]}: name some by --layers, of {some(profile.layers)}"
    )


def _none(reasons: Mapping[str, str]) -> UserError:
    return UserError(f"no layer can be regularised: {_listed(reasons)}; name others by --layers")


def _listed(reasons: Mapping[str, str]) -> str:
    return some([f"{name} ({reason})" for name, reason in reasons.items()])
