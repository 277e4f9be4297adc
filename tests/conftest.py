"""What every test needs: parsed absl flags, and the shared data if it is there."""

import importlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable
from types import ModuleType

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Worker processes and programs that tests start inherit it: each compiles a program only once.
    folder = tempfile.TemporaryDirectory(prefix="rmpe_jax_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import hypothesis
import jax
import jaxtyping
import pytest
from absl import flags

# Checks the annotations of arguments, results and dataclasses of the whole package at run time. It
# must come before the first import of the package.
jaxtyping.install_import_hook("rmpe_jax", "beartype.beartype")

# Grain's worker processes read absl flags; outside of absl's app.run nobody has parsed them.
flags.FLAGS.mark_as_parsed()

# Compilation and busy machines take their time; no test is about it.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="module", autouse=True)
def _release_programs():
    """The programs of a file are released after it, which halves the memory of a process."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder `shared` beside the checkout: real data, documents and models."""
    folder = pathlib.Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name}/ beside the checkout")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared) -> pathlib.Path:
    """Real images with annotations: `coco/`, `mpii/`, `lsp_extended/`."""
    if not (shared / "data").is_dir():
        pytest.skip("no shared/data beside the checkout")
    return shared / "data"


@pytest.fixture
def part(monkeypatch) -> Callable[[str], ModuleType]:
    """Imports a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "benchmarks"))

    def imported(name: str) -> ModuleType:
        if "." not in name:  # another module may have such a name
            monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return imported


@pytest.fixture
def bright_network(monkeypatch) -> None:
    """The network "bright" of tests/bright.py can be built by name."""
    import bright

    bright.register(monkeypatch.setattr)
