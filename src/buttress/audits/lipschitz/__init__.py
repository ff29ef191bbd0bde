"""Lipschitz constants of blocks."""
