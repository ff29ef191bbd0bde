"""Adversarial examples from files of others."""
