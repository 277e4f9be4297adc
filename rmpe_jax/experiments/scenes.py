"""Synthetic scenes for the experiments."""

import pathlib

from rmpe_jax.data import synthetic
from rmpe_jax.progress import progress


def draw_scenes(folder: pathlib.Path, seeds: range) -> None:
    """Writes the scenes of these seeds in COCO's format, unless the folder already has scenes."""
    if (folder / "annotations/person_keypoints.json").exists():
        return
    counted = progress(iter(range(len(seeds))), len(seeds), f"scenes drawn to {folder}")
    synthetic.write_coco_folder(folder, seeds, progress=lambda _: next(counted, None))
    next(counted, None)
