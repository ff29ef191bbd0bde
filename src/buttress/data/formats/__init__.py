"""Downloading, finding and decoding the published files of data sets."""
