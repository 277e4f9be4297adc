"""Checkpoints of other projects in, portable programs out."""
