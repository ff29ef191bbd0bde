"""The audit of single inputs: how near each is to failing, which fail together, and whose labels look wrong."""
