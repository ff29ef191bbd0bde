"""adv-KIP: a small training set that is learned to be robust."""
