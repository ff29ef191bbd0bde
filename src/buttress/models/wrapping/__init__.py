"""Modules around a network: normalisation, choice of outputs, optional methods."""
