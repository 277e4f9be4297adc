"""The budget curve: what a localization network learns from more crops."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("sklearn")

from test_ablation import tiny

from rmpe_jax.errors import UserError
from rmpe_jax.experiments.ablation.budget import (
    PLACEMENT_WEIGHT,
    WAYS,
    Point,
    budget_stage,
    budget_table,
    draw_views,
    measure,
    plot_points,
    read_points,
)
from rmpe_jax.experiments.ablation.run import prepare_data


def point(crops: int, ap: float, placement: float = np.nan) -> Point:
    return Point(crops, ap, np.array([ap - 1, ap, ap + 1]), placement, placement)


def test_the_table_has_means_over_seeds():
    points = {
        ("without", 0): {0: point(0, 10.0), 1: point(0, 12.0)},
        ("differences", 5000): {1: point(5000, 11.0, 0.25)},
        ("autodiff", 20000): {0: point(20000, 9.0, 0.5), 1: point(20000, 10.0, 0.25)},
    }
    rows = [line.split(" | ") for line in budget_table(points).splitlines()]
    assert [row[0] for row in rows[2:]] == [
        "| without SSTN", "| autodiff, 20,000 crops", "| differences, 5,000 crops"
    ]  # fmt: skip
    assert rows[3][1].startswith("9.5 [")
    assert rows[3][2].startswith("-1.5 [")
    assert rows[3][3:] == ["0.375", "0.375", "2 |"]
    assert rows[2][2:] == ["", "", "", "2 |"]
    assert rows[4][2] == "-1.0 [-1.0, -1.0]"  # to seed 1 alone


def test_longer_trainings_continue_shorter_ones(tmp_path):
    ablation = tiny(tmp_path)
    short, long = (budget_stage(ablation, "differences", n, 1, tmp_path) for n in (5, 8))
    assert (short[0].total_steps, long[0].total_steps) == (2, 2)
    assert budget_stage(ablation, "differences", 9, 1, tmp_path)[0].total_steps == 3
    assert short[1] == long[1] == tmp_path / "budget/seed1/differences"
    assert short[0].optim.schedule == "constant"


def test_only_the_supervised_way_is_told_where_the_well_placed_crop_is(tmp_path):
    stages = {way: budget_stage(tiny(tmp_path), way, 8, 0, tmp_path)[0] for way in WAYS}
    assert {way: stage.sstn.guidance for way, stage in stages.items()} == {
        "autodiff": "autodiff", "differences": "differences", "supervised": "autodiff"
    }  # fmt: skip
    weights = [stage.sstn.placement_weight for stage in stages.values()]
    assert weights == [0.0, 0.0, PLACEMENT_WEIGHT]


@pytest.mark.slow
def test_points_are_measured_once(tmp_path):
    ablation, out = tiny(tmp_path / "scenes"), tmp_path / "out"
    prepare_data(ablation, out)
    measure(ablation, [4, 8], 0, out)
    files = sorted((out / "budget/seed0/points").glob("*.json"))
    assert [path.stem for path in files] == [
        "autodiff_4", "autodiff_8", "differences_4", "differences_8", "ideal_0",
        "supervised_4", "supervised_8", "without_0"
    ]  # fmt: skip
    content = json.loads(files[0].read_text())
    assert content["placement"] > 0
    assert content["parallel_loss"] > 0
    before = [path.stat().st_mtime_ns for path in files]
    measure(ablation, [4, 8], 0, out)
    assert before == [path.stat().st_mtime_ns for path in files]
    points = read_points(out)
    assert len(points) == 8
    assert points["without", 0][0].placement > 0
    pytest.importorskip("matplotlib")
    plot_points(points, out / "budget.png")
    assert (out / "budget.png").stat().st_size > 1000
    draw_views(ablation, 0, out / "budget/views.jpg")
    assert cv2.imread(str(out / "budget/views.jpg")).shape[0] > 3 * 64
    files[0].unlink()
    with pytest.raises(UserError, match=r"trained for 2 steps already, more than 1"):
        measure(ablation, [4], 0, out)
