"""The ablation: its trainings and rows, the table from scores, and a complete tiny run."""

import dataclasses
import json
import pathlib
import re
import runpy

import bright
import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax import cli
from rmpe_jax.config import parse_config
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation import coco_ap
from rmpe_jax.evaluation.bootstrap import RankedPoses, image_resamples, resampled_ap
from rmpe_jax.evaluation.boxes import DatasetBoxes
from rmpe_jax.evaluation.coco import coco_content
from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.experiments.ablation import run
from rmpe_jax.experiments.ablation.config import (
    AblationConfig,
    EvaluationSet,
    parse_ablation,
    require_same_settings,
)
from rmpe_jax.experiments.ablation.oracle import oracle_poses, well_placed_boxes
from rmpe_jax.experiments.ablation.ranking import RANKINGS, rank, ranking_table
from rmpe_jax.experiments.ablation.report import (
    Score,
    compare,
    markdown,
    read_scores,
    write_report,
)
from rmpe_jax.experiments.ablation.rows import (
    FULL,
    ROWS,
    SSTN_ROWS,
    select_rows,
    unique_trainings,
)
from rmpe_jax.experiments.ablation.run import load_ablation, prepare_data, row_path, run_seed
from rmpe_jax.experiments.ablation.trainings import Training, jitter_path, stages
from rmpe_jax.experiments.ablation.views import misplaced_boxes, view_corners, views_sheet
from rmpe_jax.experiments.scenes import draw_scenes
from rmpe_jax.files import write_json
from rmpe_jax.lock import FolderLock
from rmpe_jax.model_io.pose_model import load_pose_model

REPO = pathlib.Path(__file__).parents[2]
EMPTY = "import ml_collections\nget_config = ml_collections.ConfigDict"
WITHOUT_SETS = f"""
import runpy
def get_config():
    config = runpy.run_path({str(REPO / "configs/ablation_synthetic.py")!r})["get_config"]()
    with config.unlocked():
        del config.ablation["sets"]
    return config
"""


TINY = ("atomic_sstn_parallel", "atomic", "none")


def tiny(folder, trainings=TINY) -> AblationConfig:
    """The ablation on synthetic scenes with two steps per stage and few scenes."""
    config = runpy.run_path(str(REPO / "configs/ablation_synthetic.py"))["get_config"](str(folder))
    config.total_steps, config.batch_size = 2, 4
    config.log_every = config.checkpoint_every = 2
    config.model.input_size = (32, 32)
    with config.unlocked():
        config.ablation.second.total_steps = 2
        config.ablation.localization.total_steps = 2
        config.ablation.localization.batch_size = 4
        config.ablation.scenes = {"train": (0, 50), "fit": (100, 4), "val": (200, 4)}
        config.ablation.nms_steps = 2
        config.ablation.trainings = trainings
    return parse_ablation(config)


def test_rows_are_table_3():
    assert len({row.name for row in ROWS}) == len(ROWS) == 27
    assert ROWS[0].training == FULL
    assert len(unique_trainings(ROWS)) == 13
    assert {row.name for row in ROWS if row.name in SSTN_ROWS} == set(SSTN_ROWS)
    paper = {row.name: row.paper_map for row in ROWS if row.paper_map}
    assert paper["full"] - paper["no_sstn"] == pytest.approx(2.6)
    assert paper["full"] - paper["pgpg_none"] == pytest.approx(7.8)


def test_rows_can_be_selected_by_training():
    rows = select_rows(("none",))
    names = ["no_sstn_no_pgpg", "oracle_own", "oracle_own_context", "two_step"]
    assert [row.name for row in rows] == names
    assert select_rows(()) == ROWS


