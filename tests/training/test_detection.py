"""The other task of the loop: a detector, from labels to checkpoints, a resumed run and a file."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import run_parts
from toy import joints_as_fractions, metrics_of, same

from rmpe_jax.codecs.boxes import NUM_MAPS, BoxCodec
from rmpe_jax.config import parse_config
from rmpe_jax.data.boxed_images import LabeledImages
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.files import write_json
from rmpe_jax.model_io.checkpoints import load_variables
from rmpe_jax.training.detection_task import detection_task, open_labeled_images
from rmpe_jax.training.loop import train
from rmpe_jax.training.tasks import open_datasets


@pytest.fixture
def detection(config) -> ml_collections.ConfigDict:
    config.model.task = "detection"
    config.detection.max_boxes = 16
    config.detection.test_size = (64, 64)
    return config


def labeled_images(config) -> LabeledImages:
    data = parse_config(config).data
    return open_labeled_images(data, open_datasets(data, None))


def first_batch(config) -> dict:
    """What a step uses of the first batch."""
    task = detection_task(parse_config(config))
    keys = (*task.objective.batch_keys, "corrupt")
    return {name: jnp.asarray(task.dataset[0][name]) for name in keys}


def test_the_network_has_the_maps_of_boxes(detection):
    model, codec = run_parts.network(detection)
    assert isinstance(codec, BoxCodec)
    assert codec.stride == 4
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert model.apply(variables, jnp.zeros((2, 64, 32, 3))).shape == (2, 16, 8, NUM_MAPS)


@pytest.mark.slow
def test_a_run_learns_boxes_and_goes_on_as_if_never_stopped(detection, demo, tmp_path, capsys):
    detection.data.evaluate = (f"coco:{demo}",)
    scores = train(detection, tmp_path / "whole")
    assert list(scores) == [f"eval/coco/{demo.name}/AP50", f"eval/coco/{demo.name}/AP"]
    assert "4 images, steps 0 to 4 of 4" in capsys.readouterr().err
    first = metrics_of(tmp_path / "whole")[0]
    assert first["train/loss"] == pytest.approx(
        first["train/heat_loss"] + first["train/bbox_loss"], rel=1e-4
    )
    assert "train/accuracy" not in first

    detection.total_steps = 2
    train(detection, tmp_path / "parts")
    detection.total_steps = 4
    train(detection, tmp_path / "parts")
    whole, parts = (load_variables(tmp_path / n / "checkpoints")[0] for n in ("whole", "parts"))
    assert same(whole, parts)


def test_steps_on_one_batch_lower_its_loss(detection):
    state, batch = run_parts.start(detection), first_batch(detection)
    assert float(batch["weights"].sum()) > 0
    step = jax.jit(run_parts.parts(detection).step)
    losses = []
    for _ in range(30):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]


def test_parts_of_a_batch_give_finite_losses(detection):
    detection.grad_accumulation = 2
    batch = first_batch(detection)
    batch["weights"] = jnp.zeros_like(batch["weights"])  # nobody in any picture
    _, metrics = jax.jit(run_parts.parts(detection).step)(run_parts.start(detection), batch)
    assert np.isfinite(metrics["loss"])
    assert float(metrics["bbox_loss"]) == 0


def test_soft_labels_by_data_set(detection, demo, tmp_path):
    """The detections are the people themselves, moved by nothing, and one more somewhere else."""
    dataset = open_dataset(f"coco:{demo}")
    boxes = load_boxes(dataset, "gt")
    first = dataset.images[0].image_id
    records = [
        {
            "image_id": dataset.images[index].image_id,
            "category_id": 1,
            "bbox": [float(v) for v in (*box[:2], *(box[2:] - box[:2]))],
            "score": 0.3,
        }
        for index, box in zip(boxes.image_index, boxes.bboxes, strict=True)
    ]
    bystander = {"image_id": first, "category_id": 1, "bbox": [0, 0, 8, 8], "score": 0.45}
    write_json(tmp_path / "found.json", [*records, bystander])
    detection.data.train = (f"coco:{demo}", f"coco:{demo}")
    detection.data.detections = ("", str(tmp_path / "found.json"))
    detection.data.repeats = (1, 2)
    pictures = labeled_images(detection)
    assert len(pictures) == 4 + 2 * 4
    people = [len(labels.bboxes) for labels in pictures.labels]
    assert people[4:] == [people[0] + 1, *people[1:4]]
    assert pictures.labels[4].weights.min() == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model.task": "boxes"}, "config.model.task='boxes' is unknown"),
        ({"model.task": "pose", "data.detections": ("a.json",)}, "config.data.detections"),
        ({"data.detections": ("a.json", "b.json")}, "config.data.detections"),
        ({"sstn.enabled": True}, "config.sstn.enabled=True is invalid"),
        ({"detection.max_boxes": 0}, "config.detection.max_boxes=0 is invalid"),
        ({"detection.scale": (2.0, 1.0)}, "config.detection.scale"),
        ({"detection.mosaic_prob": 1.5}, "config.detection.mosaic_prob=1.5 is invalid"),
        ({"detection.test_size": (0, 64)}, "config.detection.test_size"),
        ({"detection.stretch": -0.1}, "config.detection.stretch=-0.1 is invalid"),
    ],
)
def test_what_a_config_cannot_say(detection, changes, line):
    detection.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as error:
        parse_config(detection)
    assert line in str(error.value)


def test_suspicious_detections_are_refused(detection, demo, tmp_path):
    """Boxes in fractions of the images."""
    dataset = open_dataset(f"coco:{demo}")
    records = [
        {"image_id": i, "category_id": 1, "bbox": [0.1, 0.2, 0.3, 0.4], "score": 0.9}
        for i in dataset.image_ids
    ]
    write_json(tmp_path / "found.json", records)
    detection.data.detections = (str(tmp_path / "found.json"),)
    with pytest.raises(UserError) as error:
        labeled_images(detection)
    assert "found.json: 4 of 4 boxes do not fit their image: boxes in fractions" in str(error.value)
    assert str(error.value).endswith("or go on with config.data.max_suspicious=1.0")
    detection.data.max_suspicious = 1.0
    assert len(labeled_images(detection)) == 4


def test_only_boxes_are_inspected(detection, changed_demo):
    detection.data.train = (changed_demo(joints_as_fractions),)
    assert len(labeled_images(detection)) == 4

    def bbox_as_fractions(annotation) -> None:
        annotation["bbox"] = [v / 160 for v in annotation["bbox"]]

    detection.data.train = (changed_demo(bbox_as_fractions),)
    with pytest.raises(
        UserError, match=r"people have labels that do not fit .* boxes in fractions"
    ):
        labeled_images(detection)


def test_a_prepared_folder_cannot_be_used(detection):
    detection.data.train = ("prepared:somewhere",)
    with pytest.raises(UserError, match="'prepared:somewhere' is not a dataset"):
        labeled_images(detection)


def test_nothing_to_train_on(detection):
    detection.data.train = ()
    with pytest.raises(UserError, match="no dataset to train on"):
        labeled_images(detection)


@pytest.mark.slow
def test_a_run_of_poses_does_not_go_on_with_boxes(config, tmp_path):
    config.total_steps = 1
    train(config, tmp_path)
    config.model.task = "detection"
    config.total_steps = 2
    with pytest.raises(UserError, match=r"config\.model\.task='pose', the config says 'detection'"):
        train(config, tmp_path)
