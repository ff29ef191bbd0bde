"""Branch and bound: the region of an input in parts, by the sides of activations' corners."""
