"""Checkpoints of other projects in, portable programs out."""

from rmpe_jax.interop.alphapose import load_alphapose

__all__ = ["load_alphapose"]
