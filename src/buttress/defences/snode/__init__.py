"""Training of standalone neural ODEs by conjugate gradients."""
