"""A trace of some training steps, for TensorBoard's profiler or Perfetto."""

import contextlib
import os
from collections.abc import Iterator

import jax


class StepProfiler:
    """Traces the steps from `steps[0]` to `steps[1]`, as far as they are run.

    Process 0 writes the trace, when the last of the steps is done or the run ends.

    Attributes:
      steps: (first, last), or empty for no trace.
      folder: of the trace, see `jax.profiler.start_trace`.
    """

    def __init__(self, steps: tuple[int, ...], folder: str | os.PathLike) -> None:
        self.steps = steps if jax.process_index() == 0 else ()
        self.folder = folder
        self._tracing = False

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """The context to run a step in."""
        if self.steps and self.steps[0] <= number <= self.steps[1] and not self._tracing:
            jax.profiler.start_trace(self.folder)
            self._tracing = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if self._tracing and number == self.steps[1]:
            self.close()

    def close(self) -> None:
        """Ends the trace, if there is one."""
        if self._tracing:
            # Steps run asynchronously: wait for what is still being computed.
            jax.block_until_ready(jax.live_arrays())
            jax.profiler.stop_trace()
            self._tracing = False
