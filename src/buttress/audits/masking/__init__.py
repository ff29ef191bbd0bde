"""Can a robustness figure be trusted: checks for gradient masking."""
