"""Progress: plain lines as buildctl prints them, a live view that fits its terminal, and modes for machines."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

import pytest

from cogkit.building.build import BuildResult
from cogkit.buildkit.status import Instant, ProgressGroup, SolveStatus, to_rawjson
from cogkit.cli.flags import ProgressMode
from cogkit.cli.ui import plain, progress, steps, tty
from cogkit.cli.ui.progress import Progress, QuietView, RawJsonProgress, open_progress, shown
from cogkit.cli.ui.steps import Steps
from cogkit.cli.ui.writer import BackgroundWriter
from tests.unit.build_story import Clock, FakeWriter, Story, at
from tests.unit.screen import Screen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (steps, plain, tty, progress):
        monkeypatch.setattr(module, "time", clock, raising=False)
    monkeypatch.setattr(Clock, "time_ns", lambda self: int(self.time() * 1e9), raising=False)
    return clock


def plain_progress() -> tuple[Progress, FakeWriter]:
    writer = FakeWriter()
    real = cast(BackgroundWriter, writer)
    return Progress(real, plain.PlainView(real)), writer


def plain_text(*events: SolveStatus, clock: Clock, pause: float = 0.2) -> str:
    """What plain prints of a build with these events, ``pause`` seconds apart."""
    view, writer = plain_progress()
    for event in events:
        view.on_status(event)
        clock.pass_time(pause)
    view.close()
    return writer.text


def test_plain_prints_a_step_its_output_and_its_end(clock: Clock) -> None:
    story = Story()
    text = plain_text(
        story.begin("a", "[1/1] RUN make"),
        story.log("a", 0.1234, "one\ntwo\n"),
        story.log("a", 12.346, "three\n"),
        story.log("a", 123.45, "four\n"),
        story.end("a", 123.51),
        clock=clock,
    )
    assert text == ("#1 [1/1] RUN make\n#1 0.123 one\n#1 0.123 two\n#1 12.35 three\n#1 123.5 four\n#1 DONE 123.5s\n")


def test_plain_says_cached_canceled_and_error(clock: Clock) -> None:
    story = Story()
    text = plain_text(
        story.begin("a", "A"),
        story.end("a", 0, cached=True),
        story.begin("b", "B"),
        story.end("b", 1, error="process x: context canceled"),
        story.begin("c", "C"),
        story.log("c", 1, "why\n"),
        story.end("c", 2, error="exit code: 1"),
        clock=clock,
    )
    assert text == (
        "#1 A\n#1 CACHED\n\n#2 B\n#2 CANCELED\n\n#3 C\n#3 1.000 why\n#3 ERROR: exit code: 1\n"
        "------\n > C:\n1.000 why\n------\n"
    )


def test_plain_marks_when_another_step_takes_the_word(clock: Clock) -> None:
    story = Story()
    text = plain_text(
        story.begin("a", "A"),
        story.begin("b", "B"),
        story.end("b", 1),
        story.log("a", 1.5, "still here\n"),
        story.end("a", 2),
        clock=clock,
    )
    assert text == "#1 A\n#1 ...\n\n#2 B\n#2 DONE 1.0s\n\n#1 A\n#1 1.500 still here\n#1 DONE 2.0s\n"


def test_plain_lets_a_silenced_step_have_the_word_in_the_end(clock: Clock) -> None:
    story = Story()
    events = [story.begin("a", "A"), story.begin("b", "B")]
    for second in range(1, 30):
        events += [story.log("a", second, f"a{second}\n"), story.log("b", second, f"b{second}\n")]
    text = plain_text(*events, story.end("a", 31), story.end("b", 31), clock=clock, pause=0.5)
    assert text.count("#1 ...") >= 1 and text.count("#2 ...") >= 1
    assert re.findall(r"#1 \S+ (a\d+)", text) == [f"a{second}" for second in range(1, 30)]
    assert re.findall(r"#2 \S+ (b\d+)", text) == [f"b{second}" for second in range(1, 30)]


def test_plain_prints_a_transfer_when_it_moved_on_and_when_it_ends(clock: Clock) -> None:
    story = Story()
    text = plain_text(
        story.begin("a", "load"),
        story.transfer("a", "sha256:12", 0.005, 0, 2_000_000),
        story.transfer("a", "sha256:12", 0.5, 50_000, 2_000_000),
        story.transfer("a", "sha256:12", 1, 1_234_567, 2_000_000),
        story.transfer("a", "sha256:12", 1.5, 2_000_000, 2_000_000, done=True),
        story.transfer("a", "context:", 1.5, 12, done=True),
        story.end("a", 2),
        clock=clock,
    )
    assert text == (
        "#1 load\n#1 sha256:12 0B / 2.00MB\n#1 sha256:12 1.23MB / 2.00MB 1.0s\n#1 sha256:12 2.00MB / 2.00MB 1.5s done\n"
        "#1 context: 12B 1.5s done\n#1 DONE 2.0s\n"
    )


def test_plain_prints_a_warning_once(clock: Clock) -> None:
    story = Story()
    text = plain_text(
        story.begin("a", "A"), story.warn("a", "odd\x1b[2J case"), story.end("a", 1), story.begin("a", "A"), clock=clock
    )
    assert text.count("#1 WARN: odd case\n") == 1


def test_what_is_told_after_the_end_of_a_step_is_printed_without_a_second_end(clock: Clock) -> None:
    story = Story()
    text = plain_text(
        story.begin("a", "A"),
        story.end("a", 1),
        story.begin("b", "B"),
        story.end("b", 1),
        story.warn("a", "odd"),
        story.transfer("a", "context:", 1, 5, done=True),
        clock=clock,
    )
    assert text == "#1 A\n#1 DONE 1.0s\n\n#2 B\n#2 DONE 1.0s\n\n#1 A\n#1 WARN: odd\n\n#1 A\n#1 context: 5B 1.0s done\n"


def test_a_step_that_fails_the_second_time_says_so(clock: Clock) -> None:
    story = Story()
    events = (story.begin("a", "A", 0), story.end("a", 1), story.begin("a", "A", 5), story.end("a", 6, error="x"))
    assert plain_text(*events, clock=clock) == "#1 A\n#1 DONE 1.0s\n\n#1 A\n#1 ERROR: x\n"


def test_steps_of_a_group_are_one_step(clock: Clock) -> None:
    story, group = Story(), ProgressGroup("g", "the group")
    text = plain_text(
        story.begin("a", "A", 0, group),
        story.begin("b", "B", 1, group),
        story.log("b", 2, "from b\n"),
        story.end("a", 2),
        story.end("b", 3),
        clock=clock,
    )
    assert text == "#1 the group\n#1 1.000 from b\n#1 DONE 3.0s\n".replace("1.000", "2.000")


def test_a_group_of_weak_members_only_is_not_shown(clock: Clock) -> None:
    story, weak = Story(), ProgressGroup("g", "the group", weak=True)
    assert plain_text(story.begin("a", "A", 0, weak), story.end("a", 1), clock=clock) == ""
    assert "the group" in plain_text(story.begin("b", "B", 0, weak), story.end("b", 1, error="x"), clock=clock)


def test_a_step_that_runs_again_counts_all_its_time(clock: Clock) -> None:
    story = Story()
    text = plain_text(
        story.begin("a", "A", 0), story.end("a", 1), story.begin("a", "A", 5), story.end("a", 7.5), clock=clock
    )
    assert text.endswith("#1 DONE 3.5s\n")


def test_a_step_that_never_started_is_not_shown(clock: Clock) -> None:
    assert plain_text(Story().announce("a", "A"), clock=clock) == ""


def test_announcing_a_step_again_does_not_undo_it(clock: Clock) -> None:
    story = Story()
    text = plain_text(story.begin("a", "A"), story.end("a", 1), story.announce("a", "A"), clock=clock)
    assert text == "#1 A\n#1 DONE 1.0s\n"


def test_output_of_an_unknown_step_is_passed_over(clock: Clock) -> None:
    story = Story()
    assert plain_text(story.log("?", 1, "x\n"), story.warn("?", "x"), story.transfer("?", "x", 1, 1), clock=clock) == ""


def test_output_is_cut_into_lines_whatever_the_pieces(clock: Clock) -> None:
    data = "one\n\ntwö\r\nframe 1\rframe 2\r\nthree\n".encode()
    expected = ["one", "", "twö", "frame 1", "frame 2", "three"]
    for seed in range(200):
        chosen, story = random.Random(seed), Story()
        cuts = sorted(chosen.sample(range(len(data) + 1), chosen.randint(0, 6)))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        logs = [story.log("a", 1, piece) for piece in pieces]
        text = plain_text(story.begin("a", "A"), *logs, story.end("a", 2), clock=clock, pause=0.0)
        lines = [line.removeprefix("#1 1.000 ") for line in text.splitlines()[1:-1]]
        assert lines == expected, pieces


def test_output_that_does_not_end_its_line_is_shown_after_a_while_and_at_the_end(clock: Clock) -> None:
    story = Story()
    view, writer = plain_progress()
    view.on_status(story.begin("a", "A"))
    view.on_status(story.log("a", 1, "Password: "))
    clock.pass_time(0.5)
    view.refresh()
    assert "Password" not in writer.text
    clock.pass_time(1)
    view.refresh()
    assert writer.text.endswith("#1 1.000 Password: \n")
    view.on_status(story.log("a", 3, "\nlast"))
    view.on_status(story.end("a", 4))
    view.close()
    assert writer.text.endswith("#1 1.000 Password: \n#1 3.000 last\n#1 DONE 4.0s\n")


def test_output_cannot_command_the_terminal_but_may_be_coloured(clock: Clock) -> None:
    story = Story()
    nasty = "\x1b[31mred\x1b[0m \x1b[2J\x1b[1;1H\x1b]0;title\x07\x1bPq\x1b\\\x07\x08\x9b5A ok \x1b[1mbold"
    text = plain_text(story.begin("a", "A\x1b[2J\nB"), story.log("a", 1, nasty + "\n"), story.end("a", 2), clock=clock)
    assert text == "#1 A B\n#1 1.000 \x1b[31mred\x1b[0m  ok \x1b[1mbold\x1b[0m\n#1 DONE 2.0s\n"


def test_output_that_is_not_utf8_is_shown_with_replacement_characters(clock: Clock) -> None:
    story = Story()
    text = plain_text(story.begin("a", "A"), story.log("a", 1, b"caf\xe9\n"), story.end("a", 2), clock=clock)
    assert "#1 1.000 caf\ufffd\n" in text


def test_plain_repeats_only_the_last_lines_of_what_failed(clock: Clock) -> None:
    story = Story()
    output = "".join(f"line {number}\n" for number in range(300))
    text = plain_text(story.begin("a", "A"), story.log("a", 1, output), story.end("a", 2, error="x"), clock=clock)
    _, frame = text.split("------\n > A:\n")
    assert frame.startswith("… 290 earlier lines\n1.000 line 290\n")
    assert frame.endswith("1.000 line 299\n------\n")


def test_plain_does_not_print_more_often_than_ten_times_a_second(clock: Clock) -> None:
    story = Story()
    view, writer = plain_progress()
    view.on_status(story.begin("a", "A"))
    for number in range(1000):
        view.on_status(story.log("a", 1, f"{number}\n"))
        clock.pass_time(0.001)
    assert len(writer.written) <= 12


def test_quiet_is_silent_until_something_fails(clock: Clock) -> None:
    story, writer = Story(), FakeWriter()
    real = cast(BackgroundWriter, writer)
    view = Progress(real, QuietView(real))
    for event in (story.begin("a", "A"), story.log("a", 1, "why"), story.warn("a", "odd")):
        view.on_status(event)
    view.refresh()
    assert writer.text == ""
    view.on_status(story.end("a", 2, error="x"))
    view.close()
    assert writer.text == "------\n > A:\n1.000 why\n------\n"


def test_rawjson_is_one_line_for_each_event_and_nothing_else(clock: Clock) -> None:
    story, writer = Story(), FakeWriter()
    view = RawJsonProgress(cast(BackgroundWriter, writer))
    events = [story.begin("a", "A"), story.log("a", 1, "x\n"), story.end("a", 2, error="x")]
    for event in events:
        view.on_status(event)
    view.on_warning("deprecated")
    view.on_lock_wait("pid 1", None)
    view.on_status(story.begin("b", "B"))
    view.close()
    lines = writer.text.splitlines()
    assert lines[:3] == [to_rawjson(event) for event in events]
    documents = [json.loads(line) for line in lines]
    assert "warnings" in documents[3]
    assert documents[4]["vertexes"][0]["name"] == "[internal] waiting for the lock held by pid 1"
    assert documents[5]["vertexes"][0]["completed"]
    assert len(documents) == 7


def test_waiting_for_the_lock_is_a_step_that_ends_with_the_first_event(clock: Clock) -> None:
    story = Story()
    view, writer = plain_progress()
    since = datetime(2024, 5, 1, 10, 30, tzinfo=UTC)
    for _ in range(3):
        view.on_lock_wait("pid 12 (cogkit build)", since)
        clock.pass_time(5)
        view.refresh()
    view.on_status(story.begin("a", "A"))
    view.on_status(story.end("a", 1))
    view.close()
    shown_since = since.astimezone().strftime("%H:%M:%S")
    assert writer.text == (
        f"#1 [internal] waiting for the lock held by pid 12 (cogkit build) since {shown_since}\n"
        "#1 DONE 15.0s\n\n#2 A\n#2 DONE 1.0s\n"
    )


def test_a_warning_is_a_line_of_its_own(clock: Clock) -> None:
    view, writer = plain_progress()
    view.on_warning("python_packages is deprecated\x1b[2J")
    assert writer.text == "warning: python_packages is deprecated\n"


# --- the live view ---


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return -1


class Live:
    """A live view on a screen whose size can change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int = 60, rows: int = 20) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        self.size: tuple[int, int] = (columns, rows)
        monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size(self.size))
        self.screen = Screen(columns, rows)
        self.writer = FakeWriter(Terminal())
        self.writer.write = self.screen.feed  # type: ignore[method-assign]
        real = cast(BackgroundWriter, self.writer)
        self.progress = Progress(real, tty.TtyView(real))

    def resize(self, columns: int) -> None:
        self.size = (columns, self.size[1])
        self.screen.resize(columns)