def test_second_stages_differ_only_in_the_ablated_parts(tmp_path):
    ablation = tiny(tmp_path)
    configs = {}
    for training in unique_trainings(ROWS):
        (first, first_dir), *alone, (second, _) = stages(ablation, training, 3, tmp_path)
        parse_config(first)
        parse_config(second)
        assert first.data.proposals == "none"
        assert first.seed == second.seed == 3
        assert len(alone) == training.sstn
        for stage, workdir in alone:
            run = parse_config(stage)
            assert run.optim.frozen == "^sppe/"
            assert run.sstn.guidance == training.guidance
            assert run.sstn.localization_warmup == 50
            assert stage.model.init_from == str(first_dir)
            first_dir = workdir
        assert second.model.init_from == str(first_dir)
        second.model.init_from = "before"
        configs[training.name] = second.to_dict()
    reference = configs["none"]
    for name, content in configs.items():
        if name == "atomic_sstn_parallel_differences_context":
            larger = content["model"].pop("input_size"), content["data"]["padding"]
            assert larger == ((48, 48), pytest.approx(1.5 * 1.3))
            assert content["sstn"]["context"] == 1.5
            content["model"]["input_size"] = reference["model"]["input_size"]
        for key, value in content.items():
            if key not in ("sstn", "data"):
                assert value == reference[key], (name, key)
    assert configs["atomic_sstn"]["sstn"]["parallel"] == ""
    assert configs["atomic_sstn_parallel"]["sstn"]["parallel"] == "tinypose_xs"
    assert not configs["atomic"]["sstn"]["enabled"]
    assert configs["atomic_sstn_differences"]["sstn"]["guidance"] == "differences"
    assert configs["atomic_sstn_differences"]["sstn"]["context"] == 1
    jitter = Training("jitter", True, True)
    write_json(jitter_path(tmp_path), {"strength": 0.5})
    assert stages(ablation, jitter, 3, tmp_path)[-1][0].data.jitter_strength == 0.5


def test_without_localization_stages(tmp_path):
    ablation = dataclasses.replace(tiny(tmp_path), localization={})
    (_, first), (second, _) = stages(ablation, FULL, 0, tmp_path)
    assert second.model.init_from == str(first)


def test_a_teacher_of_its_own(tmp_path):
    """It is trained as the SPPE is, and only for trainings with a parallel SPPE."""
    teacher = {"model": {"name": "tinypose_s"}}
    ablation = dataclasses.replace(tiny(tmp_path), teacher=teacher)
    (first, _), (own, workdir), *later = stages(ablation, FULL, 0, tmp_path)
    assert own.model.name == "tinypose_s"
    own.model.name = first.model.name
    assert own.to_dict() == first.to_dict()
    for stage, _ in later:
        run = parse_config(stage)
        assert run.model.name == "tinypose_xs"
        assert (run.sstn.parallel, run.sstn.parallel_from) == ("tinypose_s", str(workdir))
    others = stages(ablation, Training("atomic", True, False), 0, tmp_path)
    assert workdir not in [other for _, other in others]
    assert others[-1][0].sstn.parallel_from == ""


def test_the_papers_loss_and_teacher(tmp_path):
    config = runpy.run_path(str(REPO / "configs/ablation_synthetic.py"))["get_config"]("x,paper")
    ablation = parse_ablation(config)
    run = parse_config(stages(ablation, FULL, 0, tmp_path)[-1][0])
    assert run.codec.loss == "mse"
    assert run.model.name == "tinypose_s"
    assert run.sstn.parallel == "tinypose_xs"
    assert set(ablation.trainings) <= {training.name for training in unique_trainings(ROWS)}


def test_pgpg_without_atoms_is_a_fit_of_its_own(tmp_path):
    ablation = tiny(tmp_path)
    fits = [
        stages(ablation, Training(proposals, False, False), 0, tmp_path)[-1][0].data
        for proposals in ("atomic", "mixture")
    ]
    assert [data.proposals for data in fits] == ["atomic", "atomic"]
    files = [pathlib.Path(data.pgpg_model).relative_to(tmp_path) for data in fits]
    assert [str(file) for file in files] == ["pgpg/pgpg.npz", "pgpg/mixture/pgpg.npz"]


def test_a_finished_run_is_the_first_stage(tmp_path):
    ablation = dataclasses.replace(tiny(tmp_path), first="elsewhere", localization={})
    ((second, workdir),) = stages(ablation, Training("jitter", True, True), 0, tmp_path)
    assert second.model.init_from == "elsewhere"
    assert workdir == tmp_path / "seed0/jitter_sstn_parallel"


