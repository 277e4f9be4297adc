"""Damaged files for every reader of the package: cut, changed bytes, values of other types.

A reader may take a file or refuse it with a `UserError` of one line; see `check`. The fast tests
try some files of each reader, those of tests/faults many.
"""

import copy
import io
import json
import math
import pathlib
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import movenet_graph
import numpy as np
import safetensors.numpy
import scipy.io
import tiny_sets
import torch_files
from hypothesis import assume
from hypothesis import strategies as st

from rmpe_jax.config import default_config, model_spec, parse_config, spec_to_dict
from rmpe_jax.data.posetrack import read_posetrack
from rmpe_jax.data.prepared import read_people
from rmpe_jax.data.readers.coco import read_coco
from rmpe_jax.data.readers.crowdpose import read_crowdpose
from rmpe_jax.data.readers.lsp import read_lsp
from rmpe_jax.data.readers.mpii import read_mpii
from rmpe_jax.data.readers.whole_body import read_halpe
from rmpe_jax.detectors.lookup import from_file
from rmpe_jax.detectors.onnx_config import make_config, read_options
from rmpe_jax.detectors.preprocessor import read_preprocessor
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_detections
from rmpe_jax.evaluation.mpii import mpii_map
from rmpe_jax.evaluation.mpii_people import read_mpii_mat
from rmpe_jax.evaluation.pose_file import load_poses
from rmpe_jax.experiments.fit_pgpg import read_poses
from rmpe_jax.interop.huggingface import read_weights
from rmpe_jax.interop.movenet import movenet_variables, read_graph_model
from rmpe_jax.interop.pth import read_pth
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.pgpg.model import load_pgpg
from rmpe_jax.pose_nms import PoseNmsParams
from rmpe_jax.pose_nms.params import load_params as load_nms
from rmpe_jax.pose_nms.params import params_to_dict as nms_to_dict
from rmpe_jax.predict.journal import read_journal
from rmpe_jax.skeletons import COCO, CROWDPOSE, HALPE136, LSP, POSETRACK, UNION
from rmpe_jax.tracking import TrackParams
from rmpe_jax.tracking.params import load_params as load_tracking
from rmpe_jax.tracking.params import params_to_dict as tracking_to_dict

SECONDS = 10.0  # of the processor, for one file of a few kilobytes


class Reader(NamedTuple):
    """A reader and a valid file for it.

    Attributes:
      name: of the file, below a folder.
      document: the content: dicts, lists and values.
      encode: from the content to the bytes of the file.
      read: the reader, called with the path of the file.
      others: values that take the place of a value in the content.
    """

    name: str
    document: Any
    encode: Callable[[Any], bytes]
    read: Callable[[pathlib.Path], Any]
    others: tuple[Any, ...]


# ---- encodings -----------------------------------------------------------------------------------


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _json_lines(documents: Any) -> bytes:
    return b"".join(_json(document) + b"\n" for document in documents)


