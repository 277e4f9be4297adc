"""OKS of each annotated person's pose, to show the best and the worst."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.ops.oks import oks


@dataclasses.dataclass(frozen=True)
class ScoredPeople:
    """Annotated people (not crowds, with at least one labeled joint) and the OKS of their poses.

    Attributes:
      image_index: (g,) index into `PoseDataset.images`.
      person_index: (g,) index into the image's people.
      box_index: (g,) index of the best pose found for the person, -1 if the image has none.
      oks: (g,) that pose's OKS, 0 if there is none.
    """

    image_index: Int[np.ndarray, " g"]
    person_index: Int[np.ndarray, " g"]
    box_index: Int[np.ndarray, " g"]
    oks: Float[np.ndarray, " g"]

    def __len__(self) -> int:
        return len(self.oks)


def score_people(predictions: PosePredictions) -> ScoredPeople:
    """OKS of every annotated person's pose, in any dataset.

    With ground-truth boxes a person's pose is the one found in the person's own box; with a
    detector's boxes it is the most similar one in the image.
    """
    predictions = predictions.in_dataset_skeleton()
    people = load_boxes(predictions.dataset, "gt")
    best = [
        _best_pose(predictions, image, person)
        for image, person in zip(
            people.image_index.tolist(), people.person_index.tolist(), strict=True
        )
    ]
    box_index, scores = np.array(best).reshape(-1, 2).T
    return ScoredPeople(people.image_index, people.person_index, box_index.astype(int), scores)


def _best_pose(predictions: PosePredictions, image: int, person: int) -> tuple[int, float]:
    dataset, boxes = predictions.dataset, predictions.boxes
    of_person = np.isin(boxes.person_index, (-1, person))
    candidates = np.flatnonzero((boxes.image_index == image) & of_person)
    if not len(candidates):
        return -1, 0.0
    annotated, one = dataset.images[image], slice(person, person + 1)
    similarity = oks(
        predictions.keypoints[candidates].astype(np.float64),
        annotated.keypoints[one],
        annotated.visibility[one],
        annotated.area[one],
        dataset.skeleton.sigmas,
    )[:, 0]
    similarity = np.nan_to_num(similarity)
    return int(candidates[similarity.argmax()]), float(similarity.max())
