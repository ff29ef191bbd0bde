"""Attacks that know how the network is made."""