def _npz(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _mat(content: dict[str, Any]) -> bytes:
    """Compressed, as the datasets' files are, and with a checksum.

    Without, a changed type code ends the process: SciPy 1.17 looks it up beyond its table.
    """
    file = io.BytesIO()
    scipy.io.savemat(file, content, do_compression=True)
    return file.getvalue()


def _safetensors(content: dict[str, Any]) -> bytes:
    texts = {name: json.dumps(value) for name, value in content["texts"].items()}
    return safetensors.numpy.save(content["arrays"], texts)


def _pth(content: Any) -> bytes:
    return torch_files.zip_file(content, {"0": np.arange(6, dtype=np.float32)})


# ---- values --------------------------------------------------------------------------------------

JSON_VALUES = (
    None,
    True,
    0,
    -1,
    1.5,
    2**31,
    2**64,
    10**400,  # no float
    1e308,
    1e-300,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "text",
    "a\nb",
    "\0",
    "\ud800",  # half of a surrogate pair, which no encoding of a path has
    [],
    {},
    [[]],
    [1, "a", None],
    [[1, 2], [3]],
    [0.5] * 51,
    {"a": 1},
)
ARRAYS = (
    np.zeros(0, np.float32),
    np.float32(3),
    np.full((2, 2), np.nan, np.float32),
    np.full((3, 14, 2), np.inf),
    np.array(["a", "bc"]),
    np.array([True]),
    np.array([1j]),
    np.arange(4, dtype=np.uint8),
    np.full((14, 3, 2), 1e300),
    np.array([-5, 2**40]),
    np.zeros((1, 2, 3, 4), np.float16),
)
ARRAYS_IN_FILES = tuple(array for array in ARRAYS if array.dtype.kind not in "UcO")
MAT_VALUES = (*ARRAYS, "text", {}, {"a": 1.0}, [], 7, -1, math.inf, math.nan)

PICKLE_VALUES = (
    None,
    True,
    -1,
    2**70,
    "",
    "text",
    [],
    {},
    (),
    [1, "a"],
    {"b": 2},
    b"0",
    b"N.",
    b"R",
)


# ---- valid files ---------------------------------------------------------------------------------


def _mpii_release() -> dict[str, Any]:
    points = {"point": [{"x": 5.0 * i, "y": 3.0 * i, "id": i} for i in range(16)]}
    person = {"x1": 3.0, "y1": 4.0, "x2": 9.0, "y2": 12.0, "annopoints": points}
    images = [{"image": {"name": name}, "annorect": [person, person]} for name in ("a", "b")]
    return {"RELEASE": {"annolist": images}}


def _pgpg() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "joints": np.array(LSP.joints),
        "atoms": rng.uniform(-2, 2, (1, 14, 2)),
        "weights": np.array([[0.25, 0.75], [1.0, 0.0]]),
        "means": rng.normal(0, 0.1, (2, 2, 4)),
        "covariances": np.tile(np.eye(4), (2, 2, 1, 1)),
    }


def _prepared_people() -> dict[str, Any]:
    labeled = np.ones((2, UNION.num_keypoints), bool)
    return {"record": np.arange(2), "person": np.arange(2), "labelled": labeled}


def _model() -> dict[str, Any]:
    config = default_config()
    config.model.name = "tinypose_s"
    meta = {
        "config": spec_to_dict(model_spec(parse_config(config))),
        "pose_nms": nms_to_dict(PoseNmsParams.preset("paper")),
    }
    arrays = {"params/a/b": np.ones(3, np.float32), "batch_stats/a": np.ones((2, 2), np.float16)}
    return {"texts": {"rmpe_jax": meta}, "arrays": arrays}


def _weights() -> dict[str, Any]:
    vector = torch_files.tensor(torch_files.storage("0", 6), (6,), (1,))
    part = torch_files.tensor(torch_files.storage("0", 6), (2, 2), (3, 1), 1)
    return {"epoch": 3, "state_dict": {"w": vector, "b": part}}


def _detections() -> list[dict]:
    boxes = [{"image_id": 7, "category_id": 1, "bbox": [1.0, 2, 30, 40], "score": 0.5}]
    return [*boxes, {"image_id": "8.png", "bbox": [5.0, 5.0, 20.0, 20.0], "score": 1}]


def _poses() -> list[dict]:
    joints = np.linspace(1, 50, 51).tolist()
    pose = {"image_id": 7, "category_id": 1, "keypoints": joints, "score": 0.5}
    return [pose, pose | {"image_id": "8", "bbox": [1, 2, 30, 40], "annotation": 100}]


def _journal() -> list[dict]:
    joints = np.linspace(1, 50, 51).reshape(17, 3).tolist()
    person = {"keypoints": joints, "score": 0.5, "bbox": [1, 2, 3, 4], "bbox_score": 1.0}
    image = {"name": "a.png", "height": 60, "width": 80, "skeleton": "coco"}
    people = [[person | {"track_id": 3}], [], [person]]
    return [image | {"people": found, "time": 0.5} for found in people]


def _posetrack() -> dict[str, Any]:
    document = tiny_sets.coco_document(POSETRACK)
    for frame, image in enumerate(document["images"]):
        image |= {"vid_id": "v", "frame_id": frame, "is_labeled": True}
        image |= {"ignore_regions_x": [[1, 2, 3]], "ignore_regions_y": [[1, 5, 3]]}
    for annotation in document["annotations"]:
        annotation |= {"track_id": annotation["id"], "bbox_head": [1, 2, 3, 4]}
        annotation["scores"] = [0.5] * POSETRACK.num_keypoints
    return document


