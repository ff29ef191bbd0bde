"""Batch normalisation by the statistics of a batch, in a graph that was recorded in eval mode."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from buttress.certificates.network.graph import INPUT, Graph, Node, Ref
from buttress.certificates.operations.operation import Place

BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")


def with_batch_statistics(graph: Graph, x: Tensor) -> Graph:
    """The graph with each batch normalisation as a scale and a shift by mean and variance at ``x`` (N, ...).

    They are constants to what bounds the graph, the same for all perturbations of a batch, and carry the gradient for
    the weights before them: as in training by intervals of Shi et al. (NeurIPS 2021). A graph without batch
    normalisation comes back as it is.
    """
    norms = [index for index, node in enumerate(graph.nodes) if node.depends and node.name in BATCH_NORMS]
    if not norms:
        return graph
    graph = replace(graph, nodes=list(graph.nodes))
    asked = {ref for node in graph.nodes for ref in node.refs}
    values = {Ref(INPUT): x[:, None]}
    for index in range(norms[-1] + 1):
        place = Place(graph, index)
        if not place.node.depends:
            continue
        inputs = {ref: values[ref] for ref in place.inputs}
        if index in norms:
            graph.nodes[index] = _scaled(place, *inputs.values())
        for ref in (Ref(index, output) for output in range(len(place.node.shapes))):
            if ref in asked:
                values[ref] = place.of(ref).run(inputs)
    return graph


def _scaled(place: Place, values: Tensor) -> Node:
    """A batch normalisation as shift + value * scale, by the statistics of the values (N, 1, C, ...) that it takes."""
    node = place.node
    weight, bias = (place.constant(given) for given in node.arguments[1:3])
    axes = [axis for axis in range(values.dim()) if axis != 2]
    variance, mean = (part[0] for part in torch.var_mean(values, axes, correction=0, keepdim=True))
    scale = (variance + node.arguments[-1]).rsqrt()
    scale = scale if weight is None else scale * weight.view(mean.shape[1:])
    shift = -mean * scale if bias is None else bias.view(mean.shape[1:]) - mean * scale
    given = (shift, node.arguments[0], scale)
    return replace(node, function=torch.ops.aten.addcmul.default, arguments=given, keywords={}, shapes=node.shapes[:1])
