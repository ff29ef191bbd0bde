"""Attacks whose perturbation is no norm ball: styles of a generator, latent steps, image edits."""
