"""Displacement by perturbation, layer and input, and the layers that are most vulnerable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from buttress.errors import UserError
from buttress.layers.measures import ratio
from buttress.registry import nearest
from buttress.validation import number, share, switch

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class LayerProfile:
    """Layer sustainability analysis (Khalooei et al., arXiv 2202.02626).

    P perturbations, L layers in order of execution, N inputs.

    Attributes:
        layers: L names, each usable as a selection.
        perturbations: P names.
        measure: the name of the measure.
        values: (P, L, N) float32 displacement; NaN where it has no relative size, is not finite, or the layer was not
            called. N is 0 in a profile restored from its summary.
        input_change: (P, N) the same measure of the inputs themselves, CM_0.
        mean: (P, L) float64 over the inputs that are not NaN; ``std`` likewise (divided by their number).
        excluded: (P, L) int64, how many inputs are NaN.
        quantiles: (Q, P, L) at `QUANTILES`.
        input_mean: (P,) mean of ``input_change``.
        predecessors: for each layer the position of the one that feeds it, -1 for the input; see `Paths`.
        crossed: for each layer, whether every path from input to output goes through it.
        inputs: N, also where ``values`` is empty.
        reference: inputs whose mean activation is the centre of a centred measure; 0 for other measures.
        unpaired: perturbation -> layers that, for some inputs, only one of its two passes called, or of other parts of
            the input, as an expert's tokens: NaN there.
        left_out: layer -> why it has no number for each input; these are not among ``layers``. A name that ends in
            ``.*`` stands for what is inside of a module that cannot be looked into.
        missed: what is not linear and may be an activation, written by hand or run where no Python is called, which is
            not among ``layers`` either: the function, and the layer after which it comes. Products of matrices,
            normalisation, pooling, attention and recurrence of torch's are not told. To have it looked at, call it in a
            module of its own and name that.
    """

    layers: list[str]
    perturbations: list[str]
    measure: str
    values: Tensor
    input_change: Tensor
    mean: Tensor
    std: Tensor
    excluded: Tensor
    quantiles: Tensor
    input_mean: Tensor
    predecessors: list[int]
    crossed: list[bool]
    inputs: int
    reference: int = 0
    unpaired: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        layers: list[str],
        perturbations: list[str],
        measure: str,
        values: Tensor,
        input_change: Tensor,
        *,
        predecessors: list[int],
        crossed: list[bool],
        reference: int = 0,
        unpaired: dict[str, list[str]] | None = None,
        left_out: dict[str, str] | None = None,
        missed: list[str] | None = None,
    ) -> LayerProfile:
        """A profile with the statistics of ``values`` and ``input_change``."""
        # One infinite displacement, where activations overflow, would make every mean useless: it is left out, too.
        values, input_change = (part.where(part.isfinite(), torch.nan) for part in (values, input_change))
        exact = values.double()
        mean = exact.nanmean(2)
        std = (exact - mean[..., None]).square().nanmean(2).sqrt()
        levels = torch.tensor(QUANTILES, dtype=torch.float64)
        nothing = exact.new_full((len(levels), *mean.shape), torch.nan)
        return cls(
            layers=layers,
            perturbations=perturbations,
            measure=measure,
            values=values,
            input_change=input_change,
            mean=mean,
            std=std,
            excluded=values.isnan().sum(2),
            quantiles=exact.nanquantile(levels, dim=2) if exact.numel() else nothing,
            input_mean=input_change.double().nanmean(1),
            predecessors=predecessors,
            crossed=crossed,
            inputs=values.shape[2],
            reference=reference,
            unpaired=unpaired or {},
            left_out=left_out or {},
            missed=missed or [],
        )

    def _row(self, perturbation: str | None) -> int:
        if perturbation is None:
            return 0
        if perturbation not in self.perturbations:
            known = nearest(str(perturbation), self.perturbations)
            raise UserError(f"the profile has no perturbation {perturbation!r}; {known}")
        return self.perturbations.index(perturbation)

    def mu(self, perturbation: str | None = None) -> float:
        """Mean displacement over all inputs and layers; of the first perturbation unless one is named."""
        return self._moments(perturbation)[0]

    def sigma(self, perturbation: str | None = None) -> float:
        """Standard deviation over all inputs and layers, divided by their number; see `mu`."""
        return self._moments(perturbation)[1]

    def _moments(self, perturbation: str | None) -> tuple[float, float]:
        row = self._row(perturbation)
        count = (self.inputs - self.excluded[row]).double()
        mean, std = self.mean[row].nan_to_num(0.0), self.std[row].nan_to_num(0.0)
        total = float(count.sum())
        if not total:
            return math.nan, math.nan
        mu = float((count * mean).sum()) / total
        return mu, math.sqrt(float((count * (std.square() + (mean - mu).square())).sum()) / total)

    def mvl(self, eta: float = 0.5, perturbation: str | None = None) -> list[str]:
        """The most vulnerable layers, worst first (Algorithm 1): those with CM_l - mu > eta * sigma.

        Args:
            eta: the cut-off, in standard deviations; see `suggest_eta`.
            perturbation: which one; the first unless named.

        Returns:
            Names; none when no layer passes the cut-off. Layers with equal means stay in order of execution.

        Raises:
            UserError: for a cut-off that is no number, and a perturbation that the profile has not.
        """
        number("eta", eta)
        mean = self.mean[self._row(perturbation)].tolist()
        mu, sigma = self._moments(perturbation)
        chosen = [index for index, value in enumerate(mean) if value - mu > eta * sigma]
        return [self.layers[index] for index in sorted(chosen, key=lambda index: -mean[index])]

    def suggest_eta(self, perturbation: str | None = None) -> float:
        """A cut-off for `mvl`, at the widest gap between the layers above the mean and what comes below them.

        The paper leaves eta to the user; this is our rule. It names at least one layer whenever the layers differ.

        Returns:
            The middle of the gap in standard deviations, at least 0.
        """
        mu, sigma = self._moments(perturbation)
        scores = sorted((v for v in self.mean[self._row(perturbation)].tolist() if not math.isnan(v)), reverse=True)
        above = [v for v in scores if v > mu]
        if not above or not sigma > 0:
            return 0.0
        ends = [max(v, mu) for v in scores[1 : len(above) + 1]] or [mu]
        gaps = [high - low for high, low in zip(above, ends, strict=False)]
        widest = gaps.index(max(gaps))
        return float(((above[widest] + ends[widest]) / 2 - mu) / sigma)

    def gain(self, perturbation: str | None = None) -> Tensor:
        """(L,) float64: each layer's mean displacement over that of the layer that feeds it, or of the input.

        NaN after a layer that is not displaced at all, unless this one is not either (0).
        """
        row = self._row(perturbation)
        before = torch.cat([self.mean[row], self.input_mean[row : row + 1]])  # -1 is the input
        return ratio(self.mean[row], before[self.predecessors])

    def quantile(self, q: float) -> Tensor:
        """(P, L) quantile over the inputs.

        Raises:
            UserError: for q outside 0 to 1, or other than `QUANTILES` when the profile comes from a summary.
        """
        if share("q", q) in QUANTILES:
            return self.quantiles[QUANTILES.index(q)]
        if not self.values.shape[2]:
            raise UserError(f"a profile restored from its summary has the quantiles {QUANTILES}; got {q}")
        return self.values.double().nanquantile(q, dim=2)

    def to_frame(self) -> Any:
        """A pandas DataFrame with one row for each perturbation and layer.

        Raises:
            UserError: where pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError:
            raise UserError("to_frame needs pandas, which is not installed: pip install 'buttress[frame]'") from None
        rows = []
        for p, perturbation in enumerate(self.perturbations):
            gain = self.gain(perturbation).tolist()
            for k, layer in enumerate(self.layers):
                row = {"perturbation": perturbation, "layer": layer, "position": k, "mean": float(self.mean[p, k])}
                row |= {"std": float(self.std[p, k]), "gain": gain[k], "crossed": self.crossed[k]}
                row |= {f"q{round(100 * q):02d}": float(self.quantile(q)[p, k]) for q in QUANTILES}
                rows.append(row | {"excluded": int(self.excluded[p, k])})
        return pd.DataFrame(rows)

    def plot(self) -> Any:
        """A plotly figure: mean displacement along the layers, one line a perturbation; bars span half the inputs."""
        import plotly.graph_objects as go

        figure = go.Figure()
        low, high = self.quantile(0.25), self.quantile(0.75)
        for p, name in enumerate(self.perturbations):
            spread = {"array": (high - self.mean)[p].tolist(), "arrayminus": (self.mean - low)[p].tolist()}
            bars = {"type": "data", "symmetric": False, "thickness": 1, **spread}
            figure.add_scatter(x=self.layers, y=self.mean[p].tolist(), error_y=bars, mode="lines+markers", name=name)
        figure.update_layout(xaxis_title="layer, in order of execution", yaxis_title=self.measure.replace("_", " "))
        return figure

    def to_dict(self, values: bool = False) -> dict[str, Any]:
        """Plain JSON data: the statistics, and with ``values`` the number of every input too. NaN is None."""
        switch("values", values)
        tensors = ["mean", "std", "excluded", "quantiles", "input_mean"]
        plain = ["layers", "perturbations", "measure", "predecessors", "crossed", "inputs", "reference", "unpaired"]
        plain += ["left_out", "missed"]
        if values:
            tensors += ["values", "input_change"]
        return {name: getattr(self, name) for name in plain} | {name: to_lists(getattr(self, name)) for name in tensors}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LayerProfile:
        """The profile that `to_dict` wrote; without the inputs' numbers where these were left out.

        Raises:
            UserError: for what is no such dict, or lacks a part.
        """
        if not isinstance(data, Mapping):
            raise UserError(
                f"a layer profile is restored from the dict that to_dict writes; got a {type(data).__name__}"
            )
        rest = dict(data)
        shape = (len(rest.get("perturbations", ())), len(rest.get("layers", ())))
        try:
            for name in ("mean", "std", "quantiles", "input_mean"):
                rest[name] = from_lists(rest[name])
            rest["excluded"] = torch.tensor(rest["excluded"], dtype=torch.int64)
            rest["values"] = from_lists(rest["values"]).float() if "values" in rest else torch.zeros(*shape, 0)
            change = rest.get("input_change")
            rest["input_change"] = torch.zeros(shape[0], 0) if change is None else from_lists(change).float()
            return cls(**rest)
        except (KeyError, TypeError) as error:
            raise UserError(f"this is no layer profile as to_dict writes it: {error}") from None


def to_lists(tensor: Tensor) -> Any:
    """Nested lists with None for what is not finite, which JSON has no number for."""

    def clean(item: Any) -> Any:
        if isinstance(item, list):
            return [clean(part) for part in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    return clean(tensor.tolist())


def from_lists(lists: Any) -> Tensor:
    """What `to_lists` wrote, as float64 with NaN for None."""

    def filled(item: Any) -> Any:
        return [filled(part) for part in item] if isinstance(item, list) else math.nan if item is None else item

    return torch.tensor(filled(lists), dtype=torch.float64)
