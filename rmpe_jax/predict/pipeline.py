"""Concurrent stages: each a generator in its own thread, with queues between them."""

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
_POLL_INTERVAL = 0.1  # seconds between checks whether the consumer has stopped


class _End:
    """Follows the last item and holds the error that ended the stage, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def prefetch(items: Generator[T, None, None], size: int) -> Generator[T, None, None]:
    """Yield `items`, which a thread computes at most `size` items ahead of the consumer.

    An error in the thread is raised here, after the items before it. When this generator is closed,
    or raises an error, the thread closes `items`, which closes the earlier stages, and ends.
    """
    ready: queue.Queue[T | _End] = queue.Queue(size)
    stopped = threading.Event()

    def put(item: T | _End) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL_INTERVAL)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        error = None
        try:
            for item in items:
                if not put(item):
                    break
        except BaseException as raised:
            error = raised
        finally:
            items.close()
        put(_End(error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()
