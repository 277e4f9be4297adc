"""Pipelines of Apache Beam (extra `beam`), which is imported when it is used.

A pipeline runs where the option `--runner` says. The direct runner, the default, runs on this
machine. Other runners repeat what a lost worker had begun. The direct runner fails instead, or
waits forever; then the whole pipeline runs again.
"""

import contextlib
import importlib
import io
import logging
import re
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from rmpe_jax.errors import UserError

T = TypeVar("T")

_DIRECT_ATTEMPTS = 4
_PATIENCE = 15.0  # seconds that the direct runner has to notice the loss of a worker


def import_beam(module: str = "apache_beam") -> Any:
    """Import a module of Apache Beam.

    Raises:
      UserError: it is not installed.
    """
    try:
        importlib.import_module("apache_beam")
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        line = "--beam-options needs Apache Beam: pip install 'rmpe_jax[beam]'"
        raise UserError(line) from None
    return importlib.import_module(module)


def parse_options(text: str) -> Any:
    """Beam's `PipelineOptions` of a text such as `--runner=DirectRunner --direct_num_workers=2`.

    Workers log warnings and errors, unless the text says otherwise.

    Raises:
      UserError: Beam is not installed, or an option has no such value.
    """
    names = import_beam("apache_beam.options.pipeline_options")
    said = io.StringIO()
    try:
        options = names.PipelineOptions(shlex.split(text))
        with contextlib.redirect_stderr(said):  # of argparse
            options.get_all_options()
    except ValueError as error:
        raise UserError(f"--beam-options={text}: {error}; check the quotes") from None
    except SystemExit:
        reason = _last_line(said.getvalue()).partition("error: ")[2]
        raise UserError(f"--beam-options={text}: {reason}") from None
    workers = options.view_as(names.WorkerOptions)
    workers.default_sdk_harness_log_level = workers.default_sdk_harness_log_level or "WARNING"
    return options


def run_pipeline(build: Callable[[Any], None], options: Any, clean_up: Callable[[], None]) -> Any:
    """Run a pipeline to its end; as `run_to_end`.

    Args:
      build: adds the steps to an empty `Pipeline`.
      options: of `parse_options`.
      clean_up: as of `run_to_end`.

    Returns:
      Beam's `PipelineResult`.

    Raises:
      UserError: as of `run_to_end`.
    """
    beam = import_beam()

    def run(runner: Any) -> Any:
        pipeline = beam.Pipeline(runner=runner, options=options)
        build(pipeline)
        result = pipeline.run()
        state = result.wait_until_finish()
        if state not in (None, "DONE"):
            raise RuntimeError(f"it ended as {state}")
        return result

    return run_to_end(run, options, clean_up)


def run_to_end(work: Callable[[Any], T], options: Any, clean_up: Callable[[], None]) -> T:
    """What `work` returns, which runs a pipeline; again, if the direct runner loses a worker.

    Args:
      work: gets the runner; None means the one that the options name.
      options: of `parse_options`.
      clean_up: removes what a pipeline that failed has left.

    Raises:
      UserError: the pipeline fails; if a worker raised a `UserError`, its line.
    """
    names = import_beam("apache_beam.options.pipeline_options")
    runner = options.view_as(names.StandardOptions).runner
    is_direct = (runner or "DirectRunner").lower() == "directrunner"
    for remaining in reversed(range(_DIRECT_ATTEMPTS if is_direct else 1)):
        try:
            if not is_direct:
                return work(None)
            with _lost_workers():
                return work(_direct_runner(options))
        except Exception as error:  # of any kind: runners have their own
            with contextlib.suppress(UserError):  # the error of the pipeline is the one to tell
                clean_up()
            if isinstance(error, UserError):
                raise
            reason = _error_of_worker(error)
            if reason or not remaining:
                what = f"{type(error).__name__}: {_last_line(str(error))}"
                raise UserError(reason or f"the pipeline failed ({what})") from error
            line = "the pipeline failed (%s), as it does when it loses a worker: it runs again"
            logging.getLogger(__name__).warning(line, _last_line(str(error)))
    raise AssertionError  # the last attempt returns or raises


class _Stuck(BaseException):
    """The direct runner waits for a worker that is lost."""


@contextlib.contextmanager
def _lost_workers() -> Iterator[None]:
    """A block that ends with an error if the direct runner does not notice that it lost a worker.

    It waits forever for a worker process that ends before it connects. Its thread for that process
    ends with an error then, which starts an alarm. Only the main thread can be woken by it; others,
    and programs on Windows, go on waiting.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not (is_main and hasattr(signal, "SIGALRM")):
        yield
        return
    earlier = set(threading.enumerate())

    def wake(*_: Any) -> None:
        raise _Stuck

    def notice(found: Any) -> None:
        if found.thread in earlier:
            return  # of a pipeline that failed before
        if found.thread is not None and found.thread.name == "run_worker":
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
        else:
            hook(found)

    hook, threading.excepthook = threading.excepthook, notice
    handler = signal.signal(signal.SIGALRM, wake)
    try:
        yield
    except _Stuck:
        raise RuntimeError("a worker process ended before its work began") from None
    finally:
        threading.excepthook = hook
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _direct_runner(options: Any) -> Any:
    """Beam's direct runner in Python, which runs on this machine.

    By the name DirectRunner, Beam first tries Prism, a program that it downloads and that takes no
    number of workers.
    """
    api = import_beam("apache_beam.portability.api").beam_provision_api_pb2
    handle = import_beam("apache_beam.runners.portability.portable_runner").JobServiceHandle
    runner = import_beam("apache_beam.runners.portability.fn_api_runner.fn_runner")
    encoded = handle.encode_pipeline_options(options.get_all_options(drop_default=True))
    info = api.ProvisionInfo(pipeline_options=encoded)  # what workers are told
    return runner.FnApiRunner(provision_info=runner.ExtendedProvisionInfo(info))


def _error_of_worker(error: Exception) -> str:
    """What a worker raised, in one line: the text of a `UserError`; empty if it raised nothing."""
    text = str(error)
    lines = re.findall(r"(?:User|Image)Error: (.+?)(?: \[while running .*)?$", text, re.M)
    if lines:
        return lines[-1]
    return f"the pipeline failed ({_last_line(text)})" if "[while running" in text else ""


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason given")
