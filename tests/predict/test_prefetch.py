"""Stages in threads: order, how far they run ahead, and that all end after errors too."""

import contextlib
import threading
import time

import pytest

from rmpe_jax.predict.pipeline import prefetch


class Source:
    """Counts up; knows how many items it made and whether it has been closed."""

    def __init__(self, count: int, error_at: int | None = None) -> None:
        self.made, self.closed = 0, False
        self._count, self._error_at = count, error_at

    def items(self):
        try:
            for i in range(self._count):
                if i == self._error_at:
                    raise ValueError("broken")
                self.made += 1
                yield i
        finally:
            self.closed = True


def squared(items):
    with contextlib.closing(items):
        for item in items:
            yield item**2


@pytest.fixture(autouse=True)
def no_thread_remains():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_items_come_in_order():
    source = Source(200)
    assert list(prefetch(squared(prefetch(source.items(), 3)), 2)) == [i**2 for i in range(200)]
    assert source.closed


def test_it_runs_ahead_by_the_size_of_its_queue():
    source = Source(1000)
    items = prefetch(source.items(), 5)
    assert next(items) == 0
    assert made_ahead(source, 7) == 7  # one taken, five in the queue, one waiting to be put
    items.close()
    assert source.closed


def made_ahead(source: Source, expected: int) -> int:
    """How many items the source makes while the consumer waits."""
    until = time.monotonic() + 30
    while source.made < expected and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    return source.made


@pytest.mark.parametrize(
    ("sizes", "in_queue"),
    [
        ([4] * 50, 2),  # of 4 bytes two are at most 10 bytes
        ([10] * 50, 1),
        ([1000] * 50, 1),  # a single item may be larger than the limit
        ([0] * 50, 5),
        ([0, 0, 9, 2, 0], 2),
    ],
)
def test_the_queue_is_limited_in_bytes(sizes, in_queue):
    source = Source(len(sizes))
    items = prefetch(source.items(), 5, 10, sizes.__getitem__)
    assert next(items) == 0
    # One is taken, and one waits to be put.
    assert made_ahead(source, in_queue + 2) == in_queue + 2
    assert list(items) == list(range(1, len(sizes)))


def test_an_error_is_raised_once_after_the_items_before_it():
    source = Source(10, error_at=4)
    items = prefetch(squared(prefetch(source.items(), 2)), 2)
    assert [next(items) for _ in range(4)] == [0, 1, 4, 9]
    with pytest.raises(ValueError, match="broken"):
        next(items)
    assert list(items) == []


def test_an_error_of_a_later_stage_closes_the_earlier_ones():
    def broken(items):
        with contextlib.closing(items):
            for item in items:
                yield 1 // (3 - item)

    source = Source(1000)
    with pytest.raises(ZeroDivisionError):
        list(prefetch(broken(prefetch(source.items(), 2)), 2))
    assert source.closed
    assert source.made < 20


def test_closing_ends_all_stages():
    source = Source(1000)
    with contextlib.closing(prefetch(squared(prefetch(source.items(), 2)), 2)) as items:
        next(items)
    assert source.closed
