"""Trained networks on disk: model files and the checkpoints of a run."""
