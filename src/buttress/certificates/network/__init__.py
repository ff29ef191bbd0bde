"""A network as a graph of operations, as it runs."""
