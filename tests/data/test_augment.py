import dataclasses

import numpy as np
import pytest
import scipy.ndimage
from fake_source import random_image
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.data import augment
from rmpe_jax.data.augment import NO_AUGMENTATION, Augmentation
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import COCO

SIZE = (64, 48)
BOX = np.array([30, 20, 70, 85], np.float32)
EVERYTHING = Augmentation(
    flip_prob=0.5,
    rotation_degrees=40.0,
    rotation_prob=0.8,
    scale=0.3,
    translation=0.1,
    half_body_prob=0.5,
    color_gain=(0.6, 1.4),
)


def person(seed: int = 0, num_labeled: int = 17):
    rng = np.random.default_rng(seed)
    keypoints = rng.uniform(BOX[:2], BOX[2:], (17, 2)).astype(np.float32)
    visibility = np.zeros(17, np.uint8)
    visibility[rng.permutation(17)[:num_labeled]] = 2
    return keypoints, visibility


def draw(augmentation: Augmentation, seed: int = 0, padding: float = 1.25, who=None, proposal=None):
    keypoints, visibility = who or person()
    return augment.augment(
        np.random.default_rng(seed),
        augmentation,
        BOX,
        keypoints,
        visibility,
        skeleton=COCO,
        input_size=SIZE,
        padding=padding,
        proposal=proposal,
    )


