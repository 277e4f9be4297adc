"""What the benchmarks of benchmarks/ share, and those that take no time."""

import json
import sys

import jax
import pytest


def test_functions_take_turns_after_a_call_that_is_not_timed(part):
    called = []
    functions = {name: lambda name=name: called.append(name) for name in "ab"}
    runs = part("timing").in_turns(functions, repeats=2)
    assert called == list("ab" * 3)
    assert {name: len(times) for name, times in runs.items()} == {"a": 2, "b": 2}


def test_ratios_are_above_one_where_ours_is_faster(part):
    timing = part("timing")
    ours = {"crops_per_second": 4.0, "median": 3.0, "cpu_seconds": 0.1}
    theirs = {"crops_per_second": 2.0, "median": 4.0, "cpu_seconds": 0.3}
    assert timing.ratios(ours, theirs) == {"crops_per_second": 2.0, "median": 0.75, "cpu": 3.0}
    assert timing.spread("s", [3.0, 1.0, 1.5]) == {"s": 1.5, "s_min": 1.0, "s_max": 3.0}


def test_a_fresh_process_has_its_cache_and_its_failure_is_shown(part):
    run_python = part("fresh_process").run_python
    ended = run_python("-c", "import os; print(os.environ['JAX_COMPILATION_CACHE_DIR'])", cache="c")
    assert ended.printed == "c\n"
    assert ended.wall > 0
    with pytest.raises(SystemExit, match="division by zero"):
        run_python("-c", "1/0", cache="c")


def test_the_machine_is_described(part):
    found = part("machine").describe()
    assert found["jax"] == jax.__version__
    assert found["cpu"]
    assert found["cores"] >= 1
    json.dumps(found)


def test_both_average_precisions_are_the_same(part, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ap.py", "--images=2", "--poses=10", "--repeats=1"])
    part("ap").main()
    ours, theirs, _ = map(json.loads, capsys.readouterr().out.splitlines())
    assert ours["AP"] == pytest.approx(theirs["AP"], abs=1e-6)
    assert 0.05 < ours["AP"] < 0.95