MakeLive = Callable[..., Live]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> MakeLive:
    return lambda **size: Live(monkeypatch, **size)


def test_the_live_view_shows_steps_with_their_times(live: MakeLive, clock: Clock) -> None:
    view, story = live(columns=50), Story()
    view.progress.on_status(story.begin("a", "[1/2] COPY . /"))
    view.progress.on_status(story.transfer("a", "transferring:", 0.2, 1_234_567))
    clock.pass_time(1)
    view.progress.on_status(story.end("a", 1))
    view.progress.on_status(story.begin("b", "[2/2] RUN make", 1))
    view.progress.on_status(story.log("b", 1.5, "".join(f"line {number}\n" for number in range(9))))
    view.progress.on_status(story.begin("c", "cached", 1))
    view.progress.on_status(story.end("c", 1, cached=True))
    clock.pass_time(2.5)
    view.progress.refresh()
    assert view.screen.lines[:-1] == [
        "[+] Building 3.5s (2/3)",
        " => [1/2] COPY . /                            1.0s",
        " => => transferring: 1.23MB                   1.0s",
        " => [2/2] RUN make                            2.5s",
        *(f" => => # line {number}" for number in range(3, 9)),
        " => CACHED cached                             0.0s",
    ]
    assert view.screen.cursor_shown


