"""Boxes against brute force; affines against OpenCV and NumPy; NumPy and JAX alike."""

import functools
import math

import cv2
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.extra import numpy as hnp

from rmpe_jax.ops import geometry

few = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-4)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def homogeneous(affine):
    return np.vstack([affine.astype(float), [0, 0, 1]])


# Boxes of whole pixels, some of no area, some turned inside out.
integer_boxes = hnp.arrays(np.float32, (3, 4), elements=st.integers(0, 8).map(float))


def covered_pixels(bbox):
    x1, y1, x2, y2 = bbox.astype(int)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


@hypothesis.given(integer_boxes, integer_boxes)
@few
def test_areas_and_overlaps_are_counts_of_pixels(a, b):
    sets_a, sets_b = ([covered_pixels(bbox) for bbox in boxes] for boxes in (a, b))
    np.testing.assert_array_equal(geometry.box_area(a), [len(s) for s in sets_a])
    expected = [[len(s & t) / max(len(s | t), 1) for t in sets_b] for s in sets_a]
    np.testing.assert_allclose(geometry.box_iou(a, b), expected, atol=1e-6)


def test_box_iou_takes_leading_dimensions_and_unequal_counts(rng):
    a, b = rng.uniform(0, 9, (2, 3, 5, 4)), rng.uniform(0, 9, (2, 3, 2, 4))
    iou = geometry.box_iou(a, b)
    assert iou.shape == (2, 3, 5, 2)
    np.testing.assert_array_equal(iou[1, 2], geometry.box_iou(a[1, 2], b[1, 2]))
    assert geometry.box_iou(a[0, 0, :0], b[0, 0]).shape == (0, 2)


def test_xywh_and_xyxy_are_inverse():
    bboxes = np.array([[1, 2, 4, 7], [5, 5, 5, 5]], np.float32)
    xywh = geometry.xywh_from_xyxy(bboxes)
    np.testing.assert_array_equal(xywh, [[1, 2, 3, 5], [5, 5, 0, 0]])
    np.testing.assert_array_equal(geometry.xyxy_from_xywh(xywh), bboxes)


@hypothesis.given(integer_boxes)
@few
def test_clipped_boxes_cover_what_lies_in_the_image(bboxes):
    image = np.array([0, 0, 5, 6], np.float32)
    shifted = bboxes - 2
    inside = [len(covered_pixels(b) & covered_pixels(image)) for b in shifted]
    np.testing.assert_array_equal(geometry.box_area(geometry.clip_boxes(shifted, (6, 5))), inside)


def test_keypoint_extent_is_of_the_visible_joints():
    keypoints = np.array([[2, 3], [6, 11], [99, np.nan]], np.float32)
    visible = np.array([1, 2, 0])
    np.testing.assert_array_equal(geometry.keypoint_extent(keypoints, visible), [2, 3, 6, 11])
    grown = geometry.keypoint_extent(keypoints, visible, margin=0.5)
    np.testing.assert_array_equal(grown, [0, -1, 8, 15])


