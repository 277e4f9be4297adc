"""Import of other projects' checkpoints, and export to portable formats."""

from rmpe_jax.interop.alphapose import load_alphapose

__all__ = ["load_alphapose"]