def test_the_live_view_ends_with_all_steps_and_the_output_of_what_failed(live: MakeLive, clock: Clock) -> None:
    view, story = live(columns=40, rows=6), Story()
    for number in range(8):
        view.progress.on_status(story.begin(f"{number}", f"step {number}"))
        view.progress.on_status(story.end(f"{number}", 1))
    view.progress.on_status(story.begin("bad", "RUN false"))
    view.progress.on_status(story.log("bad", 1, "why\nbecause"))
    view.progress.on_status(story.end("bad", 2, error="exit code: 1"))
    view.progress.close()
    lines = view.screen.text.split("\n")
    assert lines[0].startswith("[+] Building 0.0s (9/9) FINISHED")
    assert [line.split()[2] for line in lines[1:9]] == [f"{number}" for number in range(8)]
    assert lines[9].startswith(" => ERROR RUN false")
    assert lines[10:] == ["------", " > RUN false:", "1.000 why", "1.000 because", "------"]
    assert view.screen.cursor_shown


@pytest.mark.parametrize("rows", [2, 3, 5, 8, 50])
@pytest.mark.parametrize("columns", [5, 17, 40, 200])
def test_the_live_view_never_takes_more_than_the_terminal_has(
    live: MakeLive, clock: Clock, rows: int, columns: int
) -> None:
    view, story = live(columns=columns, rows=rows), Story()
    for number in range(12):
        view.progress.on_status(story.begin(f"{number}", f"step {number} with a long name of wide 字字字字 letters"))
        view.progress.on_status(story.log(f"{number}", 1, "out 字\tput\n" * 10))
        if number % 2:
            view.progress.on_status(story.end(f"{number}", 1))
        clock.pass_time(0.2)
        view.progress.refresh()
        assert view.screen.scrolled == []
        assert view.screen.lines[0].startswith("[+] Building"[:columns])