def parts(plan: augment.CropPlan):
    """Scale (image pixels per crop pixel), angle in radians and center of a plan's crop."""
    affine = plan.image_from_crop
    if plan.flipped:
        affine = geometry.compose(affine, augment.mirror(SIZE[1]))
    middle = np.array([[(SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2]], np.float32)
    center = geometry.transform_points(affine, middle)[0]
    return np.hypot(*affine[:, 0]), np.arctan2(affine[1, 0], affine[0, 0]), center


def sample(image, image_from_crop, size=SIZE):
    """Bilinear sampling with zeros outside, by SciPy."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    points = np.stack([x.ravel(), y.ravel()], -1)
    x, y = (points @ image_from_crop[:, :2].T + image_from_crop[:, 2]).T
    channels = [
        scipy.ndimage.map_coordinates(
            image[..., c].astype(float), [y, x], order=1, mode="grid-constant"
        )
        for c in range(3)
    ]
    return np.stack(channels, -1).reshape(*size, 3)


@pytest.mark.parametrize("seed", range(6))
def test_crop_equals_scipy_sampling(seed):
    image = random_image(seed)
    affine = draw(EVERYTHING, seed).image_from_crop
    ours = augment.crop(image, affine, SIZE)
    assert ours.dtype == np.uint8
    assert ours.shape == (*SIZE, 3)
    # OpenCV 4 rounds coordinates to 1/32 pixel.
    np.testing.assert_allclose(ours, sample(image, affine), atol=4)


def test_crop_of_nothing_but_whole_pixels_is_a_slice():
    image = random_image(0)
    affine = np.array([[1, 0, 7], [0, 1, 5]], np.float32)
    np.testing.assert_array_equal(augment.crop(image, affine, (20, 30)), image[5:25, 7:37])


def test_crop_is_black_outside_the_image():
    image = np.full((10, 10, 3), 255, np.uint8)
    out = augment.crop(image, np.array([[1, 0, -20], [0, 1, 0]], np.float32), (10, 30))
    assert out[:, :20].max() == 0
    assert out[:, 20:].min() == 255


@pytest.mark.parametrize("spanned", [1.3, 2.0, 2.7, 3.5, 7.2])
def test_crop_of_a_ramp_shows_image_coordinates(spanned):
    """Detects shifts of half a pixel, at any reduction."""
    image = np.zeros((255, 255, 3), np.uint8)
    image[..., 0] = np.arange(255)
    image[..., 1] = np.arange(255)[:, None]
    cos, sin = spanned * np.cos(0.3), spanned * np.sin(0.3)
    affine = np.array([[cos, -sin, 60], [sin, cos, 20]], np.float32)
    height, width = (int(160 / spanned), int(120 / spanned))
    out, reverse = (
        augment.crop(i, affine, (height, width))[..., :2].astype(float)
        for i in (image, 254 - image)
    )
    out = (out + 254 - reverse) / 2  # cancels the rounding of halves
    y, x = np.mgrid[:height, :width].astype(np.float32)
    points = geometry.transform_points(affine, np.stack([x, y], -1).reshape(-1, 2))
    clear = ((points > 10) & (points < 244)).all(-1)
    assert clear.mean() > 0.5
    error = out.reshape(-1, 2)[clear] - points[clear]
    assert np.abs(error).max() < 1
    assert np.abs(error.mean(0)).max() < 0.1


def test_strong_reduction_averages_instead_of_skipping_pixels():
    image = np.random.default_rng(0).integers(0, 256, (201, 302, 3), np.uint8)
    out = augment.crop(image, np.array([[3, 0, 1], [0, 3, 1]], np.float32), (67, 100))
    expected = image[:201, :300].reshape(67, 3, 100, 3, 3).mean((1, 3))
    np.testing.assert_allclose(out, expected, atol=1)
    tiny = augment.crop(image[:2, :2], np.array([[9, 0, 0], [0, 9, 0]], np.float32), (4, 4))
    np.testing.assert_array_equal(tiny[0, 0], image[0, 0])


@pytest.mark.parametrize("seed", range(12))
def test_keypoints_follow_the_image(seed):
    """Dots drawn in the image appear in the crop at the moved keypoints."""
    points = np.array([[40, 40], [60, 35], [45, 70], [62, 66]], np.float32)
    keypoints = np.full((17, 2), np.nan, np.float32)
    used = [5, 6, 11, 16]
    keypoints[used] = points
    visibility = np.zeros(17, np.uint8)
    visibility[used] = 2
    plan = draw(EVERYTHING, seed, who=(keypoints, visibility))
    moved, moved_visibility = augment.move_keypoints(plan, keypoints, visibility, COCO.flip_indices)
    for joint, point in zip(used, points, strict=True):
        y, x = np.mgrid[:90, :120]
        dot = 255 * np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 2.0**2))
        image = np.repeat(dot[..., None], 3, -1).astype(np.uint8)
        seen = augment.crop(image, plan.image_from_crop, SIZE)[..., 0].astype(float)
        at = COCO.flip_indices[joint] if plan.flipped else joint
        assert moved_visibility[at] == 2
        if not (np.all(moved[at] > 8) and np.all(moved[at] < np.array(SIZE[::-1]) - 9)):
            continue  # too near the border for a centroid
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        found = np.array([(x * seen).sum(), (y * seen).sum()]) / seen.sum()
        np.testing.assert_allclose(found, moved[at], atol=0.1)
    assert np.all(moved[moved_visibility == 0] == 0)


def test_without_augmentation_the_crop_is_that_of_the_box():
    plan = draw(NO_AUGMENTATION)
    np.testing.assert_array_equal(plan.image_from_crop, geometry.image_from_crop(BOX, SIZE, 1.25))
    assert not plan.flipped
    np.testing.assert_array_equal(plan.color_gain, 1)


def test_flip_mirrors_pixels_and_exchanges_left_and_right():
    image = random_image(1)
    keypoints, visibility = person(num_labeled=12)
    flips = Augmentation(flip_prob=1.0, rotation_prob=0.0, scale=0.0)
    plain, mirrored = draw(NO_AUGMENTATION), draw(flips)
    assert mirrored.flipped
    np.testing.assert_allclose(
        augment.crop(image, mirrored.image_from_crop, SIZE).astype(int),
        augment.crop(image, plain.image_from_crop, SIZE)[:, ::-1].astype(int),
        atol=3,
    )
    before, seen = augment.move_keypoints(plain, keypoints, visibility, COCO.flip_indices)
    after, seen_after = augment.move_keypoints(mirrored, keypoints, visibility, COCO.flip_indices)
    left, right = COCO.index("left_wrist"), COCO.index("right_wrist")
    np.testing.assert_array_equal(seen_after[left], seen[right])
    np.testing.assert_array_equal(seen_after, seen[COCO.flip_indices])
    labeled = seen_after > 0
    expected = before[COCO.flip_indices] * [-1, 1] + [SIZE[1] - 1, 0]
    np.testing.assert_allclose(after[labeled], expected[labeled], atol=1e-4)


def test_ranges_and_rates_of_the_draws():
    a = Augmentation(
        flip_prob=0.3, rotation_degrees=20.0, rotation_prob=0.6, scale=0.25, translation=0.1
    )
    plans = [draw(a, seed) for seed in range(2000)]
    scales, angles, centers = (np.array(v) for v in zip(*map(parts, plans), strict=True))
    base = np.hypot(*geometry.image_from_crop(BOX, SIZE, 1.25)[:, 0])
    assert abs(np.mean([p.flipped for p in plans]) - 0.3) < 0.04
    assert scales.min() == pytest.approx(0.75 * base, rel=1e-4)
    assert scales.max() == pytest.approx(1.25 * base, rel=1e-4)
    # Clipping at one sigma puts 31.7 % of a normal's mass on the two ends.
    at_ends = np.isclose(scales, 0.75 * base) | np.isclose(scales, 1.25 * base)
    assert abs(at_ends.mean() - 0.317) < 0.04
    assert np.abs(angles).max() == pytest.approx(np.radians(40), rel=1e-4)
    assert abs(np.mean(np.abs(angles) > 1e-6) - 0.6) < 0.04
    offset = centers - (BOX[:2] + BOX[2:] - 1) / 2
    assert np.all(np.abs(offset) <= 0.1 * (BOX[2:] - BOX[:2]) + 1e-3)
    assert np.all(np.abs(offset).max(0) > 0.09 * (BOX[2:] - BOX[:2]))


def test_a_proposal_moves_the_crop_and_not_the_well_placed_one():
    proposal = BOX + np.array([10, -5, 20, 5], np.float32)
    plan = draw(NO_AUGMENTATION, proposal=proposal)
    crop_of = geometry.image_from_crop(proposal, SIZE, 1.25)
    np.testing.assert_array_equal(plan.image_from_crop, crop_of)
    corners = np.array([[0, 0], [47, 0], [0, 63]], np.float32)
    by_image = geometry.transform_points(
        geometry.invert(geometry.image_from_crop(BOX, SIZE, 1.25)),
        geometry.transform_points(crop_of, corners),
    )
    found = geometry.transform_points(plan.centered_from_crop, corners)
    np.testing.assert_allclose(found, by_image, atol=1e-3)


@pytest.mark.parametrize("seed", range(8))
def test_the_well_placed_crop_undoes_shift_and_scale_alone(seed):
    """It is the crop of the box itself, rotated and mirrored alike, so theta has no rotation."""
    a = dataclasses.replace(EVERYTHING, half_body_prob=0.0)
    plan = draw(a, seed)
    image_from_centered = geometry.compose(
        plan.image_from_crop, geometry.invert(plan.centered_from_crop)
    )
    scale, angle, center = parts(plan._replace(image_from_crop=image_from_centered))
    base = np.hypot(*geometry.image_from_crop(BOX, SIZE, 1.25)[:, 0])
    assert scale == pytest.approx(base, rel=1e-4)
    assert angle == pytest.approx(parts(plan)[1], abs=1e-4)
    np.testing.assert_allclose(center, (BOX[:2] + BOX[2:] - 1) / 2, atol=1e-2)
    linear = plan.centered_from_crop[:, :2]
    np.testing.assert_allclose(linear, linear[0, 0] * np.eye(2), atol=1e-5)


def test_half_bodies_are_placed_about_themselves():
    a = Augmentation(rotation_prob=0.0, scale=0.0, half_body_prob=1.0)
    plan = draw(a, proposal=BOX + 15)
    assert not np.allclose(plan.image_from_crop, draw(NO_AUGMENTATION).image_from_crop)
    np.testing.assert_allclose(plan.centered_from_crop, np.eye(2, 3), atol=1e-4)


def test_half_body_shows_the_joints_of_one_half():
    keypoints, _ = person()
    upper, lower = COCO.is_upper_body, ~COCO.is_upper_body
    a = Augmentation(rotation_prob=0.0, scale=0.0, flip_prob=0.0, half_body_prob=1.0)
    plans = [draw(a, seed) for seed in range(300)]
    expected = [
        geometry.image_from_crop(geometry.keypoint_extent(keypoints, half), SIZE, 1.5)
        for half in (upper, lower)
    ]
    shown = np.array([[np.allclose(p.image_from_crop, e) for e in expected] for p in plans])
    assert np.all(shown.sum(1) == 1)
    assert 0.6 < shown[:, 0].mean() < 0.78  # 0.69
    box = geometry.image_from_crop(BOX, SIZE, 1.25)
    few = draw(a, who=(keypoints, person(num_labeled=8)[1]))
    np.testing.assert_array_equal(few.image_from_crop, box)


def test_half_body_takes_the_other_half_where_one_is_missing():
    keypoints = person()[0]
    visibility = np.where(COCO.is_upper_body, 2, 0).astype(np.uint8)
    a = Augmentation(half_body_prob=1.0)
    for seed in range(20):
        box = augment.half_body(np.random.default_rng(seed), a, keypoints, visibility, COCO)
        np.testing.assert_array_equal(box, geometry.keypoint_extent(keypoints, visibility))


def test_color_gain_is_a_rounded_clamped_product():
    image = random_image(3)
    gain = np.array([0.6, 1.0, 1.4], np.float32)
    expected = np.clip(np.floor(image * gain.astype(float) + 0.5), 0, 255)
    np.testing.assert_allclose(augment.apply_color_gain(image, gain), expected, atol=1)
    assert augment.apply_color_gain(image, np.ones(3)) is image
    gains = np.array([draw(EVERYTHING, seed).color_gain for seed in range(300)])
    assert gains.min() >= 0.6
    assert gains.max() <= 1.4
    assert np.all(gains.std(0) > 0.2)  # 0.8 / sqrt(12) = 0.23
    assert np.all(np.abs(np.corrcoef(gains.T)[np.triu_indices(3, 1)]) < 0.2)


def test_inside_counts_a_pixel_s_whole_area():
    points = np.array([[-0.5, 0], [-0.6, 0], [47.4, 63.4], [47.6, 10], [10, 63.6]], np.float32)
    np.testing.assert_array_equal(augment.inside(points, SIZE), [True, False, True, False, False])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_labeled=st.integers(0, 17))
def test_drawn_affines_are_similarities_and_reproducible(seed, num_labeled):
    who = person(seed, num_labeled)
    plan = draw(EVERYTHING, seed, who=who)
    again = draw(EVERYTHING, seed, who=who)
    np.testing.assert_array_equal(plan.image_from_crop, again.image_from_crop)
    linear = plan.image_from_crop[:, :2].astype(float)
    square = linear.T @ linear
    np.testing.assert_allclose(square, square[0, 0] * np.eye(2), rtol=1e-4, atol=1e-5)
    assert (np.linalg.det(linear) < 0) == plan.flipped
    keypoints, visibility = augment.move_keypoints(plan, *who, COCO.flip_indices)
    assert visibility.sum() == who[1].sum()
    back = geometry.transform_points(plan.image_from_crop, keypoints)
    if plan.flipped:
        back, visibility = back[COCO.flip_indices], visibility[COCO.flip_indices]
    labeled = visibility > 0
    np.testing.assert_allclose(back[labeled], who[0][labeled], atol=1e-2)


def test_opencv_maps_pixel_centers():
    """`crop` relies on cv2's inverse map taking pixel indices to pixel indices."""
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 6] = 200
    affine = np.array([[0.5, 0, 4], [0, 0.5, 2]], np.float32)
    y, x = np.unravel_index(augment.crop(image, affine, (9, 9))[..., 0].argmax(), (9, 9))
    assert (x, y) == (4, 4)