def test_the_table_of_scores(tmp_path):
    ablation = tiny(tmp_path, ())
    values = {0: (0.5, 0.4), 1: (0.6, 0.56), 2: (0.9, None)}
    for seed, pair in values.items():
        for row, value in zip(ROWS[:2], pair, strict=True):
            path = row_path(tmp_path, seed, "scenes", row)
            path.parent.mkdir(parents=True, exist_ok=True)
            if value is not None:
                path.write_text(json.dumps({"AP": value, "AP50": 1.0}))
    rows = compare(*read_scores(ablation, tmp_path, "scenes"), ROWS[0], ROWS)
    np.testing.assert_allclose(rows[0].values, [50, 60, 90])
    np.testing.assert_allclose(rows[1].deltas, [-10, -4])
    last = markdown(rows).splitlines()[-1]
    assert "| 48.0 ± 11.3 | -7.0 ± 4.2 | 2 | 78.2 | -2.6 |" in last
    write_report(ablation, tmp_path)
    assert json.loads((tmp_path / "table.json").read_text())["scenes"][1]["row"] == "no_sstn"


def test_intervals_of_a_difference_are_of_the_same_images(tmp_path, make_poses):
    """Two systems that err on the same images: AP varies with the images, the difference little."""
    scores = {}
    for row, is_right in zip(ROWS[:2], (0.6, 0.5), strict=True):
        for seed in (0, 1):
            poses = make_poses(is_right)
            draws = image_resamples(len(poses.people), 200, seed=0)
            scores.setdefault(row, {})[seed] = Score(
                100 * is_right, 100 * resampled_ap(poses, draws)
            )
    full, other = compare("AP", scores, ROWS[0], ROWS)
    assert full.interval[0] < full.values.mean() < full.interval[1]
    low, high = other.delta_interval
    assert -100 < low < high < 0
    assert high - low < full.interval[1] - full.interval[0]
    last = markdown([full, other]).splitlines()[-1]
    assert re.search(r"\| -10\.0 \[-\d+\.\d, -\d+\.\d\] \| 2 \| 78\.2 \| -2\.6 \|", last)


@pytest.fixture
def make_poses():
    """A function from a fraction to a system that finds the people of that part of 60 images."""

    def make(is_right):
        images = np.arange(60)
        hits = np.tile(images < 60 * is_right, (10, 1))
        return RankedPoses(images, hits, ~hits, np.ones(60, int))

    return make


def test_boxes_of_an_ideal_theta(tmp_path):
    """Of the person that a box overlaps by 0.3; other boxes stay."""
    draw_scenes(tmp_path, range(2))
    dataset = open_dataset(f"coco:{tmp_path}")
    person = dataset.images[1].bboxes[0]
    width = person[2] - person[0]
    # The IoU is (1 - 0.5) / (1 + 0.5) = 0.33 and (1 - 0.6) / (1 + 0.6) = 0.25.
    boxes = [person + np.array([shift, 0, shift, 0]) * width for shift in (0.5, 0.6)]
    boxes = np.stack([*boxes, person + 4000])
    found = DatasetBoxes(np.array([1, 1, 1]), boxes, np.ones(3), np.full(3, -1))
    placed = well_placed_boxes(dataset, found)
    np.testing.assert_array_equal(placed, [person, *boxes[1:]])


def test_any_dataset_as_coco_ground_truth(shared_data):
    dataset = open_dataset(f"mpii:{shared_data}/mpii:valid")
    content = coco_content(dataset)
    results = [a | {"score": 1.0} for a in content["annotations"]]
    assert len(results) == 507
    assert coco_ap(content, results, dataset.skeleton.oks_sigmas)["AP"] == pytest.approx(1)


def test_corners_of_views():
    theta = jnp.array([[[0.5, 0, 0.5], [0, 1, 0]]], jnp.float32)
    corners = np.asarray(view_corners(theta, (11, 21), (11, 21)))
    np.testing.assert_allclose(corners[0], [[10, 0], [20, 0], [20, 10], [10, 10]], atol=1e-5)
    corners = np.asarray(view_corners(theta, (11, 21), (5, 13)))
    np.testing.assert_allclose(corners[0], [[12, 3], [18, 3], [18, 7], [12, 7]], atol=1e-5)