def test_what_runs_stays_in_view_when_room_is_short(live: MakeLive, clock: Clock) -> None:
    view, story = live(rows=6), Story()
    view.progress.on_status(story.begin("slow", "the slow one"))
    for number in range(20):
        view.progress.on_status(story.begin(f"{number}", f"step {number}"))
        view.progress.on_status(story.end(f"{number}", 1))
    clock.pass_time(1)
    view.progress.refresh()
    assert [line.split("  ")[0].strip() for line in view.screen.lines[:5]] == [
        "[+] Building 1.0s (20/21)",
        "=> the slow one",
        "=> step 17",
        "=> step 18",
        "=> step 19",
    ]


@pytest.mark.parametrize("widths", [(30,), (80,), (30, 80, 13, 60)])
def test_a_window_of_another_width_leaves_no_torn_lines(live: MakeLive, clock: Clock, widths: tuple[int, ...]) -> None:
    view, story = live(columns=60, rows=60), Story()
    for number in range(4):
        view.progress.on_status(story.begin(f"{number}", f"step {number} with quite a long name so that it wraps"))
    for width in widths:
        clock.pass_time(1)
        view.progress.refresh()
        view.resize(width)
    clock.pass_time(1)
    view.progress.refresh()
    assert len([line for line in view.screen.lines if line]) == 5
    assert [line for line in view.screen.lines if "Building" in line] == [view.screen.lines[0]]


