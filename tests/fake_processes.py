"""Threads that take themselves for the processes of one computation."""

import concurrent.futures
import threading

import jax
import numpy as np
from jax.experimental import multihost_utils

from rmpe_jax import processes


class FakeProcesses:
    """`count` threads, each with its own `jax.process_index()`.

    Attributes:
      gathered: how often they have exchanged arrays.
    """

    def __init__(self, count: int, patch) -> None:
        """Patches JAX; `patch` is like `monkeypatch.setattr`."""
        self.count, self.gathered = count, 0
        self._place = threading.local()
        self._barrier = threading.Barrier(count, timeout=60)
        self._values: list = [None] * count
        patch(jax, "process_count", lambda: count)
        patch(jax, "process_index", lambda: self._place.index)
        patch(multihost_utils, "process_allgather", self._allgather)
        patch(processes, "_meet", lambda: None)

    def run(self, work) -> list:
        """The results of `work` of each; an exception stands for itself."""

        def one(index: int):
            self._place.index = index
            try:
                return work()
            except Exception as error:
                return error

        with concurrent.futures.ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(one, range(self.count)))

    def _allgather(self, value) -> np.ndarray:
        """Stacks the arrays of all, which have one shape."""
        self._values[self._place.index] = np.asarray(value)
        if self._barrier.wait() == 0:
            self.gathered += 1
        stacked = np.stack(self._values)
        self._barrier.wait()
        return stacked
