"""An HTML page of images with their poses drawn over them, for any browser.

The page is one self-contained file and loads nothing from the network. It grows by one image at a
time and is valid after each of them, because the elements that are still open need no end tag.
"""

import base64
import html
import json
import os
import pathlib
import string
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmpe_jax.errors import UserError
from rmpe_jax.files import not_writable
from rmpe_jax.ops import geometry
from rmpe_jax.predict.formats import ImagePoses, joint_rows
from rmpe_jax.predict.tracks import Track, describe_lengths
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.visualize.poses import (
    BOX_COLOR,
    SIDE_COLORS,
    diagonal,
    line_width,
    side_of,
    track_color,
)

_PAGE = pathlib.Path(__file__).with_name("report.html")
_JPEG_QUALITY = 82
_ERRORS = "backslashreplace"  # file names may have bytes that are not text


class Report:
    """The page as a file that images are added to; a context manager."""

    def __init__(
        self,
        path: str | os.PathLike,
        skeleton: Skeleton,
        title: str = "Poses",
        max_side: int = 960,
        threshold: float = 0.3,
        resume: bool = False,
    ) -> None:
        """Start the file, or continue it.

        Args:
          path: of the file.
          skeleton: of the poses.
          title: of the page.
          max_side: larger images are reduced to this many pixels on the longer side.
          threshold: joints with a lower score and their limbs are not drawn; the list of scores
            has all joints.
          resume: keep the images of an existing file.

        Raises:
          UserError: the file cannot be written.
        """
        self._path, self._skeleton = pathlib.Path(path), skeleton
        self._max_side, self._threshold = max_side, threshold
        self._earlier_headings: set[bytes] = set()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if resume and self._path.exists():
                self._earlier_headings = _cut_incomplete_article(self._path)
            mode = "a" if self._earlier_headings else "w"
            self._file = open(path, mode, encoding="utf-8", errors=_ERRORS)  # noqa: SIM115
        except OSError as error:
            raise not_writable(path, error) from None
        if not self._earlier_headings:
            self._write(_head(title, skeleton, threshold))

    def has(self, name: str) -> bool:
        """Whether the resumed file had an image of this name when it was opened."""
        return _heading(name).encode(errors=_ERRORS) in self._earlier_headings

    def add(self, image: UInt8[np.ndarray, "h w 3"], result: ImagePoses) -> None:
        """Append an image (RGB) and its people; they are in the file when this returns.

        Raises:
          UserError: the file cannot be written, or a person's score or box is not finite.
        """
        height, width = result.size
        if not all(np.isfinite(column).all() for column in result.poses[2:]):
            raise UserError(f"{self._path} lacks {result.name}: a result is not a finite number")
        # Large people first, so that small people in front of them can be pointed at.
        order = (-geometry.box_area(result.poses.bboxes)).argsort()
        people = [_person(result, i, self._skeleton, self._threshold) for i in order.tolist()]
        self._write(
            f"<article>\n{_heading(result.name)}"
            f'<figure style="--ratio:{width}/{height}">'
            f'<img alt="" src="{_data_uri(image, self._max_side)}">\n'
            # Pixel centers are at integers: the image starts half a pixel before the first center.
            f'<svg viewBox="-0.5 -0.5 {width} {height}">\n{"".join(people)}</svg></figure>\n'
            "</article>\n"
        )

    def add_tracks(self, tracks: Sequence[Track]) -> None:
        """Append the table of the tracks; images cannot follow.

        Raises:
          UserError: the file cannot be written.
        """
        self._write(_table_of_tracks(tracks))

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise not_writable(self._path, error) from None

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, _: object, earlier: BaseException | None, __: object) -> None:
        try:
            self._file.close()
        except OSError as error:
            if earlier is None:  # else what did not fit on the disk fails here again
                raise not_writable(self._path, error) from None


def _heading(name: str) -> str:
    return f"<h2>{html.escape(name)}</h2><p></p>\n"


def _cut_incomplete_article(path: pathlib.Path) -> set[bytes]:
    """The headings of the page's complete articles; an incomplete one at its end is cut off."""
    headings, heading, end = set(), b"", 0
    with open(path, "rb+") as file:
        position = 0
        for line in file:
            position += len(line)
            if line.startswith(b"<h2>"):
                heading = line
            elif line == b"</article>\n":
                headings.add(heading)
                end = position
        if headings:
            file.truncate(end)
    return headings


def _head(title: str, skeleton: Skeleton, threshold: float) -> str:
    colors = {**SIDE_COLORS, "box": BOX_COLOR}
    joints = json.dumps([joint.replace("_", " ") for joint in skeleton.joints])
    return string.Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        colors=" ".join(f"--{name}: rgb{value};" for name, value in colors.items()),
        joints=joints.replace("<", "\\u003c"),  # a name must not close the script
        sides=json.dumps([side_of(joint) for joint in skeleton.joints]),
        threshold=json.dumps(threshold),
    )