def _mpii_entries() -> list[dict]:
    joints = np.linspace(1, 50, 32).reshape(16, 2).tolist()
    person = {"joints": joints, "annotated": [1] * 16, "head_size": 9.0}
    return [{"image": "a.png", "people": [person, person]}, {"image": 8, "people": []}]


def _dataset(path: pathlib.Path) -> Any:
    """The dataset that the boxes and poses of a file are on."""
    folder = path.parent / "dataset"
    annotations = folder / "annotations" / "person_keypoints_mini.json"
    if not annotations.exists():
        tiny_sets.write_json(annotations, tiny_sets.coco_document())
    return read_coco(folder, "mini")


def _ground_truth_of_itself(path: pathlib.Path) -> Any:
    return mpii_map(path, [{"image": "a.png", "people": []}, {"image": 8, "people": []}])


def _detector_config(path: pathlib.Path) -> Any:
    options = read_options(path)
    return make_config(options.pop("layout", "yolov8"), options)


_ANNOTATIONS = "annotations/person_keypoints_mini.json"
_DETECTOR = {
    "layout": "yolox",
    "input_size": [64, 64],
    "mean": [0, 0.5, 0],
    "resize": "corner",
    "max_boxes": 5,
}
_PREPROCESSOR = {
    "do_resize": True,
    "size": {"height": 64, "width": 64},
    "do_rescale": True,
    "rescale_factor": 0.00392,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.25, 0.25],
}


def _graph_model() -> dict[str, Any]:
    """A MoveNet with two channels in every layer."""
    weights = []
    for name, array in movenet_graph.graph_tensors().items():
        shape = [2] if array.ndim == 1 else [1, 1, 2, min(2, array.shape[-1])]
        entry = {"name": name, "shape": shape, "dtype": str(array.dtype)}
        if array.dtype == np.float16:
            entry |= {"dtype": "float32", "quantization": {"dtype": "float16"}}
        weights.append(entry)
    return {"weightsManifest": [{"paths": ["weights.bin"], "weights": weights}]}


def _read_graph_model(path: pathlib.Path) -> dict[str, dict]:
    (path.parent / "weights.bin").write_bytes(bytes(10_000))
    return movenet_variables(read_graph_model(path))


_JSON = (
    ("coco", _ANNOTATIONS, tiny_sets.coco_document(), lambda p: read_coco(p.parents[1], "mini")),
    (
        "crowdpose",
        "json/crowdpose_mini.json",
        tiny_sets.coco_document(CROWDPOSE),
        lambda p: read_crowdpose(p.parents[1], "mini"),
    ),
    (
        "halpe136",
        "annotations/halpe_mini_v1.json",
        tiny_sets.coco_document(HALPE136),
        lambda p: read_halpe(p.parents[1], "mini"),
    ),
    (
        "mpii",
        "annotations/mini.json",
        [tiny_sets.mpii_entry(0, "a.jpg"), tiny_sets.mpii_entry(1, "b.jpg")],
        lambda p: read_mpii(p.parents[1], "mini"),
    ),
    ("posetrack", "posetrack.json", _posetrack(), read_posetrack),
    (
        "detections",
        "boxes.json",
        _detections(),
        lambda p: load_detections(p, _dataset(p), skip_unknown=True),
    ),
    ("detector boxes", "boxes.json", _detections(), from_file),
    ("poses", "poses.json", _poses(), lambda p: load_poses(p, _dataset(p), COCO)),
    ("mpii entries", "entries.json", _mpii_entries(), _ground_truth_of_itself),
    ("pose NMS", "params.json", nms_to_dict(PoseNmsParams.preset("paper")), load_nms),
    ("tracking", "params.json", tracking_to_dict(TrackParams()), load_tracking),
    ("detector", "detector.json", _DETECTOR, _detector_config),
    (
        "preprocessor",
        "preprocessor_config.json",
        _PREPROCESSOR,
        lambda p: make_config("detr", read_preprocessor(p)),
    ),
    ("graph model", "model.json", _graph_model(), _read_graph_model),
)