def test_an_ideal_view_of_a_larger_crop_is_the_same_view(tmp_path, monkeypatch):
    """People's own boxes are well placed, so the view is the central window of the crop."""
    bright.register(monkeypatch.setattr)
    draw_scenes(tmp_path, range(2))
    found = []
    for context in (1.0, 2.0):
        out = tmp_path / str(context)
        oracle_poses(bright.pose_model(), f"coco:{tmp_path}", "gt", out, context)
        people = json.loads((out / "results.json").read_text())
        found.append([person["keypoints"] for person in people])
    assert len(found[0]) > 1
    np.testing.assert_allclose(found[1], found[0], atol=0.02)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def get_config(): return {}", "get_config does not return a ConfigDict"),
        (EMPTY, "it has no config.ablation"),
        ("", "it has no function get_config"),
        (WITHOUT_SETS, "config.ablation has no 'sets': add it; it must have seeds"),
    ],
)
def test_a_config_that_is_not_an_ablation(tmp_path, capsys, text, says):
    (tmp_path / "c.py").write_text(text)
    assert cli.main(["ablate", "--config", str(tmp_path / "c.py"), "--workdir", "x"]) == 1
    assert says in capsys.readouterr().err


def test_an_invalid_config_is_reported_before_training(tmp_path):
    (tmp_path / "c.py").write_text(
        f"import runpy\n"
        f"def get_config():\n"
        f"    c = runpy.run_path({str(REPO / 'configs/ablation_synthetic.py')!r})['get_config']()\n"
        f"    c.ablation.second.sstn.localization = 'smal'\n"
        f"    return c\n"
    )
    with pytest.raises(UserError, match="did you mean 'small'"):
        load_ablation(str(tmp_path / "c.py"))


def test_an_ablation_is_not_continued_with_other_settings(tmp_path, caplog):
    ablation = tiny("scenes")
    require_same_settings(dataclasses.replace(ablation, nms_steps=9), tmp_path)
    require_same_settings(ablation, tmp_path)  # there are no results of the other settings
    (tmp_path / "seed0").mkdir()
    before = (tmp_path / "settings.json").read_bytes()
    require_same_settings(dataclasses.replace(ablation, seeds=(7,), trainings=()), tmp_path)
    assert not caplog.messages
    other = ablation.first_stage.copy_and_resolve_references()
    other.log_every = 1
    require_same_settings(dataclasses.replace(ablation, first_stage=other), tmp_path)
    assert caplog.messages == ["config changed: log_every: 2 -> 1"]
    other.optim.learning_rate = 0.5
    decoded = ablation.first_stage.copy_and_resolve_references()
    decoded.codec.decode = "argmax"  # the same parameters, other scores
    differing = {
        r"codec.decode: '.*' -> 'argmax'": {"first_stage": decoded},
        r"optim.learning_rate: 0.002 -> 0.5": {"first_stage": other},
        r"ablation.nms_steps: 2 -> 3": {"nms_steps": 3},
        r"ablation.sets: {'scenes': {.*}} -> {}": {"sets": {}},
        r"ablation.second: .* -> {'seed': 3}": {"second": {"seed": 3}},
        r"ablation.scenes: .*'fit': \[100, 4\].* -> {'fit': \[0, 1\]}": {"scenes": {"fit": (0, 1)}},
    }
    for says, values in differing.items():
        with pytest.raises(UserError, match=f"has results of other settings .{says}.: use the"):
            require_same_settings(dataclasses.replace(ablation, **values), tmp_path)
    assert (tmp_path / "settings.json").read_bytes() == before
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="has no settings of an ablation"):
        require_same_settings(ablation, tmp_path)


def test_results_without_settings_are_told(tmp_path, caplog):
    (tmp_path / "seed0").mkdir()
    require_same_settings(tiny("scenes"), tmp_path)
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path} has results but no settings.json: they are taken for")
    assert (tmp_path / "settings.json").exists()


def test_a_wrong_path_is_found_before_anything_is_fitted(tmp_path, monkeypatch):
    ablation = dataclasses.replace(tiny(tmp_path), scenes={})
    nowhere = EvaluationSet("coco:nowhere:val2017", "boxes.json", "coco:nowhere:train2017", "gt")
    monkeypatch.setattr(run, "fit_from_files", lambda *_: pytest.fail("PGPG is fitted"))
    with pytest.raises(UserError, match="nowhere"):
        prepare_data(dataclasses.replace(ablation, sets={"nowhere": nowhere}), tmp_path)


