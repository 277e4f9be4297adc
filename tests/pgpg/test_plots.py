import sys

import cv2
import numpy as np
import pytest
from boxed_people import people

from rmpe_jax.errors import UserError
from rmpe_jax.pgpg import plots
from rmpe_jax.pgpg.fit import Samples, atomic_poses, fit_mixtures
from rmpe_jax.pgpg.model import global_model, mixture_rows, offsets_from_boxes


@pytest.fixture(scope="module")
def fitted():
    poses, gt, det, _ = people(np.random.default_rng(0), 400)
    samples = Samples(poses, offsets_from_boxes(det, gt), np.arange(400))
    return fit_mixtures(samples, atomic_poses(poses, 3), 2), samples


def test_draws_atoms_and_offsets(fitted, tmp_path):
    pytest.importorskip("matplotlib")
    model, samples = fitted
    rows = mixture_rows(model, samples.poses)
    plots.draw_atoms(model, np.bincount(rows, minlength=4) / 400, tmp_path / "atoms.png")
    plots.draw_atoms(global_model(), np.ones(1), tmp_path / "none.png")
    plots.draw_offsets(model, rows, samples.offsets, tmp_path / "offsets.png", max_atoms=2)
    images = {path.stem: cv2.imread(str(path)) for path in tmp_path.iterdir()}
    assert len(images) == 3
    assert all(image.std() > 5 for name, image in images.items() if name != "none")


def test_marginals_are_densities_of_what_was_seen(fitted):
    model, _ = fitted
    x = np.linspace(-3, 3, 6001)
    for coordinate in range(4):
        density = plots.marginal_density(model, 0, coordinate, x)
        assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)
        mean = np.trapezoid(density * x, x)
        expected = model.weights[0] @ model.means[0, :, coordinate]
        assert mean == pytest.approx(expected, abs=1e-3)


def test_without_matplotlib(fitted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'rmpe_jax\[viz\]'"):
        plots.draw_atoms(fitted[0], np.zeros(4), tmp_path / "atoms.png")
