"""Rehearsal of benchmarks/accelerator.py on a CPU, and its parts."""

import json
import os
import pathlib
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax

ROOT = pathlib.Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def rows_of(out: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def run_benchmark(out: pathlib.Path, *arguments: str) -> list[dict]:
    """The lines of a run of the program, as it is run on an accelerator."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), f"--out={out}", "--tiny"]
    subprocess.run([*command, *arguments], env=environment, check=True, cwd=out.parent)
    return rows_of(out)


@pytest.mark.slow
def test_every_section_has_lines_without_errors(tmp_path):
    rows = run_benchmark(tmp_path / "out", "--seconds=1000", "--tests")
    assert [row for row in rows if "error" in row or "left_out" in row] == []
    counts = {section: 0 for section in dict.fromkeys(row["section"] for row in rows)}
    for row in rows:
        counts[row["section"]] += 1
    assert counts == {
        "machine": 2,
        "training": 4,
        "profile": 2,
        "inference": 3,
        "nms": 4,
        "sampler": 5,
        "loop": 1,
        "sizes": 3,
        "tests": 1,
    }
    for row in rows:
        if row["section"] in ("training", "sizes") and "crops_per_s" in row:
            assert row["crops_per_s"] > 0
            assert row["gflop_per_crop"] == pytest.approx(row["xla_gflop_per_crop"], rel=0.5)
    table = (tmp_path / "out/table.md").read_text()
    assert all(f"## {section}\n" in table for section in counts)
    assert "passed" in rows[-1]["summary"]


def test_without_time_everything_is_left_out(tmp_path):
    rows = run_benchmark(tmp_path / "out", "--seconds=0", "--tests", "--sections", "machine", "nms")
    assert {row["section"] for row in rows} == {"machine", "nms", "tests"}
    assert all("left_out" in row for row in rows)
    assert "left out" in (tmp_path / "out/table.md").read_text()


def end_process(names, begun, path, deadline, out, tiny) -> None:
    """In place of `sections.run`: the section "training_vit" ends its process."""
    begun.value = 1
    if names[0] == "training_vit":
        os._exit(3)
    with path.open("a") as file:
        file.write(json.dumps({"section": names[0], "name": "x", "all": names}) + "\n")
    if names[0] == "machine":
        begun.value = 2
        os._exit(5)


def test_sections_after_one_that_ends_its_process_are_run(tmp_path, part, monkeypatch):
    accelerator = part("accelerator")
    monkeypatch.setattr(accelerator, "run", end_process)
    report = part("on_accelerator.report").Report(tmp_path / "results.jsonl", time.time() + 60)
    accelerator.run_sections(
        report, ["machine", "inference", "training_vit", "nms"], tmp_path, True
    )
    rows = rows_of(tmp_path)
    assert [(row["section"], "error" in row) for row in rows] == [
        ("machine", False),
        ("inference", True),
        ("training_vit", True),
        ("nms", False),
    ]
    assert rows[1]["error"] == "the process ended with exit code 5"


def test_a_measurement_that_fails_is_a_line(tmp_path, part):
    report = part("on_accelerator.report").Report(tmp_path / "results.jsonl", time.time() + 60)
    report.measure("nms", "bad", lambda: 1 // 0, seconds=1)
    report.measure("nms", "long", lambda: {}, seconds=100)
    report.measure("nms", "good", lambda: {"ms": 1.0}, seconds=1)
    bad, long, good = rows_of(tmp_path)
    assert bad["error"].startswith("ZeroDivisionError")
    assert long["left_out"].startswith("takes about 100 s")
    assert good["ms"] == 1.0


class ConvAndDense(nn.Module):
    """A strided convolution, a transposed one and a matrix product."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(5, (3, 3), strides=(2, 2), padding="VALID")(x)  # (2, 9, 7, 3) -> (2, 4, 3, 5)
        x = nn.ConvTranspose(6, (2, 2), strides=(2, 2), padding="VALID")(x)  # -> (2, 8, 6, 6)
        return nn.Dense(11)(x.reshape(2, -1))


def test_flops_equal_those_by_hand(part):
    flops = part("on_accelerator.flops")
    x = jax.ShapeDtypeStruct((2, 9, 7, 3), "float32")
    variables = jax.eval_shape(ConvAndDense().init, jax.random.key(0), x)
    convolution = 2 * (4 * 3 * 5) * (3 * 3 * 3)
    transposed = 2 * (4 * 3 * 5) * (2 * 2 * 6)  # each input pixel meets the whole kernel
    dense = 2 * (8 * 6 * 6) * 11
    expected = 2 * (convolution + transposed + dense)
    apply = ConvAndDense().apply
    assert flops.forward_flops(jax.jit(apply), variables, x) == expected
    assert flops.forward_flops(jax.checkpoint(apply), variables, x) == expected

    def repeated(variables, x):
        return lax.scan(lambda c, _: (c, apply(variables, x)), 0, None, length=3)

    assert flops.forward_flops(repeated, variables, x) == 3 * expected


@pytest.mark.parametrize("name", ["fastpose_res18", "vitpose_s"])
def test_flops_are_about_those_of_xla(part, name):
    """XLA leaves out products with padding and adds what is done to each element."""
    from rmpe_jax.models import build_sppe

    flops = part("on_accelerator.flops")
    network, x = build_sppe(name, 17), jax.ShapeDtypeStruct((1, 256, 192, 3), "float32")
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    ours = flops.forward_flops(network.apply, variables, x)
    theirs = flops.xla_flops(jax.jit(network.apply).lower(variables, x))
    assert ours == pytest.approx(theirs, rel=0.08)


def test_flops_of_grouped_convolutions(part):
    def grouped(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=4,
        )  # fmt: skip

    count = part("on_accelerator.flops").forward_flops(
        grouped, jnp.ones((1, 5, 5, 8)), jnp.ones((3, 3, 2, 12))
    )
    assert count == 2 * (3 * 3 * 12) * (3 * 3 * 2)


@pytest.mark.parametrize(
    ("kind", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", None),
        ("TPU v5 lite", 197),
        ("cpu", None),
    ],
)
def test_peaks(part, kind, tflops, monkeypatch):
    flops = part("on_accelerator.flops")
    device = type("Device", (), {"device_kind": kind})
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert flops.peak() == (tflops and tflops * 1e12)


def test_output_of_pytest_is_read(part):
    read_log = part("on_accelerator.tests").read_log
    text = "\n".join(
        [
            "[gw0] [ 10%] PASSED tests/ops/test_a.py::test_x[1] ",
            "[gw1] [ 20%] FAILED tests/ops/test_b.py::test_y[a b] ",
            "==== short test summary info ====",
            "FAILED tests/ops/test_b.py::test_y[a b] - AssertionError: no",
            "ERROR tests/models/test_c.py",
            "=========== 1 failed, 1 passed, 1 error in 3.20s ===========",
        ]
    )
    complete = read_log(text, 1)
    assert complete["failed"] == ["tests/ops/test_b.py::test_y[a b]", "tests/models/test_c.py"]
    assert complete["summary"] == "1 failed, 1 passed, 1 error in 3.20s"
    assert "error" not in complete
    cut_off = read_log("\n".join(text.splitlines()[:2]), None)
    assert cut_off["failed"] == ["tests/ops/test_b.py::test_y[a b]"]
    assert cut_off["summary"] == "cut off after 1 passed"
    assert "error" in read_log("", 4)
