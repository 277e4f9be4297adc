"""Import of other projects' checkpoints, and export to portable formats."""

from rmpe_jax.interop.alphapose import load_alphapose
from rmpe_jax.interop.mmpose import load_mmpose
from rmpe_jax.interop.vitpose import load_vitpose

__all__ = ["load_alphapose", "load_mmpose", "load_vitpose"]
