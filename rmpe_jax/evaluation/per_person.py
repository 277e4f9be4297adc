"""How well each annotated person was found, for showing the best and the worst."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.evaluation.protocol import PersonBoxes, boxes_of, model_joints
from rmpe_jax.ops.oks import oks
from rmpe_jax.skeletons import Skeleton


@dataclasses.dataclass(frozen=True)
class ScoredPeople:
    """Annotated people (no crowds, at least one labelled joint) and how well they were found.

    Attributes:
      picture_index: (g,) index into `PoseDataset.pictures`.
      person_index: (g,) index into the picture's people.
      box_index: (g,) index of the best pose found for the person, -1 if the picture has none.
      oks: (g,) that pose's OKS, 0 if there is none.
    """

    picture_index: Int[np.ndarray, " g"]
    person_index: Int[np.ndarray, " g"]
    box_index: Int[np.ndarray, " g"]
    oks: Float[np.ndarray, " g"]

    def __len__(self) -> int:
        return len(self.oks)


def score_people(
    dataset: PoseDataset,
    person_boxes: PersonBoxes,
    keypoints: Float[np.ndarray, "m j 2"],
    model_skeleton: Skeleton,
) -> ScoredPeople:
    """OKS of every annotated person's pose, in any data set.

    With ground-truth boxes a person's pose is the one found on the person's own box, with a
    detector's boxes the most similar one in the picture. Arguments as in `protocol.evaluate`.
    """
    poses = keypoints[:, model_joints(model_skeleton, dataset.skeleton)]
    people = boxes_of(dataset, "gt")
    best = [
        _best_pose(dataset, person_boxes, poses, i, person)
        for i, person in zip(people.picture_index, people.person_index, strict=True)
    ]
    box_index, scores = np.array(best).reshape(-1, 2).T
    return ScoredPeople(people.picture_index, people.person_index, box_index.astype(int), scores)


def _best_pose(
    dataset: PoseDataset, person_boxes: PersonBoxes, poses: np.ndarray, picture: int, person: int
) -> tuple[int, float]:
    of_person = np.isin(person_boxes.person_index, (-1, person))
    candidates = np.flatnonzero((person_boxes.picture_index == picture) & of_person)
    if not len(candidates):
        return -1, 0.0
    annotated, one = dataset.pictures[picture], slice(person, person + 1)
    similarity = oks(
        poses[candidates].astype(np.float64),
        annotated.keypoints[one],
        annotated.visibility[one],
        annotated.area[one],
        dataset.skeleton.sigmas,
    )[:, 0]
    similarity = np.nan_to_num(similarity)
    return int(candidates[similarity.argmax()]), float(similarity.max())
