"""A small source of people, with elements as in `data.sources`."""

import cv2
import numpy as np

from rmpe_jax.skeletons import COCO


def random_image(seed: int, size: tuple[int, int] = (90, 120)) -> np.ndarray:
    """A smooth random image, uint8 RGB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def encode(image: np.ndarray, extension: str = ".png") -> bytes:
    return cv2.imencode(extension, image[..., ::-1])[1].tobytes()


class FakeSource:
    """`count` people, each in their own image; images in `corrupt` cannot be decoded."""

    def __init__(self, count: int, corrupt: tuple[int, ...] = ()):
        self.count = count
        self.corrupt = corrupt

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        assert 0 <= index < self.count
        rng = np.random.default_rng(index)
        visibility = rng.integers(0, 3, COCO.num_keypoints).astype(np.uint8)
        keypoints = rng.uniform(10, 80, (COCO.num_keypoints, 2)).astype(np.float32)
        keypoints[visibility == 0] = np.nan
        return {
            "encoded": b"not an image" if index in self.corrupt else encode(random_image(index)),
            "name": f"{index}.png",
            "keypoints": keypoints,
            "visibility": visibility,
            "annotated": np.ones(COCO.num_keypoints, bool),
            "bbox": np.array([20, 10, 80, 80], np.float32) + rng.uniform(-9, 9, 4).astype("f4"),
            "person_id": 1000 + index,
            "image_id": index,
        }
