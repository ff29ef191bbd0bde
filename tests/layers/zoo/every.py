"""All networks whose layers are computed by hand."""

from tests.layers.zoo import activations, aliases, axes, batches, forms, names, parts, replacements, sequences

NETWORKS = {
    name: build
    for part in (sequences, axes, batches, replacements, names, aliases, activations, forms, parts)
    for name, build in part.NETWORKS.items()
}
