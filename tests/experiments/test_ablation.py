"""The ablation: which trainings and rows there are, the table from scores, and all of it once."""

import json
import pathlib
import runpy

import cv2
import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.config import parse_config
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation import coco_ap
from rmpe_jax.evaluation.coco import coco_content
from rmpe_jax.experiments.ablation.report import markdown, read_lines, write_report
from rmpe_jax.experiments.ablation.rows import FULL, ROWS, rows_of, trainings_of
from rmpe_jax.experiments.ablation.run import load_ablation, row_path, run_seed
from rmpe_jax.experiments.ablation.trainings import Training, stages
from rmpe_jax.experiments.ablation.views import misplaced, view_corners, views_sheet
from rmpe_jax.model_io.pose_model import load_pose_model

REPO = pathlib.Path(__file__).parents[2]


def tiny(folder, trainings=("atomic_sstn_parallel", "none")):
    config = runpy.run_path(str(REPO / "configs/ablation_synthetic.py"))["get_config"](str(folder))
    config.total_steps, config.batch_size = 2, 4
    config.log_every = config.checkpoint_every = 2
    config.model.input_size = (32, 32)
    with config.unlocked():
        config.ablation.second.total_steps = 2
        config.ablation.scenes = {"train": (0, 50), "fit": (100, 4), "val": (200, 4)}
        config.ablation.nms_steps = 2
        config.ablation.trainings = trainings
    return config


def test_rows_are_table_3():
    assert len({row.name for row in ROWS}) == len(ROWS) == 14
    assert ROWS[0].training == FULL
    assert len(trainings_of(ROWS)) == 7
    paper = {row.name: row.paper for row in ROWS if row.paper}
    assert paper["full"] - paper["no_sstn"] == pytest.approx(2.6)
    assert paper["full"] - paper["pgpg_none"] == pytest.approx(7.8)


def test_rows_of_some_trainings():
    rows = rows_of(("none",))
    assert [row.name for row in rows] == ["two_step"]
    assert rows_of(()) == ROWS


def test_second_stages_differ_in_what_is_ablated_alone(tmp_path):
    config = tiny(tmp_path)
    configs = {}
    for training in trainings_of(ROWS):
        (first, first_dir), (second, _) = stages(config, training, 3, tmp_path)
        parse_config(first)
        parse_config(second)
        assert first.data.proposals == "none"
        assert second.model.init_from == str(first_dir)
        assert first.seed == second.seed == 3
        configs[training.name] = second.to_dict()
    reference = configs["none"]
    for name, content in configs.items():
        for key, value in content.items():
            if key not in ("sstn", "data"):
                assert value == reference[key], (name, key)
    assert configs["atomic_sstn"]["sstn"]["parallel"] == ""
    assert configs["atomic_sstn_parallel"]["sstn"]["parallel"] == "tinypose_xs"
    assert not configs["atomic"]["sstn"]["enabled"]


def test_a_finished_run_is_the_first_stage(tmp_path):
    config = tiny(tmp_path)
    config.ablation.first = "elsewhere"
    ((second, workdir),) = stages(config, Training("jitter", True, True), 0, tmp_path)
    assert second.model.init_from == "elsewhere"
    assert workdir == tmp_path / "seed0/jitter_sstn_parallel"


def test_the_table_of_scores(tmp_path):
    config = tiny(tmp_path, ())
    values = {0: (0.5, 0.4), 1: (0.6, 0.56), 2: (0.9, None)}
    for seed, pair in values.items():
        for row, value in zip(ROWS[:2], pair, strict=True):
            path = row_path(tmp_path, seed, "scenes", row)
            path.parent.mkdir(parents=True, exist_ok=True)
            if value is not None:
                path.write_text(json.dumps({"AP": value, "AP50": 1.0}))
    lines = read_lines(config, tmp_path, "scenes")
    np.testing.assert_allclose(lines[0].values, [50, 60, 90])
    np.testing.assert_allclose(lines[1].deltas, [-10, -4])
    last = markdown(lines).splitlines()[-1]
    assert "| 48.0 ± 11.3 | -7.0 ± 4.2 | 2 | 78.2 | -2.6 |" in last
    write_report(config, tmp_path)
    assert json.loads((tmp_path / "table.json").read_text())["scenes"][1]["row"] == "no_sstn"


def test_any_data_set_as_coco_ground_truth(shared_data):
    dataset = open_dataset(f"mpii:{shared_data}/mpii:valid")
    content = coco_content(dataset)
    results = [a | {"score": 1.0} for a in content["annotations"]]
    assert len(results) == 507
    assert coco_ap(content, results, dataset.skeleton.oks_sigmas)["AP"] == pytest.approx(1)


def test_corners_of_views():
    theta = np.array([[[0.5, 0, 0.5], [0, 1, 0]]], np.float32)
    corners = np.asarray(view_corners(theta, (11, 21)))
    np.testing.assert_allclose(corners[0], [[10, 0], [20, 0], [20, 10], [10, 10]], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(): return {}", "it has no config.ablation"),
        ("", "it has no function get_config"),
    ],
)
def test_a_config_that_is_none(tmp_path, capsys, text, says):
    (tmp_path / "c.py").write_text(text)
    assert cli.main(["ablate", "--config", str(tmp_path / "c.py"), "--workdir", "x"]) == 1
    assert says in capsys.readouterr().err


def test_a_wrong_config_is_found_before_anything_is_trained(tmp_path):
    (tmp_path / "c.py").write_text(
        f"import runpy\n"
        f"def get_config():\n"
        f"    c = runpy.run_path({str(REPO / 'configs/ablation_synthetic.py')!r})['get_config']()\n"
        f"    c.ablation.second.sstn.localization = 'smal'\n"
        f"    return c\n"
    )
    with pytest.raises(UserError, match="did you mean 'small'"):
        load_ablation(str(tmp_path / "c.py"))


@pytest.mark.slow
def test_all_of_it_and_again(tmp_path, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    config, out = tiny(tmp_path / "scenes"), tmp_path / "out"
    run_seed(config, out, 0)
    table = write_report(config, out)
    assert table.count("\n| ") == 1 + len(rows_of(tuple(config.ablation.trainings)))
    for name in ("bars_scenes.png", "theta.png"):
        assert min(cv2.imread(str(out / name)).shape[:2]) > 100
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    capsys.readouterr()
    run_seed(config, out, 0)
    assert "step" not in capsys.readouterr().err
    assert written == {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}

    (_, (_, workdir)) = stages(config, FULL, 0, out)
    model = load_pose_model(workdir)
    val = open_dataset(config.ablation.sets.scenes.data)
    items, people = misplaced(val, config.ablation.sets.scenes.boxes, 2)
    assert len(items) == len(people) > 0
    assert views_sheet(model, items).ndim == 3
