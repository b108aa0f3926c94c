"""Several transfers at once, reading ahead, and how progress is said."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest

from cogkit.cli.ui.transfer_view import TransferView, progress_line
from cogkit.errors import CogkitError, Interrupted, UsageError
from cogkit.weights.transfer import ahead, concurrency, in_parallel


def test_results_come_in_the_order_of_the_items() -> None:
    assert in_parallel(lambda item: item * 2, range(20), threading.Event(), 4) == list(range(0, 40, 2))
    assert in_parallel(lambda item: item, [], threading.Event(), 4) == []


def test_the_first_failure_stops_the_others_and_is_what_is_raised() -> None:
    stop = threading.Event()

    def work(item: int) -> None:
        if item == 3:
            raise CogkitError("the third")
        if not stop.wait(60):
            raise AssertionError("nobody stopped it")
        raise Interrupted("interrupted")

    with pytest.raises(CogkitError, match="the third"):
        in_parallel(work, range(4), stop, 4)
    assert stop.is_set()


def test_a_stream_that_is_read_ahead_is_the_same() -> None:
    assert list(ahead(iter(range(100)), depth=3)) == list(range(100))
    assert list(ahead(iter(()))) == []


def test_a_failure_comes_after_what_was_read_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise CogkitError("broken")

    found = []
    with pytest.raises(CogkitError, match="broken"):
        for item in ahead(failing()):
            found.append(item)
    assert found == [1]


def test_who_leaves_early_leaves_no_thread_behind() -> None:
    ended = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    stream = ahead(endless(), depth=2)
    assert next(stream) == 1
    stream.close()  # type: ignore[attr-defined]
    assert ended.wait(60)


@pytest.mark.parametrize(("value", "number"), [("", 4), ("1", 1), ("64", 64)])
def test_how_many_at_once_comes_from_the_environment(value: str, number: int) -> None:
    assert concurrency({"COG_PUSH_CONCURRENCY": value}) == number


@pytest.mark.parametrize("value", ["0", "65", "-1", "many", "1.5"])
def test_a_number_that_makes_no_sense_is_told(value: str) -> None:
    with pytest.raises(UsageError, match="COG_PUSH_CONCURRENCY"):
        concurrency({"COG_PUSH_CONCURRENCY": value})


@pytest.mark.parametrize(
    ("done", "total", "rate", "line"),
    [
        (0, 0, 0.0, "x 0 B"),
        (512, 1024, 0.0, "x 0.5 of 1.0 KiB"),
        (1 << 30, 4 << 30, float(300 << 20), "x 1.0 of 4.0 GiB, 300.0 MiB/s, 10 s left"),
        (1 << 20, 10 << 30, float(1 << 20), "x 0.0 of 10.0 GiB, 1.0 MiB/s, 2.8 h left"),
        (0, 200 << 20, float(1 << 20), "x 0.0 of 200.0 MiB, 1.0 MiB/s, 3 min left"),
    ],
)
def test_progress_says_how_much_how_fast_and_how_long(done: int, total: int, rate: float, line: str) -> None:
    assert progress_line("x", done, total, rate) == line


def test_without_a_terminal_there_are_only_lines() -> None:
    stream = io.StringIO()
    with TransferView(stream) as view:
        view.say("one\x1b[2J")
        view.start("base", 10)
        view.moved(5)
        view.finish()
        view.say("two")
    assert stream.getvalue() == "one\ntwo\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_written_over_and_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with TransferView(stream) as view:
        view.start("base: Downloading", 1024)
        view.moved(512)
        view.say("a line")
    assert "\r\x1b[Kbase: Downloading 0.5 of 1.0 KiB" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[Ka line\n")
