"""Attacks that use outputs or decisions alone, without gradients."""
