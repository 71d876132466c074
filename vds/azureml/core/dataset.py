"""Datasets, by name."""


class Dataset:
    """Makes and finds datasets."""
