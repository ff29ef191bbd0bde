"""The audit of the loss around inputs, its directions and its measures."""
