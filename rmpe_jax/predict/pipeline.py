"""Stages that work at the same time: each a generator in a thread of its own, queues between."""

import queue
import threading
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")
_POLL = 0.1  # seconds between looks at whether the consumer has gone


class _End:
    """After the last item: the error that ended the stage, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(items: Generator[T, None, None], size: int) -> Generator[T, None, None]:
    """`items`, computed in a thread up to `size` of them ahead of the consumer and no more.

    An error in the thread is raised here, after the items before it. When this generator is closed,
    or an error passes through, the thread closes `items`, which closes the stages before it, and
    ends.
    """
    waiting: queue.Queue[Any] = queue.Queue(size)
    stopped = threading.Event()

    def put(item: Any) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=_POLL)
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
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()
