"""Training on crops that are sampled on the device, from people's canvases."""

import pytest
from toy import metrics_of

from rmpe_jax.training.loop import train


def losses(config, workdir) -> list[float]:
    train(config, workdir)
    return [line["train/loss"] for line in metrics_of(workdir) if "train/loss" in line]


def test_the_loss_is_nearly_that_of_crops_from_files(config, tmp_path):
    config.augmentation.cut_prob = 0.3
    from_files = losses(config, tmp_path / "files")
    config.data.resident = True
    resident = losses(config, tmp_path / "resident")
    assert len(resident) == 4
    assert resident == pytest.approx(from_files, rel=0.05)
    assert resident != from_files


def test_an_interrupted_run_gives_the_same_losses(config, tmp_path):
    config.data.resident = True
    config.augmentation.max_coarseness = 3.0
    whole = losses(config, tmp_path / "whole")
    config.total_steps = 2
    losses(config, tmp_path / "parts")
    config.total_steps = 4
    assert losses(config, tmp_path / "parts") == whole


@pytest.mark.slow
def test_it_works_with_the_spatial_transformer(config, tmp_path):
    config.data.resident = True
    config.sstn.enabled = True
    config.total_steps = 1
    assert len(losses(config, tmp_path)) == 1
