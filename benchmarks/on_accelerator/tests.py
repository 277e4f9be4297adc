"""The tests that need no files, on the accelerator."""

import os
import pathlib
import re
import subprocess
import sys

from on_accelerator.report import Report

ROOT = pathlib.Path(__file__).parents[2]
CHOSEN = (
    "tests/ops",
    "tests/codecs",
    "tests/models",
    "tests/pose_nms",
    "tests/top_down",
    "tests/inference",
    "tests/training/test_step.py",
    "tests/training/test_sstn.py",
)
TINY = ("tests/ops/test_oks.py",)
PLATFORMS = {"gpu": "cuda,cpu", "tpu": "tpu,cpu", "cpu": "cpu"}


def measure(report: Report, out: pathlib.Path, tiny: bool, platform: str) -> None:
    """Section "tests": runs them in the time that is left; their output goes to tests.txt.

    Args:
      report: gets a line.
      out: folder of the output.
      tiny: only one file of tests.
      platform: that JAX uses: "gpu", "tpu" or "cpu".
    """
    report.measure(
        "tests",
        platform,
        lambda: run_tests(out / "tests.txt", TINY if tiny else CHOSEN, platform, report.left()),
        seconds=5 if tiny else 30,
    )


def run_tests(log: pathlib.Path, chosen: tuple[str, ...], platform: str, seconds: float) -> dict:
    """The end of pytest's output and the tests that failed.

    Float32 products are computed in full precision, as on a CPU; a GPU's default is TensorFloat-32.
    """
    environment = {
        **os.environ,
        "JAX_PLATFORMS": PLATFORMS.get(platform, platform),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
    }
    workers = "1" if len(chosen) == 1 else str(min(8, os.cpu_count() or 1))
    command = [sys.executable, "-m", "pytest", "-v", "--no-header", "-p", "no:cacheprovider"]
    command += ["--tb=short", "-n", workers, "--dist", "loadfile", *chosen]
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            status = process.wait(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            process.terminate()
            status = None
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
    return read_log(log.read_text(encoding="utf-8", errors="replace"), status)


def read_log(text: str, status: int | None) -> dict:
    """What the output of pytest says.

    Args:
      text: of `pytest -v`.
      status: of pytest; None if it was ended for lack of time.
    """
    names = re.findall(r"\b(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", text, re.M)
    failed = dict.fromkeys(name.strip() for name in names)
    summaries = re.findall(r"^=+ (.*\d+ \w+.* in [\d.]+s.*?) =+$", text, re.M)
    passed = len(re.findall(r"\bPASSED\b", text))
    ended = summaries[-1] if summaries else f"cut off after {passed} passed"
    values = {"summary": ended, "failed": list(failed), "status": status}
    if status not in (0, 1, None):
        values["error"] = f"pytest ended with status {status}"
    return values
