"""Batch normalisation by the statistics of a batch, in a graph that was recorded in eval mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from buttress.certificates.network.graph import INPUT, Graph, Node, Ref

BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")


def with_batch_statistics(graph: Graph, x: Tensor) -> Graph:
    """The graph with each batch normalisation as a scale and a shift by mean and variance at ``x`` (N, ...).

    They are constants to what bounds the graph, the same for all perturbations of a batch, and carry the gradient for
    the weights before them: as in training by intervals of Shi et al. (NeurIPS 2021). A graph without batch
    normalisation comes back as it is.
    """
    places = [index for index, node in enumerate(graph.nodes) if node.depends and node.name in BATCH_NORMS]
    if not places:
        return graph
    nodes = list(graph.nodes)
    values: dict[Ref, Any] = {**graph.constants, Ref(INPUT): x}
    for index in range(places[-1] + 1):
        if not nodes[index].depends:
            continue
        if index in places:
            nodes[index] = _scaled(nodes[index], values)
        result = nodes[index].run(values.__getitem__)
        results = result if isinstance(result, tuple | list) else (result,)
        values |= {Ref(index, output): value for output, value in enumerate(results)}
    return replace(graph, nodes=nodes)


def _scaled(node: Node, values: Mapping[Ref, Any]) -> Node:
    """A batch normalisation as shift + value * scale, by the statistics of the value that it takes."""
    value, weight, bias = (values[given] if isinstance(given, Ref) else given for given in node.arguments[:3])
    eps = node.arguments[-1]
    variance, mean = torch.var_mean(value, [0, *range(2, value.dim())], correction=0, keepdim=True)
    scale, shape = (variance + eps).rsqrt(), mean.shape
    scale = scale if weight is None else scale * weight.view(shape)
    shift = -mean * scale if bias is None else bias.view(shape) - mean * scale
    given = (shift, node.arguments[0], scale)
    return replace(node, function=torch.ops.aten.addcmul.default, arguments=given, keywords={}, shapes=node.shapes[:1])