def test_a_cut_leaves_a_part_of_the_person_in_the_image():
    rng = np.random.default_rng(5)
    bbox = np.array([20.0, 30.0, 60.0, 110.0], np.float32)
    cut = Augmentation(cut_prob=1.0)
    regions = np.array([augment.cut_image(rng, cut, bbox, (120, 100)) for _ in range(400)])
    moved = regions != (0, 0, 100, 120)
    assert (moved.sum(-1) == 1).all()
    np.testing.assert_allclose(moved.mean(0), (0.25, 0.1, 0.25, 0.4), atol=0.08)
    left = np.minimum(bbox[2:], regions[:, 2:]) - np.maximum(bbox[:2], regions[:, :2])
    visible = (left / (40, 80)).min(-1)
    assert visible.min() > 0.23
    assert visible.max() < 0.92
    never = augment.cut_image(rng, Augmentation(), bbox, (120, 100))
    np.testing.assert_array_equal(never, (0, 0, 100, 120))


def test_a_coarse_crop_is_that_of_a_smaller_image():
    image = np.zeros((64, 64, 3), np.uint8)
    image[::2] = 200  # stripes that blocks of two rows average
    affine = np.eye(2, 3, dtype=np.float32)
    fine = augment.crop(image, affine, (64, 64))
    np.testing.assert_array_equal(fine, image)
    coarse = augment.crop(image, affine, (64, 64), 2.5)
    assert (coarse[4:-4, 4:-4] == 100).all()


def test_coarseness_is_log_uniform_and_changes_nothing_else():
    def plans(augmentation):
        rng = np.random.default_rng(0)
        box = np.array([0.0, 0.0, 10.0, 20.0], np.float32)
        pose = np.zeros((17, 2), np.float32), np.zeros(17, np.uint8)
        kwargs = {"skeleton": COCO, "input_size": (32, 24), "padding": 1.25}
        return [augment.augment(rng, augmentation, box, *pose, **kwargs) for _ in range(300)]

    coarse = np.array([plan.coarseness for plan in plans(Augmentation(max_coarseness=4.0))])
    assert coarse.min() >= 1
    assert coarse.max() <= 4
    assert np.median(coarse) == pytest.approx(2, abs=0.25)
    assert {plan.coarseness for plan in plans(Augmentation())} == {1.0}
