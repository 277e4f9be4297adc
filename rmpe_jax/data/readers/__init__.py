"""Readers of the original annotation files of datasets."""
