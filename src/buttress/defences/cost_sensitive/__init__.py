"""Cost-sensitive training: some mistakes cost more than others."""
