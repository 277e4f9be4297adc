import gzip
import json

import pytest

from rmpe_jax.training.loop import train


def traced_steps(folder) -> list[list[int]]:
    """The numbers of the training steps in each trace of a run."""
    traces = []
    for path in sorted((folder / "profile").rglob("*.trace.json.gz")):
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
        numbers = {int(e["args"]["step_num"]) for e in events if e.get("name") == "train"}
        traces.append(sorted(numbers))
    return traces


@pytest.mark.parametrize(
    ("steps", "traced"),
    [
        ((2, 3), [2, 3]),
        pytest.param((3, 3), [3], marks=pytest.mark.slow),
        # The run ends before the trace.
        pytest.param((4, 9), [4], marks=pytest.mark.slow),
    ],
)
def test_the_chosen_steps_are_in_the_trace(config, tmp_path, steps, traced):
    config.profile_steps = steps
    train(config, tmp_path)
    assert traced_steps(tmp_path) == [traced]


@pytest.mark.slow
def test_a_resumed_run_traces_what_is_left_of_the_steps(config, tmp_path):
    config.total_steps = 2
    train(config, tmp_path)
    config.total_steps, config.profile_steps = 4, (2, 3)
    train(config, tmp_path)
    assert traced_steps(tmp_path) == [[3]]


def test_no_trace_by_default_or_of_steps_that_are_not_run(config, tmp_path):
    train(config, tmp_path)
    config.profile_steps = (1, 2)
    train(config, tmp_path)
    assert not (tmp_path / "profile").exists()