READERS: dict[str, Reader] = {
    title: Reader(name, document, _json, read, JSON_VALUES) for title, name, document, read in _JSON
} | {
    "journal": Reader(
        "poses.jsonl", _journal(), _json_lines, lambda p: list(read_journal(p, COCO)), JSON_VALUES
    ),
    "lsp": Reader(
        "joints.mat",
        {"joints": np.arange(84.0).reshape(14, 3, 2)},
        _mat,
        lambda p: read_lsp(p.parent),
        MAT_VALUES,
    ),
    "mpii release": Reader("release.mat", _mpii_release(), _mat, read_mpii_mat, MAT_VALUES),
    "pgpg": Reader("pgpg.npz", _pgpg(), _npz, load_pgpg, ARRAYS),
    "pgpg poses": Reader("poses.npz", {"joints": np.ones((2, 16, 2))}, _npz, read_poses, ARRAYS),
    "prepared people": Reader(
        "people.npz",
        _prepared_people(),
        _npz,
        lambda p: read_people(p.parent),
        ARRAYS,
    ),
    "model": Reader(
        "m.safetensors", _model(), _safetensors, load_pose_model, (*JSON_VALUES, *ARRAYS_IN_FILES)
    ),
    "pth": Reader("weights.pth", _weights(), _pth, read_pth, PICKLE_VALUES),
    "transformers": Reader(
        "model.safetensors",
        {"texts": {"format": "pt"}, "arrays": {"a.weight": np.ones((2, 3), np.float32)}},
        _safetensors,
        lambda p: read_weights(p.parent),
        ARRAYS_IN_FILES,
    ),
}


# ---- damage --------------------------------------------------------------------------------------


def places(document: Any) -> list[tuple[Any, ...]]:
    """The path of every value in dicts and lists, from the outermost on."""
    found: list[tuple[Any, ...]] = [()]
    if isinstance(document, dict):
        found += [(key, *rest) for key, value in document.items() for rest in places(value)]
    elif isinstance(document, list):
        found += [(i, *rest) for i, value in enumerate(document) for rest in places(value)]
    return found


def _replaced(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a place; without the value if it is `...`."""
    if not place:
        return None if value is ... else value
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return document


@st.composite
def _changed_documents(draw: st.DrawFn, reader: Reader) -> bytes:
    """A file with one or two values replaced or left out."""
    document = copy.deepcopy(reader.document)
    for _ in range(draw(st.integers(1, 2))):
        # The depth is drawn first: most places are the numbers of a list.
        by_depth: dict[int, list[tuple[Any, ...]]] = {}
        for place in places(document):
            by_depth.setdefault(len(place), []).append(place)
        depth = draw(st.sampled_from(sorted(by_depth)))
        place = draw(st.sampled_from(by_depth[depth]))
        value = draw(st.sampled_from((*reader.others, ...)))
        document = _replaced(document, place, copy.deepcopy(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return reader.encode(document)
        except Exception:  # no file can have this content
            assume(False)
            raise


@st.composite
def _changed_bytes(draw: st.DrawFn, valid: bytes) -> bytes:
    """A file that is cut, or in which some bytes are others."""
    data = bytearray(valid)
    if draw(st.booleans()):
        return bytes(data[: draw(st.integers(0, len(data) - 1))])
    edits = st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255))
    for where, value in draw(st.lists(edits, min_size=1, max_size=8)):
        data[where] = value
    return bytes(data)


def damaged(reader: Reader) -> st.SearchStrategy[bytes]:
    """Contents of files for a reader, most of which it must refuse."""
    nested = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000])
    return st.one_of(
        _changed_documents(reader),
        _changed_documents(reader),
        _changed_bytes(reader.encode(reader.document)),
        st.binary(max_size=300),
        nested,
    )


def check(reader: Reader, folder: pathlib.Path, content: bytes) -> None:
    """Reads a file: nothing but a `UserError` of one line may come out, in bounded time."""
    path = folder / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reader.read(path)
        except UserError as error:
            line = str(error)
            assert line.splitlines() == [line], line
            assert len(line) < 2000, line
    assert time.process_time() - start < SECONDS
