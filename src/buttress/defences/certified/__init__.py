"""Certified training: networks whose robustness bounds can show."""
