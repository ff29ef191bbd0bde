"""Intervals of all values of a network, and linear bounds of its outputs."""
