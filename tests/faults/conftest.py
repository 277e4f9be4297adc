"""Disks for faults, and what the tests tell at the end."""

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

TESTS = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "training"))  # of `toy`


def pytest_terminal_summary(terminalreporter) -> None:
    """Prints what the tests told."""
    lines = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "fault" and getattr(report, "when", "") == "call"
    ]
    if lines:
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture
def tell(record_property) -> Callable[[str], None]:
    """Keeps a line for the summary."""
    return lambda line: record_property("fault", line)


class Disk:
    """A file system in memory, which may be small or read-only; Linux, as root."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def mount(self, size: int) -> None:
        """Mounts it with room for `size` bytes."""
        self.folder.mkdir()
        self._run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder))

    def change(self, options: str) -> None:
        """Mounts it again with other options, such as `ro`."""
        self._run("mount", "-o", f"remount,{options}", str(self.folder))

    def unmount(self) -> None:
        self._run("umount", str(self.folder))

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    """A disk of 64 MB."""
    found = Disk(tmp_path / "disk")
    if shutil.which("mount") is None:
        pytest.skip("no command mount")
    try:
        found.mount(2**26)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no file system can be mounted here: {error.stderr.decode().strip()}")
    yield found
    found.unmount()
