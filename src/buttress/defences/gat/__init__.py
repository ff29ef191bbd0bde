"""Generative adversarial training: attacks on the styles of a generator."""
