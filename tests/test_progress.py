import io

import pytest

from rmpe_jax import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_items_pass_through_and_the_end_is_said():
    log = io.StringIO()
    assert list(progress.progress(iter("abc"), 3, "letters", log)) == ["a", "b", "c"]
    assert log.getvalue().startswith("3/3 letters, ")
    assert log.getvalue().endswith("/s, 0:00 left\n")
    assert log.getvalue().count("\n") == 1


def test_a_terminal_has_one_line_that_is_rewritten():
    terminal = Terminal()
    list(progress.progress(range(3), 3, "things", terminal, interval=0.0))
    text = terminal.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert [line.split(" ")[0] for line in text.split("\r")[1:]] == ["1/3", "2/3", "3/3"]


def test_a_log_has_a_line_each_time():
    log = io.StringIO()
    list(progress.progress(range(3), 3, "things", log, interval=0.0))
    assert [line.split(" ")[0] for line in log.getvalue().splitlines()] == ["1/3", "2/3", "3/3"]


def test_nothing_to_do_says_nothing():
    log = io.StringIO()
    assert list(progress.progress([], 0, "things", log)) == []
    assert log.getvalue() == ""


def test_rate_and_time_left():
    line = progress.progress_line(1_200, 5_000, "images", 4.0)
    assert line == "1,200/5,000 images, 300/s, 0:13 left"
    assert progress.progress_line(9, 10, "images", 18.0) == "9/10 images, 0.5/s, 0:02 left"


def test_more_than_was_announced_leaves_nothing():
    line = progress.progress_line(1_010, 1_000, "frames", 101.0)
    assert line == "1,010/1,000 frames, 10/s, 0:00 left"


def test_without_a_total_there_is_no_time_left():
    assert progress.progress_line(1_200, None, "frames", 4.0) == "1,200 frames, 300/s"
    terminal = Terminal()
    list(progress.progress(range(3), None, "frames", terminal, interval=0.0))
    assert [line.split(" ")[0] for line in terminal.getvalue().split("\r")[1:]] == ["1", "2", "3"]
    assert terminal.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (8, "0:08"), (75, "1:15"), (3600, "1:00:00"), (7384, "2:03:04")],
)
def test_duration(seconds, text):
    assert progress.duration(seconds) == text
