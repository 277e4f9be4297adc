"""PGPG, the pose-guided proposals generator: draws boxes as a detector would find them for a pose.

P17 is Fang et al., "RMPE: Regional Multi-Person Pose Estimation", ICCV 2017, section 3.3.
"""

from rmpe_jax.pgpg.fit import fit_pgpg
from rmpe_jax.pgpg.model import PgpgModel, load_pgpg, save_pgpg
from rmpe_jax.pgpg.sample import (
    NO_PROPOSALS,
    Proposals,
    jitter_boxes,
    jitter_strength,
    open_proposals,
    patch_boxes,
    sample_boxes,
)

__all__ = [
    "NO_PROPOSALS",
    "PgpgModel",
    "Proposals",
    "fit_pgpg",
    "jitter_boxes",
    "jitter_strength",
    "load_pgpg",
    "open_proposals",
    "patch_boxes",
    "sample_boxes",
    "save_pgpg",
]
