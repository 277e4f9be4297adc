"""Stages in threads: order, how far they run ahead, and that all end whatever happens."""

import contextlib
import threading
import time

import pytest

from rmpe_jax.predict.pipeline import ahead


class Source:
    """Counts up; says how far it is and whether it has been closed."""

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
def no_thread_is_left():
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_everything_comes_in_order():
    source = Source(200)
    assert list(ahead(squared(ahead(source.items(), 3)), 2)) == [i**2 for i in range(200)]
    assert source.closed


def test_it_runs_ahead_by_the_size_of_its_queue_and_no_more():
    source = Source(1000)
    items = ahead(source.items(), 5)
    assert next(items) == 0
    until = time.monotonic() + 30
    while source.made < 7 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert source.made == 7  # one taken, five in the queue, one waiting for a place
    items.close()
    assert source.closed


def test_an_error_comes_after_what_was_before_it_and_once():
    source = Source(10, error_at=4)
    items = ahead(squared(ahead(source.items(), 2)), 2)
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
        list(ahead(broken(ahead(source.items(), 2)), 2))
    assert source.closed
    assert source.made < 20


def test_a_consumer_that_leaves_ends_all():
    source = Source(1000)
    with contextlib.closing(ahead(squared(ahead(source.items(), 2)), 2)) as items:
        next(items)
    assert source.closed
