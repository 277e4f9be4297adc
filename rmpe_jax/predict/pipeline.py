"""Concurrent stages: each a generator in its own thread, with queues between them."""

import collections
import threading
from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class _End:
    """Follows the last item and holds the error that ended the stage, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Queue:
    """A queue between two threads of limited items and bytes; a single item may have more bytes."""

    def __init__(self, max_items: int, max_bytes: int | None) -> None:
        self._max_items, self._max_bytes = max_items, max_bytes
        self._items: collections.deque[tuple[Any, int]] = collections.deque()
        self._num_bytes, self._is_stopped = 0, False
        self._changed = threading.Condition()

    def put(self, item: Any, num_bytes: int) -> bool:
        """Wait for room and append an item; False if the consumer has stopped."""

        def is_ready() -> bool:
            limit = self._max_bytes
            fits = limit is None or self._num_bytes + num_bytes <= limit
            has_room = not self._items or (fits and len(self._items) < self._max_items)
            return self._is_stopped or has_room

        with self._changed:
            self._changed.wait_for(is_ready)
            if not self._is_stopped:
                self._items.append((item, num_bytes))
                self._num_bytes += num_bytes
                self._changed.notify_all()
            return not self._is_stopped

    def get(self) -> Any:
        """Wait for an item and remove it."""
        with self._changed:
            self._changed.wait_for(lambda: self._items)
            item, num_bytes = self._items.popleft()
            self._num_bytes -= num_bytes
            self._changed.notify_all()
            return item

    def stop(self) -> None:
        """Called by the consumer when it takes no more items."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()


def prefetch(
    items: Generator[T, None, None],
    size: int,
    max_bytes: int | None = None,
    num_bytes: Callable[[T], int] = lambda item: 0,
) -> Generator[T, None, None]:
    """Yield `items`, which a thread computes ahead of the consumer.

    An error in the thread is raised here, after the items before it. When this generator is closed,
    or raises an error, the thread closes `items`, which closes the earlier stages, and ends.

    Args:
      items: of an earlier stage.
      size: maximum number of items that wait for the consumer.
      max_bytes: maximum number of their bytes, if limited; a single item may have more.
      num_bytes: the number of bytes of an item.
    """
    ready = _Queue(size, max_bytes)

    def work() -> None:
        error = None
        try:
            for item in items:
                if not ready.put(item, num_bytes(item)):
                    break
        except BaseException as raised:
            error = raised
        finally:
            items.close()
        ready.put(_End(error), 0)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        ready.stop()
        thread.join()
