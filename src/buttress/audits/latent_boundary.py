"""The latent boundary of two classes: decoded steps across it, and the predictions around it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from buttress.attacks.unrestricted.latent_step import LatentSpace
from buttress.audits.base.audit import Audit
from buttress.audits.base.finding import Finding, Topic
from buttress.audits.base.png import pixels, png
from buttress.audits.base.subject import Subject
from buttress.audits.base.work import Work
from buttress.data.dataset import Split
from buttress.defences.ladder.directions import BoundaryDirections
from buttress.defences.ladder.latent_space import Encoder, fit_space
from buttress.defences.ladder.support_vector_machines import AttentionSVM, SVMSettings
from buttress.engine.pass_count import PassCount
from buttress.errors import UserError
from buttress.registry import audit
from buttress.validation import one_name, positive, whole

_LEAST = 2  # inputs of each class, to fit anything on
_KIND, _TITLE = "latent-boundary", "Latent boundary"


@audit("latent-boundary")
@dataclass(frozen=True, kw_only=True)
class LatentBoundary(Audit):
    """Decoded images along ``a * w`` of two classes, and the network's predictions on a plane of its latent space.

    A decoder of one of the network's layers and the pair's attention machine (Zhou et al., Machine Learning 2022) are
    fitted on the audited inputs of the two classes. The plane goes through the middle of the two classes' mean vectors:
    one axis along ``a * w`` there, the other along the direction at right angles to it in which the vectors vary most.
    Each of its points is decoded and given to the network, so that the picture also shows what the decoder cannot make.

    Cost: ``2 * decoder_epochs`` passes of the decoder per input, and ``grid ** 2 + images`` of decoder and network.

    Args:
        pair: source and target class, by index.
        layer: the latent layer, see `buttress.defences.ladder.latent_space.Encoder`; found unless given.
        images: decoded images along the direction, from one that the network recognises as the source.
        reach: how far they go to either side, in lengths of the latent space; to the farthest input unless given.
        grid: points along each axis of the plane.
        decoder_epochs: of the decoder.
        svm_epochs: of the machine.
        svm_c: weight of its hinge loss; with the paper's 0.01 it hardly learns from as few inputs as an audit has.
        points: inputs shown in the plane, at most.

    Raises:
        UserError: for settings that draw nothing.
    """

    topic: ClassVar[Topic] = "Where it fails"

    pair: tuple[int, int] = (0, 1)
    layer: str | None = None
    images: int = 9
    reach: float | None = None
    grid: int = 41
    decoder_epochs: int = 100
    svm_epochs: int = 50
    svm_c: float = 1.0
    points: int = 200

    def __post_init__(self) -> None:
        """Refuse what draws nothing."""
        object.__setattr__(self, "pair", tuple(self.pair))
        if len(self.pair) != 2 or self.pair[0] == self.pair[1] or min(self.pair) < 0:
            raise UserError(f"pair must be two different classes by index; got {self.pair}")
        whole("images", self.images, 2)
        whole("grid", self.grid, 2)
        whole("points", self.points, 0)
        whole("decoder_epochs", self.decoder_epochs, 0)
        whole("svm_epochs", self.svm_epochs, 0)
        if self.reach is not None:
            positive("reach", self.reach)
        if self.layer is not None:
            one_name("layer", self.layer)
        SVMSettings(c=self.svm_c, epochs=self.svm_epochs)  # refuses what it cannot use

    def work(self, subject: Subject) -> Work:
        """The plane and the images; and the fit, by how long one epoch of the decoder and of the machine takes."""
        rows, side = self._pair_rows(subject)
        if min(int(side.sum()), int((1 - side).sum())) < _LEAST:
            return Work()
        start = time.perf_counter()
        short = replace(self, decoder_epochs=1, svm_epochs=1)
        short._fit(subject, subject.x[rows], side, subject.ids[rows])
        seconds = (time.perf_counter() - start) * max(self.decoder_epochs, self.svm_epochs, 1)
        own = PassCount(2 * len(rows) + self.grid**2 + self.images)
        return Work((), own, seconds)

    def _pair_rows(self, subject: Subject) -> tuple[Tensor, Tensor]:
        """The rows of the two classes' inputs, and 1 for each of the target's."""
        rows = ((subject.y == self.pair[0]) | (subject.y == self.pair[1])).nonzero().squeeze(1)
        return rows, (subject.y[rows] == self.pair[1]).long()

    def ask(self, subject: Subject) -> Finding:
        """Fit on the two classes' inputs, and decode steps along the direction and the plane around it.

        Raises:
            UserError: for a class that the network does not tell apart.
        """
        classes = subject.logits.shape[1]
        if max(self.pair) >= classes:
            source, target = self.pair
            last = f"classes 0 to {classes - 1}"
            raise UserError(f"pair must be two of the network's {last}, as in 0,1; got {source},{target}")
        rows, side = self._pair_rows(subject)
        names = [_name(subject, label) for label in self.pair]
        if min(int(side.sum()), int((1 - side).sum())) < _LEAST:
            return Finding(
                _KIND, _TITLE, f"There are fewer than {_LEAST} inputs of {names[0]} or of {names[1]}.", "info", {}
            )
        x = subject.x[rows]
        space, machine = self._fit(subject, x, side, subject.ids[rows])
        z = space.encode(x)
        plane = _plane(z, side, machine)
        right = (side == 0) & (subject.logits[rows].argmax(1) == self.pair[0])
        start = z[int((right if right.any() else side == 0).nonzero()[0])]
        items = self._walk(subject, space, machine, plane, start, x)
        shown = plane.coordinates[: self.points].cpu()
        data = {
            **self._plane_figures(subject, space, plane, x),
            "points": {
                "x": shown[:, 0].tolist(),
                "y": shown[:, 1].tolist(),
                "label": [names[i] for i in side[: self.points].tolist()],
            },
            "items": items,
            "pair": names,
            "layer": self._layer(space),
            "length_of_w": plane.length,
        }
        return Finding(_KIND, _TITLE, _verdict(items, names), "info", data)

    def _fit(self, subject: Subject, x: Tensor, side: Tensor, ids: Tensor) -> tuple[LatentSpace, AttentionSVM]:
        """The space of the two classes, and the machine from the source to the target."""
        box = (0.0, 1.0) if float(x.min()) >= 0 and float(x.max()) <= 1 else None
        split = Split(x.cpu().float(), side.cpu(), ids.cpu())
        settings: dict[str, Any] = {"seed": subject.seed, "layer": self.layer, "box": box}
        settings["svm"] = SVMSettings(c=self.svm_c, epochs=self.svm_epochs)
        space = fit_space(subject.model, split, 2, decoder_epochs=self.decoder_epochs, **settings).space
        directions = space.directions
        assert isinstance(directions, BoundaryDirections)
        return space, directions.machine(0, 1)

    def _layer(self, space: LatentSpace) -> str:
        encoder = space.encoder
        assert isinstance(encoder, Encoder)
        return encoder.layer

    def _walk(
        self, subject: Subject, space: LatentSpace, machine: AttentionSVM, plane: _Plane, start: Tensor, x: Tensor
    ) -> list[dict[str, Any]]:
        """Steps from one input's vector to both sides: the image, the prediction and the machine's score of each."""
        reach = self.reach or plane.farthest(start)
        steps = torch.linspace(-reach, reach, self.images).to(start)
        z = start + steps[:, None] * plane.along
        decoded, scores = space.decode(z, x), machine.score(z[None])[0]
        confidence, predicted = subject.output(decoded).softmax(1).max(1)
        drawable = decoded.dim() == 4 and decoded.shape[1] in (1, 3)
        return [
            {
                "step": float(steps[i]),
                "score": float(scores[i]),
                "label": _name(subject, int(predicted[i])),
                "confidence": float(confidence[i]),
                "image": png(pixels(decoded[i])) if drawable else None,
            }
            for i in range(len(steps))
        ]

    def _plane_figures(self, subject: Subject, space: LatentSpace, plane: _Plane, x: Tensor) -> dict[str, Any]:
        """The target's share of the two classes' probability on the plane."""
        low, high = plane.coordinates.amin(0), plane.coordinates.amax(0)
        spread = 0.1 * (high - low).clamp(min=1e-6)
        axes = [torch.linspace(float(a), float(b), self.grid) for a, b in zip(low - spread, high + spread, strict=True)]
        rows, columns = torch.meshgrid(axes[1], axes[0], indexing="ij")
        coordinates = torch.stack([columns.flatten(), rows.flatten()], 1).to(plane.middle)
        z = plane.middle + coordinates @ torch.stack([plane.along, plane.across])
        probabilities = subject.output(space.decode(z, x)).softmax(1)
        pair_probability = probabilities[:, list(self.pair)]
        share = (
            pair_probability[:, 1] / pair_probability.sum(1).clamp(min=torch.finfo(pair_probability.dtype).tiny)
        ).view(self.grid, self.grid)
        others = (
            1 - torch.isin(probabilities.argmax(1), torch.tensor(self.pair, device=probabilities.device)).float().mean()
        )
        plane_data = {"x": axes[0].tolist(), "y": axes[1].tolist(), "probability": share.cpu().tolist()}
        return {**plane_data, "other_classes": float(others)}


@dataclass(frozen=True)
class _Plane:
    """Two unit directions at right angles, a point, and where the inputs are; ``length`` is that of ``a * w``."""

    middle: Tensor
    along: Tensor
    across: Tensor
    coordinates: Tensor
    length: float

    def farthest(self, z: Tensor) -> float:
        """How far any input is from this (d,) vector along the first direction; 1 where none is."""
        return float((self.coordinates[:, 0] - (z - self.middle) @ self.along).abs().max()) or 1.0


def _plane(z: Tensor, side: Tensor, machine: AttentionSVM) -> _Plane:
    """The plane of two classes' vectors.

    Args:
        z: (N, d) vectors.
        side: (N,) 0 for the source, 1 for the target.
        machine: of the pair.
    """
    middle = (z[side == 0].mean(0) + z[side == 1].mean(0)) / 2
    along = machine.attention(middle[None, None])[0, 0] * machine.w[0]
    length = float(along.norm())
    along = along / max(length, 1e-12)
    rest = z - middle
    rest = rest - (rest @ along)[:, None] * along
    across = torch.linalg.svd(rest, full_matrices=False).Vh[0]
    across = across * (1 if float(across[across.abs().argmax()]) > 0 else -1)  # a singular vector has no sign
    return _Plane(middle, along, across, (z - middle) @ torch.stack([along, across], 1), length)


def _verdict(items: list[dict[str, Any]], names: list[str]) -> str:
    """At which step the prediction is the target for the first time."""
    source, target = names
    target_steps = [item["step"] for item in items if item["label"] == target and item["step"] >= 0]
    reach = items[-1]["step"]
    if not target_steps:
        return f"A decoded {source} does not become {target} for the network within {reach:.3g} along the direction."
    return f"A decoded {source} becomes {target} for the network {min(target_steps):.3g} along the direction."


def _name(subject: Subject, label: int) -> str:
    return subject.classes[label] if label < len(subject.classes) else str(label)
