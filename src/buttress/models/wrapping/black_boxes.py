"""Classifiers without gradients as models: those that return class numbers, and those on NumPy arrays."""

from __future__ import annotations

import hashlib
import pickle
import uuid
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from buttress.errors import UserError
from buttress.validation import whole

_BEYOND = 1e-6  # by how much the class that an estimator names leads, where its scores put another one first


class FromLabels(nn.Module):
    """Reads a model that returns class numbers as one that returns logits: 1 for its class and -1 for the others.

    There is no gradient, and the logits say no more than the class: use attacks that are based on decisions, such as
    HopSkipJump or the Boundary Attack.

    Args:
        model: the network, whose output is (N,) or (N, 1) integers; kept as ``.model``.
        classes: how many there are.

    Raises:
        UserError: when called, for an output that is something else.
    """

    def __init__(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, whole("classes", classes, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) numbers 1 and -1, of the data type of ``x``."""
        return _decisions(self.model(x), len(x), self.classes).to(x.dtype)


class FromNumpy(nn.Module):
    """A classifier on NumPy arrays, a scikit-learn estimator for one, as a model without gradients.

    An estimator gets each input as one row, (N, features). Its logits are the logarithms of ``predict_proba``, the
    scores of ``decision_function``, or 1 for the class that ``predict`` names and -1 for the others: the first that it
    has. The class is always the one that ``predict`` names. Classes are numbered in the order of ``classes_``.

    Args:
        classifier: a fitted estimator; or a function of an array (N, ...) that returns logits (N, classes), or class
            numbers (N,), from 0 on.
        classes: how many there are; needed for class numbers, and known of an estimator.

    Raises:
        UserError: for something that cannot be called, and, when called, for outputs that are none of these.
    """

    def __init__(self, classifier: Any, classes: int | None = None) -> None:
        super().__init__()
        if not callable(classifier) and not hasattr(classifier, "predict"):
            raise UserError(
                "FromNumpy takes a function of an array, or an estimator with a method predict; got "
                f"{type(classifier).__name__}"
            )
        self.classifier = classifier
        self.classes = classes if classes is None else whole("classes", classes, 2)
        self._digest = _digest(classifier)

    def forward(self, x: Tensor) -> Tensor:
        """(N, classes) logits of the data type of ``x``."""
        array = x.detach().cpu().numpy()
        if hasattr(self.classifier, "predict"):
            logits = self._of_estimator(array.reshape(len(array), -1))
        else:
            logits = self._of_function(_numbers("the function", self.classifier(array)), len(array))
        return logits.to(x)

    def get_extra_state(self) -> str:
        """What tells this classifier from others, in place of weights: a digest of its pickled form."""
        return self._digest

    def set_extra_state(self, state: str) -> None:
        """Nothing: the classifier is given when the model is made."""

    def _of_function(self, output: Tensor, count: int) -> Tensor:
        if output.is_floating_point():
            return output
        if self.classes is None:
            raise UserError("the function returns class numbers: say how many classes there are, classes=10")
        return _decisions(output, count, self.classes)

    def _of_estimator(self, rows: Any) -> Tensor:
        known = getattr(self.classifier, "classes_", None)
        if known is None and self.classes is None:
            raise UserError(
                f"{type(self.classifier).__name__} does not tell its classes: fit it first, or say how many, classes=10"
            )
        labels = list(range(self.classes or 0)) if known is None else list(known)
        name = type(self.classifier).__name__
        if self.classes not in (None, len(labels)):
            raise UserError(f"{name} knows {len(labels)} classes; got classes={self.classes}: leave it out")
        predicted = self.classifier.predict(rows)
        try:
            position = {label: place for place, label in enumerate(labels)}
            named = torch.tensor([position[label] for label in predicted])
        except (KeyError, TypeError):  # a value that is no class; several at once
            raise UserError(
                f"{name} must predict one class for each input; got {predicted[:1]!r} for the first: give a classifier"
            ) from None
        scores = self._scores(rows, len(labels))
        if scores is None:
            return _decisions(named, len(rows), len(labels))
        highest = scores.amax(1)
        own = scores.gather(1, named[:, None]).squeeze(1)
        # Some estimators, as support vector machines, name a class that does not have the highest score.
        lead = torch.where(scores.argmax(1) == named, own, highest + _BEYOND * highest.abs().clamp(min=1))
        return scores.scatter(1, named[:, None], lead[:, None])

    def _scores(self, rows: Any, classes: int) -> Tensor | None:
        if hasattr(self.classifier, "predict_proba"):
            probabilities = _numbers("predict_proba", self.classifier.predict_proba(rows)).double()
            return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log().float()
        if not hasattr(self.classifier, "decision_function"):
            return None
        scores = _numbers("decision_function", self.classifier.decision_function(rows)).float()
        if scores.dim() == 1:  # of the second of two classes
            scores = torch.stack([torch.zeros_like(scores), scores], 1)
        return scores if scores.shape[1] == classes else None  # a support vector machine's may be of pairs of classes


def _numbers(source: str, output: object) -> Tensor:
    """What a classifier returns as a tensor.

    Raises:
        UserError: for what is no array of real numbers.
    """
    try:
        numbers = torch.as_tensor(output)
    except (TypeError, ValueError, RuntimeError):
        numbers = None
    if numbers is None or numbers.is_complex():
        raise UserError(f"{source} must return an array of numbers, logits or class numbers; got {output!r:.60}")
    return numbers


def _decisions(labels: Any, count: int, classes: int) -> Tensor:
    """(N, classes) int64: 1 for the class of each input and -1 elsewhere, which no one takes for probabilities.

    Raises:
        UserError: for what is no class number for each input, from 0 to ``classes`` - 1.
    """
    wrong = not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex()
    if wrong or labels.numel() != count or (labels.dtype == torch.bool and classes != 2):
        what = f"{labels.dtype} of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise UserError(f"class numbers are integers, one for each of the {count} inputs; got {what}")
    flat = labels.reshape(-1).long()
    if count and not (int(flat.min()) >= 0 and int(flat.max()) < classes):
        raise UserError(f"class numbers must be 0 to {classes - 1}; got {int(flat.min())} to {int(flat.max())}")
    return 2 * F.one_hot(flat, classes) - 1


def _digest(classifier: Any) -> str:
    """Of the pickled classifier; where it cannot be pickled, a name that no other will have."""
    try:
        return hashlib.sha256(pickle.dumps(classifier)).hexdigest()
    except (pickle.PicklingError, AttributeError, TypeError):
        return uuid.uuid4().hex