def test_a_warning_stands_above_the_live_view(live: MakeLive, clock: Clock) -> None:
    view, story = live(), Story()
    view.progress.on_status(story.begin("a", "A"))
    view.progress.on_warning("beware")
    clock.pass_time(1)
    view.progress.refresh()
    assert view.screen.lines[0] == "warning: beware"
    assert view.screen.lines[1].startswith("[+] Building 1.0s")
    assert view.screen.text.count("beware") == 1


def test_a_progress_bar_is_one_line_in_the_live_view(live: MakeLive, clock: Clock) -> None:
    view, story = live(), Story()
    view.progress.on_status(story.begin("a", "A"))
    view.progress.on_status(story.log("a", 1, "start\n"))
    for percent in range(0, 100, 10):
        view.progress.on_status(story.log("a", 1, f"{percent}%\r"))
    clock.pass_time(1)
    view.progress.refresh()
    assert view.screen.lines[2:4] == [" => => # start", " => => # 90%"]


def test_the_live_view_waits_for_a_terminal_that_takes_nothing(live: MakeLive, clock: Clock) -> None:
    view, story = live(), Story()
    view.progress.on_status(story.begin("a", "A"))
    before = view.screen.text
    view.writer.idle = False
    clock.pass_time(5)
    view.progress.refresh()
    assert view.screen.text == before


