"""What `rmpe predict` writes to its output folder: the names there."""

import pathlib

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

_NAMES = {JOURNAL, SMOOTHED, SETTINGS, REPORT, DRAWINGS, *OF_FORMAT.values(), ".lock"}


def is_result(path: pathlib.Path, out: pathlib.Path) -> bool:
    """Whether `rmpe predict` writes a file of this name to `out`; links in both are resolved."""
    path = path.resolve()
    return path.is_relative_to(out) and path.relative_to(out).parts[0] in _NAMES
