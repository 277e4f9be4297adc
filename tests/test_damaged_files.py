"""Every reader takes a file or refuses it in one line; tests/faults tries more files."""

import copy

import damaged_files
import pytest
from damaged_files import READERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("title", READERS)
def test_the_valid_file_is_read(tmp_path, title):
    reader = READERS[title]
    path = tmp_path / reader.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(reader.encode(reader.document))
    reader.read(path)


@pytest.mark.parametrize("title", READERS)
@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path, title, data):
    reader = READERS[title]
    damaged_files.check(reader, tmp_path, data.draw(damaged_files.damaged(reader)))


@pytest.mark.parametrize(
    ("title", "part", "value"),
    [
        ("coco", ("annotations", 2, "num_keypoints"), []),
        ("posetrack", ("images", 0, "ignore_regions_x"), [10**400]),
    ],
)
def test_files_that_once_were_not_refused(tmp_path, title, part, value):
    reader = READERS[title]
    document = copy.deepcopy(reader.document)
    parent, index, key = part
    document[parent][index][key] = value
    damaged_files.check(reader, tmp_path, reader.encode(document))
