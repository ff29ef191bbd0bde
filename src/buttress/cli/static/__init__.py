"""What the package's source files say of options and names, read without importing them: help needs no torch."""
