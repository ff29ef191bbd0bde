"""LADDER: adversarial training along directions of a latent space."""
