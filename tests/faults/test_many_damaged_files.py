"""As tests/test_damaged_files.py, with many files for each reader."""

import damaged_files
import pytest
from damaged_files import READERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import times

pytestmark = pytest.mark.faults

EXAMPLES = times("EXAMPLES", 1000)  # for each reader


@pytest.mark.parametrize("title", READERS)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path, title, data):
    reader = READERS[title]
    damaged_files.check(reader, tmp_path, data.draw(damaged_files.damaged(reader)))
