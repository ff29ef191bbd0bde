"""APART: perturbations that are learned along with the network."""
