"""Attacks that run other attacks: suites, expectations, surrogates, several models."""