def test_a_thousand_steps_cost_little() -> None:
    writer, story = FakeWriter(), Story()
    view = tty.TtyView(cast(BackgroundWriter, writer))
    known = Steps()
    for number in range(1000):
        known.add(story.begin(f"{number}", f"step {number}"))
        known.add(story.transfer(f"{number}", "sha256:0", 1, 5, 10, done=True))
        if number < 990:
            known.add(story.end(f"{number}", 1))
    view.update(known)
    began = time.process_time()
    for _ in range(10):
        view.refresh()
    assert (time.process_time() - began) / 10 < 0.02


# --- choosing and running ---


@pytest.mark.parametrize(
    ("mode", "stream", "term", "kind"),
    [
        (ProgressMode.AUTO, Terminal(), "xterm", tty.TtyView),
        (ProgressMode.AUTO, Terminal(), "dumb", plain.PlainView),
        (ProgressMode.AUTO, io.StringIO(), "xterm", plain.PlainView),
        (ProgressMode.PLAIN, Terminal(), "xterm", plain.PlainView),
        (ProgressMode.QUIET, Terminal(), "xterm", QuietView),
        (ProgressMode.TTY, Terminal(), "xterm", tty.TtyView),
    ],
)
def test_auto_is_live_on_a_terminal_that_can_and_plain_elsewhere(
    mode: ProgressMode, stream: io.StringIO, term: str, kind: type
) -> None:
    opened = open_progress(mode, stream=stream, environ={"TERM": term})
    assert isinstance(opened._view, kind)


class SlowStream(io.StringIO):
    """Takes its time with everything written to it."""

    def write(self, text: str) -> int:
        time.sleep(0.5)
        return super().write(text)


def test_a_slow_terminal_does_not_hold_the_event_loop() -> None:
    stream, story = SlowStream(), Story()

    async def longest_pause() -> float:
        pauses = []
        async with shown(open_progress(ProgressMode.PLAIN, stream=stream)) as view:
            for number in range(3):
                began = time.monotonic()
                view.on_status(story.begin(f"{number}", f"step {number}"))
                view.on_status(story.end(f"{number}", 1))
                await asyncio.sleep(0)
                pauses.append(time.monotonic() - began)
        return max(pauses)

    assert asyncio.run(longest_pause()) < 0.4
    assert "#3 step 2\n#3 DONE 1.0s\n" in stream.getvalue()


class ClosedStream(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_build_goes_on_when_nobody_reads_its_progress() -> None:
    story = Story()

    async def build() -> str:
        async with shown(open_progress(ProgressMode.PLAIN, stream=ClosedStream())) as view:
            view.on_status(story.begin("a", "A"))
            await asyncio.sleep(0.05)
            view.on_status(story.end("a", 1))
        return "built"

    assert asyncio.run(build()) == "built"


def test_a_failed_build_does_not_wait_for_ever_for_a_stopped_terminal() -> None:
    class Stopped(io.StringIO):
        def write(self, text: str) -> int:
            time.sleep(3)
            return len(text)

    async def build() -> None:
        async with shown(open_progress(ProgressMode.PLAIN, stream=Stopped())) as view:
            view.on_status(Story().begin("a", "A"))
            raise KeyError

    began = time.monotonic()
    with pytest.raises(KeyError):
        asyncio.run(build())
    assert time.monotonic() - began < 25


def test_running_times_move_without_events() -> None:
    class Counting(QuietView):
        refreshed = 0

        def refresh(self) -> None:
            self.refreshed += 1

    writer = BackgroundWriter(io.StringIO())
    view = Counting(writer)

    async def wait() -> None:
        async with shown(Progress(writer, view)):
            await asyncio.sleep(0.35)

    asyncio.run(wait())
    assert 1 <= view.refreshed <= 3


def test_the_result_line_names_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = BuildResult("ref", (), None, None, {})
    for mode in ProgressMode:
        progress.show_result(nothing, mode, stdout_taken=False)
    assert capsys.readouterr() == ("", "")


def test_times_of_the_story_are_instants() -> None:
    assert isinstance(at(1.5), Instant) and (at(1.5) - at(0)).total_seconds() == 1.5
