"""What `rmpe predict` writes to its output folder: the names there."""

import pathlib
import re

JOURNAL = "poses.jsonl"
SMOOTHED = "smoothed.jsonl"  # the journal with the smoothed poses of a tracked run
SETTINGS = "settings.json"
REPORT = "report.html"
DRAWINGS = "drawn"  # a folder of images with poses drawn on them
OF_FORMAT = {
    "coco": "coco.json",
    "alphapose": "alphapose-results.json",
    "openpose": "openpose",  # a folder
}

# Of a run on many machines (`experiments.beam`); Beam adds `-00000-of-00002.jsonl` to two of them.
IMAGES = "images.jsonl"
POSES_SHARDS = "poses"
SKIPPED_SHARDS = "skipped"

_SHARD = re.compile(rf"({POSES_SHARDS}|{SKIPPED_SHARDS})-\d+-of-\d+\.jsonl")
_NAMES = {JOURNAL, SMOOTHED, SETTINGS, IMAGES, REPORT, DRAWINGS, *OF_FORMAT.values(), ".lock"}


def is_result(path: pathlib.Path, out: pathlib.Path) -> bool:
    """Whether `rmpe predict` writes a file of this name to `out`; links in both are resolved."""
    path = path.resolve()
    if not path.is_relative_to(out):
        return False
    name = path.relative_to(out).parts[0]
    return name in _NAMES or _SHARD.fullmatch(name) is not None
