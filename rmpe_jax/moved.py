"""Old module names: they can still be imported, and a warning gives the new name.

`import rmpe_jax` installs the finder below, so that configs and programs written for earlier
versions keep working.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from typing import Any

_OPS = (
    *("average_precision", "box_losses", "box_maps", "geometry", "heatmaps", "losses", "oks"),
    *("padding", "spatial_transformer"),
)
_READERS = ("annotations", "coco", "crowdpose", "datasets", "lsp", "mpii", "records", "whole_body")
_JOBS = ("drawings", "formats", "inputs", "journal", "pipeline", "report", "run")
MOVED = {
    **{f"rmpe_jax.{name}": f"rmpe_jax.ops.{name}" for name in _OPS},
    **{f"rmpe_jax.data.{name}": f"rmpe_jax.data.readers.{name}" for name in _READERS},
    **{f"rmpe_jax.inference.{name}": f"rmpe_jax.predict.{name}" for name in _JOBS},
    "rmpe_jax.box_codec": "rmpe_jax.codecs.boxes",
    "rmpe_jax.codec": "rmpe_jax.codecs.heatmap",
    "rmpe_jax.data.boxed_pictures": "rmpe_jax.data.boxed_images",
    "rmpe_jax.data.pictures": "rmpe_jax.data.images",
    "rmpe_jax.inference.cropping": "rmpe_jax.top_down.cropping",
    "rmpe_jax.evaluation.top_down": "rmpe_jax.evaluation.predictions",
    "rmpe_jax.inference.detector_model": "rmpe_jax.model_io.detector_model",
    "rmpe_jax.inference.end_to_end": "rmpe_jax.top_down.end_to_end",
    "rmpe_jax.inference.folding": "rmpe_jax.models.folding",
    "rmpe_jax.inference.pose_model": "rmpe_jax.model_io.pose_model",
    "rmpe_jax.inference.program": "rmpe_jax.top_down.estimation",
    "rmpe_jax.model_file": "rmpe_jax.model_io.model_file",
    "rmpe_jax.models.detector": "rmpe_jax.models.spec",
    "rmpe_jax.training.config": "rmpe_jax.config",
}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Any = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(name, self) if name in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}", FutureWarning, stacklevel=2)
        return _Alias(spec.name, new)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing: an alias looks everything up in the module that it stands for."""


class _Alias(types.ModuleType):
    def __init__(self, name: str, new: str) -> None:
        super().__init__(name)
        self._module = importlib.import_module(new)

        if hasattr(self._module, "__all__"):
            self.__all__ = self._module.__all__
        else:  # for `from … import *`
            self.__all__ = [name for name in vars(self._module) if not name.startswith("_")]

    def __dir__(self) -> list[str]:
        return dir(self._module)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def install() -> None:
    """Makes the old names importable; once is enough."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
