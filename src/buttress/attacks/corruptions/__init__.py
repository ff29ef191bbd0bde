"""Noises and common corruptions: perturbations without an adversary."""
