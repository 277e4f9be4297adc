"""The ceiling of a spatial transformer: poses in views whose theta is that of the well-placed crop.

Everything else is as with a trained STN. The view is sampled from the crop of the detector's box,
so it cannot show what the crop lacks, and points are mapped back by theta. The crop may be larger
than the view, as with `config.sstn.context`.
"""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rmpe_jax.codecs.heatmap import RgbImages
from rmpe_jax.data.eval_pipeline import CropRequest, eval_batches
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.evaluation.boxes import DatasetBoxes, load_boxes
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.evaluation.protocol import evaluate
from rmpe_jax.files import write_json
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.ops import geometry
from rmpe_jax.ops.spatial_transformer import affine_sample, theta_from_pixels
from rmpe_jax.pgpg.fit import MIN_IOU


def oracle_poses(
    model: PoseModel, data: str, boxes: str, out: pathlib.Path, context: float = 1.0
) -> None:
    """Writes `results.json`: the poses in all boxes, each with an ideal theta.

    Args:
      model: an SPPE without spatial transformer.
      data: the dataset, such as `coco:FOLDER:val2017`.
      boxes: a detections file.
      out: folder to write.
      context: sides of the crop in sides of the view, as `config.sstn.context`.

    Raises:
      UserError: data or boxes cannot be used.
    """
    dataset = open_dataset(data)
    loaded = load_boxes(dataset, boxes, skip_unknown=True)
    well_placed = well_placed_boxes(dataset, loaded)
    module, codec = model.build()
    view, skeleton = model.spec.crop, model.spec.skeleton
    crop = view.with_context(context)

    @jax.jit
    def predict(
        variables: Any,
        crops: RgbImages,
        image_from_crop: Float[Array, "b 2 3"],
        image_from_view: Float[Array, "b 2 3"],
    ) -> tuple[Float[Array, "b k 2"], Float[Array, "b k"]]:
        crop_from_view = geometry.compose(geometry.invert(image_from_crop), image_from_view)
        theta = theta_from_pixels(crop_from_view, view.input_size, crop.input_size)
        sample = functools.partial(affine_sample, output_size=view.input_size)
        views = jax.vmap(sample)(codec.inputs(crops), theta)
        keypoints, scores = codec.keypoints(codec.maps(module.apply(variables, views)))
        return geometry.transform_points(image_from_view, keypoints), scores

    keypoints = np.full((len(loaded), skeleton.num_keypoints, 2), np.nan, np.float32)
    scores = np.zeros((len(loaded), skeleton.num_keypoints), np.float32)
    requests = [
        CropRequest(dataset.images[image].path, bbox, index)
        for index, (image, bbox) in enumerate(zip(loaded.image_index, loaded.bboxes, strict=True))
    ]
    for batch in eval_batches(requests, crop=crop, batch_size=64):
        rows, valid = batch["index"], batch["valid"]
        image_from_view = jnp.asarray(view.image_from_crop(well_placed[rows]))
        affines = jnp.asarray(batch["image_from_crop"]), image_from_view
        found = predict(model.variables, jnp.asarray(batch["image"]), *affines)
        for target, values in zip((keypoints, scores), found, strict=True):
            target[rows[valid]] = np.asarray(values)[valid]
    predictions = PosePredictions(dataset, loaded, keypoints, scores, skeleton)
    write_json(out / "results.json", evaluate(predictions)[1])


def well_placed_boxes(dataset: PoseDataset, boxes: DatasetBoxes) -> Float[np.ndarray, "m 4"]:
    """For each box that of the person with the highest IoU, or itself if none reaches `MIN_IOU`.

    PGPG matches boxes with people in the same way.
    """
    placed = boxes.bboxes.copy()
    for row, (image, bbox) in enumerate(zip(boxes.image_index, boxes.bboxes, strict=True)):
        record = dataset.images[image]
        people = record.bboxes[~record.iscrowd]
        iou = geometry.box_iou(bbox[None], people)[0]
        if iou.max(initial=0) >= MIN_IOU:
            placed[row] = people[iou.argmax()]
    return placed
