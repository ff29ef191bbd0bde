"""What a network gives away of its training data, and how that goes with adversarial training."""
