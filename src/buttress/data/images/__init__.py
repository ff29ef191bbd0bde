"""Folders of images: which folder is which split, which class an image is of, and how it is decoded."""