def test_seeds_may_run_at_once(tmp_path, capsys, monkeypatch):
    """Each seed has one process; the table can be written at any time."""
    config, started = str(REPO / "configs/ablation_synthetic.py"), []

    def ablate(*seeds):
        arguments = ["ablate", "--config", config, "--workdir", str(tmp_path), "--seeds", *seeds]
        return cli.main(arguments)

    def run_one(ablation, folder, seed):
        started.append(seed)
        if seed == 0:
            assert ablate("0") == 1
            assert f"rmpe: {tmp_path / 'seed0'} is in use by proc" in capsys.readouterr().err
            assert ablate() == ablate("1") == 0

    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    monkeypatch.setattr(run, "prepare_data", lambda *_: None)
    monkeypatch.setattr(run, "run_seed", run_one)
    assert ablate("0") == 0
    assert started == [0, 1]
    assert not list(tmp_path.rglob(".lock"))


def test_seeds_wait_for_shared_files(tmp_path, monkeypatch):
    config = str(REPO / "configs/ablation_synthetic.py")
    other = FolderLock(tmp_path).__enter__()
    waits = []

    def release(seconds):
        waits.append(seconds)
        other.__exit__()

    monkeypatch.setattr("rmpe_jax.entry.use_compilation_cache", lambda: None)
    monkeypatch.setattr("rmpe_jax.lock.time.sleep", release)
    assert cli.main(["ablate", "--config", config, "--workdir", str(tmp_path), "--seeds"]) == 0
    assert len(waits) == 1


@pytest.mark.slow
def test_a_complete_run_and_its_repetition(tmp_path, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    ablation, out = tiny(tmp_path / "scenes"), tmp_path / "out"
    prepare_data(ablation, out)
    run_seed(ablation, out, 0)
    table = write_report(ablation, out)
    rows = select_rows(ablation.trainings)
    compared = 1 + sum(row.name in SSTN_ROWS for row in rows)
    assert table.count("\n| ") == 2 + len(rows) + compared
    strength = json.loads(jitter_path(out).read_text())["strength"]
    assert 0 < strength <= 1
    assert "[" in table
    for name in ("bars_scenes.png", "bars_scenes_sstn.png", "theta.png"):
        assert min(cv2.imread(str(out / name)).shape[:2]) > 100
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    capsys.readouterr()
    prepare_data(ablation, out)
    run_seed(ablation, out, 0)
    assert "step" not in capsys.readouterr().err
    assert written == {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}

    *_, (_, workdir) = stages(ablation, FULL, 0, out)
    model = load_pose_model(workdir)
    scenes = ablation.sets["scenes"]
    requests, people = misplaced_boxes(open_dataset(scenes.data), scenes.boxes, 2)
    assert len(requests) == len(people) > 0
    assert views_sheet(model, requests).ndim == 3


def test_people_ranked_by_joints_or_by_boxes_too():
    pose = {"keypoints": [1, 2, 0.5, 3, 4, 1.0], "bbox_score": 0.5, "score": 9.0}
    (by_joints,) = rank([pose], RANKINGS[0])
    (by_both,) = rank([pose], RANKINGS[1])
    assert (by_joints["score"], by_both["score"]) == (0.75, 0.375)
    assert pose["score"] == 9.0


def test_the_table_of_rankings(tmp_path):
    """Everybody's own pose, twice: with NMS that removes the copies, AP is 100."""
    ablation = tiny(tmp_path)
    draw_scenes(tmp_path / "val", range(200, 204))
    with pytest.raises(UserError, match="no poses of the whole system: run rmpe ablate first"):
        ranking_table(ablation, tmp_path / "out")
    poses = []
    for record in open_dataset(ablation.sets["scenes"].data).images:
        n = len(record.bboxes)
        joint_scores = np.where(record.visibility > 0, 0.9, 0.0)
        scores = np.full(n, 0.9)
        people = record.keypoints, joint_scores, scores, record.bboxes, scores
        poses += 2 * coco_results([record.image_id] * n, *people)
    file = run.poses_path(tmp_path / "out", 0, FULL, "scenes", "detector")
    write_json(file, poses)
    rows = [line.split(" | ") for line in ranking_table(ablation, tmp_path / "out").splitlines()]
    assert rows[0] == ["| eliminated", RANKINGS[0], "Δ", RANKINGS[1], "Δ |"]
    assert {row[0]: row[2] for row in rows[2:]}["| by NMS by OKS"] == "+0.0 [+0.0, +0.0]"
    ap = {row[0]: row[1] for row in rows[2:]}
    assert not ap["| nothing"].startswith("100.0")
    assert ap["| by pose NMS, preset rmpe"] == "100.0 [100.0, 100.0]"
    assert ap["| by NMS by OKS"] == "100.0 [100.0, 100.0]"
