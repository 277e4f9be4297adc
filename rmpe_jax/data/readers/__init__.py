"""Readers of the data sets' own annotation files."""