@hypothesis.given(
    center=st.tuples(st.floats(-50, 700), st.floats(-50, 700)),
    size=st.tuples(st.floats(1, 600), st.floats(1, 600)),
    rotation=st.floats(-math.pi, math.pi),
    padding=st.floats(1, 2),
    input_size=st.sampled_from([(256, 192), (64, 64), (96, 128)]),
)
@few
def test_crop_is_opencvs_affine_through_three_points(center, size, rotation, padding, input_size):
    (center_x, center_y), (box_width, box_height), (height, width) = center, size, input_size
    bbox = np.array(
        [
            center_x - box_width / 2,
            center_y - box_height / 2,
            center_x + box_width / 2,
            center_y + box_height / 2,
        ]
    )
    # The box grown to the crop's aspect, then padded; its half sides turned with the crop.
    tall = max(box_height, box_width * height / width) * padding
    wide = tall * width / height
    right = wide / 2 * np.array([math.cos(rotation), math.sin(rotation)])
    down = tall / 2 * np.array([-math.sin(rotation), math.cos(rotation)])
    middle = np.array([center_x, center_y]) - 0.5
    image = np.array([middle, middle + right, middle + down], np.float32)
    crop = np.array([[width / 2, height / 2], [width, height / 2], [width / 2, height]]) - 0.5
    expected = cv2.getAffineTransform(crop.astype(np.float32), image)
    affine = geometry.image_from_crop(bbox, input_size, padding, rotation)
    assert affine.dtype == np.float32
    np.testing.assert_allclose(affine[:, :2], expected[:, :2], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(affine[:, 2], expected[:, 2], atol=2e-2)


def test_outer_edges_of_the_crop_are_those_of_the_box():
    bbox = np.array([10, 20, 106, 148], np.float32)  # of the crop's aspect
    affine = geometry.image_from_crop(bbox, (64, 48), padding=1.0)
    edges = geometry.transform_points(affine, np.array([[-0.5, -0.5], [47.5, 63.5]], np.float32))
    close(edges, bbox.reshape(2, 2) - 0.5)


def test_a_crop_of_scale_one_is_a_slice(rng):
    image = rng.uniform(0, 255, (90, 80, 3)).astype(np.float32)
    affine = geometry.image_from_crop(np.array([12, 9, 60, 73.0]), (64, 48), padding=1.0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    np.testing.assert_allclose(
        cv2.warpAffine(image, affine, (48, 64), flags=flags), image[9:73, 12:60], atol=1e-2
    )


def test_a_quarter_turn_turns_the_crop_clockwise_in_the_image():
    affine = geometry.image_from_crop(np.array([0, 0, 9, 9.0]), (9, 9), 1.0, math.pi / 2)
    top_left = geometry.transform_points(affine, np.zeros((1, 2), np.float32))
    close(top_left, [[8, 0]])


@pytest.mark.parametrize("bbox", [(5, 6, 5, 6), (5, 6, 5, 30), (9, 9, 2, 2)])
def test_boxes_of_no_area_still_give_a_crop_that_can_be_inverted(bbox):
    affine = geometry.image_from_crop(np.array(bbox, np.float32), (64, 48))
    middle = geometry.transform_points(affine, np.array([[23.5, 31.5]], np.float32))
    close(middle, [[(bbox[0] + bbox[2] - 1) / 2, (bbox[1] + bbox[3] - 1) / 2]])
    assert np.linalg.det(affine[:, :2]) > 0
    assert np.isfinite(geometry.invert(affine)).all()


@pytest.mark.parametrize("heatmap_size", [(64, 48), (32, 48), (256, 192), (1, 1)])
def test_heatmap_covers_the_crop_and_mirrors_with_it(heatmap_size):
    input_size = (256, 192)
    affine = geometry.heatmap_from_crop(input_size, heatmap_size)
    edges = np.array([[-0.5, -0.5], [191.5, 255.5]], np.float32)
    height, width = heatmap_size
    close(geometry.transform_points(affine, edges), [[-0.5, -0.5], [width - 0.5, height - 0.5]])
    points = np.array([[3, 7], [100.5, 200]], np.float32)
    mirrored = geometry.transform_points(affine, points * [-1, 1] + [191, 0])
    close(mirrored, geometry.transform_points(affine, points) * [-1, 1] + [width - 1, 0])


@hypothesis.given(
    hnp.arrays(np.float32, (2, 2, 3), elements=st.floats(-3, 3, width=32)),
    hnp.arrays(np.float32, (4, 2), elements=st.floats(-50, 50, width=32)),
)
@few
def test_affines_are_homogeneous_matrices(affines, points):
    outer, inner = affines
    composed = geometry.compose(outer, inner)
    close(composed, (homogeneous(outer) @ homogeneous(inner))[:2], atol=1e-3)
    expected = np.column_stack([points, np.ones(4)]) @ outer.astype(float).T
    close(geometry.transform_points(outer, points), expected, atol=1e-3)
    if abs(np.linalg.det(outer[:, :2].astype(float))) > 0.1:
        inverse = geometry.invert(outer)
        close(inverse, np.linalg.inv(homogeneous(outer))[:2], rtol=1e-3, atol=1e-3)
        back = geometry.transform_points(inverse, geometry.transform_points(outer, points))
        close(back, points, rtol=1e-3, atol=2e-2)
        close(geometry.compose(inverse, outer), np.eye(2, 3), atol=2e-3)


def test_the_way_from_heatmap_to_image_and_back_is_closed(rng):
    image_from_crop = geometry.image_from_crop(
        np.array([30, 40, 200, 500.0]), (256, 192), 1.25, 0.6
    )
    crop_from_heatmap = geometry.invert(geometry.heatmap_from_crop((256, 192), (64, 48)))
    image_from_heatmap = geometry.compose(image_from_crop, crop_from_heatmap)
    points = rng.uniform(0, 48, (17, 2)).astype(np.float32)
    there = geometry.transform_points(image_from_heatmap, points)
    in_crop = geometry.transform_points(crop_from_heatmap, points)
    close(there, geometry.transform_points(image_from_crop, in_crop), atol=1e-3)
    back = geometry.transform_points(geometry.invert(image_from_heatmap), there)
    close(back, points, atol=1e-3)


BOXES = np.array([[[1, 2, 4, 7], [9, 9, 3, 3]], [[0, 0, 9, 9], [2, 2, 2, 8]]], np.float32)
AFFINES = np.random.default_rng(3).normal(size=(2, 2, 3)).astype(np.float32)
POINTS = np.random.default_rng(4).normal(size=(2, 5, 2)).astype(np.float32)


ON_BOTH = {
    "xyxy_from_xywh": (geometry.xyxy_from_xywh, BOXES),
    "xywh_from_xyxy": (geometry.xywh_from_xyxy, BOXES),
    "box_area": (geometry.box_area, BOXES),
    "box_iou": (geometry.box_iou, BOXES, BOXES[:, ::-1]),
    "clip_boxes": (functools.partial(geometry.clip_boxes, size=(5, 6)), BOXES),
    "compose": (geometry.compose, AFFINES, AFFINES[::-1]),
    "invert": (geometry.invert, AFFINES),
    "transform_points": (geometry.transform_points, AFFINES, POINTS),
}


@pytest.mark.parametrize("name", ON_BOTH)
def test_jax_arrays_give_what_numpy_arrays_give(name):
    function, *arguments = ON_BOTH[name]
    expected = function(*arguments)
    assert isinstance(expected, np.ndarray)
    assert expected.dtype == np.float32
    on_device = [jnp.asarray(x) for x in arguments]
    for variant in (function, jax.jit(function), jax.vmap(function)):
        result = variant(*on_device)
        assert isinstance(result, jax.Array)
        close(result, expected)


def test_crops_of_many_boxes_are_those_of_each():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 600, (2, 3, 2)).astype(np.float32)
    bboxes = np.concatenate([corners, corners + rng.uniform(0, 300, (2, 3, 2))], -1, dtype="f")
    many = geometry.image_from_crop(bboxes, (256, 192), 1.25, 0.3)
    on_device = jax.jit(lambda b: geometry.image_from_crop(b, (256, 192), 1.25, 0.3))(bboxes)
    assert many.dtype == on_device.dtype == np.float32
    np.testing.assert_allclose(on_device, many, atol=1e-3)
    for at in np.ndindex(2, 3):
        one = geometry.image_from_crop(bboxes[at], (256, 192), 1.25, 0.3)
        np.testing.assert_array_equal(many[at], one)


@pytest.mark.parametrize("rotation", [0.0, 0.5])
def test_crops_of_unbiased_data_processing(rotation):
    """The grown box ends at the centers of the border pixels, whose coordinates are the edges'."""
    bbox, size = np.array([10, 20, 40, 60.0]), (64, 48)
    affine = geometry.image_from_crop(bbox, size, padding=1.5, rotation=rotation, udp=True)
    corners = np.array([[0, 0], [47, 63], [47, 0], [23.5, 31.5]])
    turn = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    half = 1.5 * np.array([30, 40]) / 2
    offsets = np.array([[-1, -1], [1, 1], [1, -1], [0, 0]]) * half
    expected = np.array([25, 40]) + offsets @ turn.T
    close(geometry.transform_points(affine, corners.astype(np.float32)), expected, atol=1e-4)
    spec = geometry.CropSpec(size, 1.5, udp=True)
    if not rotation:
        np.testing.assert_array_equal(spec.image_from_crop(bbox), affine)