def _person(result: ImagePoses, i: int, skeleton: Skeleton, threshold: float) -> str:
    """Person i as an SVG group, in image pixels."""
    poses = result.poses
    joints = joint_rows(poses)[i]
    shown = joints[:, 2] >= threshold
    width = line_width(diagonal(joints[shown, :2]), result.size)
    # Box coordinates start at the edge of the first pixel, those of joints and SVG at its center.
    x, y, right, bottom = (float(v) - 0.5 for v in poses.bboxes[i])
    score, box_score = float(poses.scores[i]), float(poses.bbox_scores[i])
    track_id = None if result.track_ids is None else int(result.track_ids[i])
    track = "" if track_id is None else f'data-track="{max(track_id, 0) or ""}" '
    return (
        f'<g class="person" tabindex="0" role="img" data-score="{score:.4f}" {track}'
        f'data-box="{box_score:.4f}" data-joints="{" ".join(f"{s:.4g}" for s in joints[:, 2])}" '
        f'aria-label="person, score {score:.2f}" style="--w:{width:.2f}{_colors(track_id)}">'
        f'<rect class="box" x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" '
        f'height="{bottom - y:.1f}"/>'
        f'<g class="limbs">{_limbs(joints, shown, skeleton)}</g>'
        f'<g class="joints">{_joint_circles(joints, shown, skeleton, width)}</g>'
        f"{_number(joints[shown], track_id, width)}</g>\n"
    )


def _colors(track_id: int | None) -> str:
    """Style that gives all sides of a tracked person the color of the track."""
    if track_id is None:
        return ""
    return "".join(f";--{side}:rgb{track_color(track_id)}" for side in SIDE_COLORS)


def _number(shown: Float[np.ndarray, "n 3"], track_id: int | None, width: float) -> str:
    """The track id above the highest joint."""
    if track_id is None or track_id < 1 or not len(shown):
        return ""
    x, y, _ = shown[shown[:, 1].argmin()]
    y = max(y - 4 * width, 6 * width)
    return f'<text class="middle" x="{x:.1f}" y="{y:.1f}">{track_id}</text>'


def _table_of_tracks(tracks: Sequence[Track]) -> str:
    lengths = sorted(track.num_frames for track in tracks)
    rows = [
        f"<tr><td>{html.escape(track.video)}</td>"
        f'<td style="color:rgb{track_color(track.track_id)}">■ {track.track_id}</td>'
        f"<td>{track.first}</td><td>{track.last}</td>"
        f"<td>{track.num_frames}</td><td>{track.num_frames / track.frame_rate:.1f}</td></tr>\n"
        for track in tracks
    ]
    return (
        f"<aside><details><summary>{describe_lengths(lengths)}</summary>\n"
        "<table><tr><th>video</th><th>track</th><th>first frame</th><th>last frame</th>"
        f"<th>frames</th><th>seconds</th></tr>\n{''.join(rows)}</table></details></aside>\n"
    )


def _limbs(
    joints: Float[np.ndarray, "k 3"], shown: Bool[np.ndarray, " k"], skeleton: Skeleton
) -> str:
    """Lines, fainter for lower scores, over dark lines that separate them from the image."""
    limbs = [(a, b) for a, b in skeleton.limb_indices.tolist() if shown[a] and shown[b]]
    xy = [f"{x:.1f} {y:.1f}" for x, y, _ in joints]
    lines = [f"M{xy[a]}L{xy[b]}" for a, b in limbs]
    return f'<path class="under" d="{"".join(lines)}"/>' + "".join(
        f'<path class="{side_of(skeleton.joints[a], skeleton.joints[b])}" '
        f'opacity="{_opacity(min(joints[a, 2], joints[b, 2]))}" d="{line}"/>'
        for (a, b), line in zip(limbs, lines, strict=True)
    )


def _joint_circles(
    joints: Float[np.ndarray, "k 3"],
    shown: Bool[np.ndarray, " k"],
    skeleton: Skeleton,
    width: float,
) -> str:
    return "".join(
        f'<circle class="{side_of(skeleton.joints[j])}" data-joint="{j}" cx="{x:.1f}" cy="{y:.1f}" '
        f'r="{width * (0.8 if j in skeleton.limb_indices else 0.3):.2f}" '
        f'opacity="{_opacity(score)}"/>'
        for j, (x, y, score) in enumerate(joints)
        if shown[j]
    )


def _opacity(score: float) -> str:
    return f"{0.35 + 0.65 * min(max(score, 0), 1):.2f}"


def _data_uri(image: UInt8[np.ndarray, "h w 3"], max_side: int) -> str:
    scale = max_side / max(image.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    quality = (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
