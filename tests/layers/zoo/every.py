"""All networks whose layers are computed by hand."""

from tests.layers.zoo import activations, aliases, axes, batches, names, parts, replacements, sequences

NETWORKS = {
    name: build
    for part in (sequences, axes, batches, replacements, names, aliases, activations, parts)
    for name, build in part.NETWORKS.items()
}
