"""A process of the container with the standard streams, the terminal and the signals of this one.

This file must not start the process, nor know what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cogkit.buildkit.blocking import Lane
from cogkit.errors import CogkitError
from cogkit.running.link import Channel, RefusedError, RemoteProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cogkit.running.link import Link

STDIN, STDOUT, STDERR = 0, 1, 2
_PIECE = 64 * 1024
_LAST_WORDS = 1.5
"""Seconds that an interrupted process has to end by itself."""


def has_terminal() -> bool:
    """Whether a process may have a terminal here: somebody types and somebody reads."""
    return os.isatty(STDIN) and os.isatty(STDOUT)


def terminal_size() -> tuple[int, int]:
    """Rows and columns."""
    columns, rows = shutil.get_terminal_size()
    return rows, columns


async def run_attached(
    link: Link, args: Sequence[str], env: Mapping[str, str], cwd: str, *, with_input: bool = True
) -> int:
    """Run a command to its end with our streams, and give its exit code.

    Cancelling interrupts it, and waits a moment for its end.
    """
    with_terminal = with_input and has_terminal()
    if with_terminal:
        env = {**env, "TERM": env.get("TERM", "xterm")}
    process = await link.start(args, env, cwd, terminal=terminal_size() if with_terminal else None, input=with_input)
    with contextlib.ExitStack() as stack:
        if with_terminal:
            stack.enter_context(_raw_terminal())
            stack.enter_context(_resizing(process))
        return await attach(process)


async def attach(process: RemoteProcess) -> int:
    """Join our streams to those of a process until it ends; its exit code."""
    inward = asyncio.create_task(_send_input(process.stdin)) if process.stdin is not None else None
    outward = [asyncio.create_task(copy_output(process.stdout, STDOUT))]
    if process.stderr is not None:
        outward.append(asyncio.create_task(copy_output(process.stderr, STDERR)))
    try:
        code = await process.wait()
        await asyncio.gather(*outward)
        return code
    except asyncio.CancelledError:
        await _interrupt(process)
        raise
    finally:
        tasks = [*outward, *([inward] if inward is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _interrupt(process: RemoteProcess) -> None:
    with contextlib.suppress(CogkitError, TimeoutError):
        async with asyncio.timeout(_LAST_WORDS):
            await process.signal("INT")
            await process.wait()


async def copy_output(channel: Channel, fd: int, seen: Callable[[bytes], None] | None = None) -> None:
    """Write what comes to a descriptor of ours, and show it to ``seen``; who reads it sets the pace."""
    lane = Lane("cogkit-output")
    try:
        while data := await channel.read():
            if seen is not None:
                seen(data)
            await lane.run(_write_all, fd, data)
    except (BrokenPipeError, OSError):
        # Nobody reads it any more; the process is to feel that, as it would here.
        channel.reset()
    except RefusedError:
        pass
    finally:
        lane.close()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            select.select([], [fd], [])


async def _send_input(channel: Channel) -> None:
    lane = Lane("cogkit-input")
    try:
        while data := await lane.run(_read):
            await channel.write(data)
        channel.end()
    except CogkitError:
        pass  # it reads no more, and nobody needs to know
    finally:
        lane.close()


def _read() -> bytes:
    try:
        return os.read(STDIN, _PIECE)
    except OSError:
        return b""


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Every key goes to the other side as it is."""
    import termios
    import tty

    before: list[Any] = termios.tcgetattr(STDIN)
    try:
        tty.setraw(STDIN, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)
        sys.stdout.flush()


@contextlib.contextmanager
def _resizing(process: RemoteProcess) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def resized() -> None:
        task = asyncio.create_task(process.resize(*terminal_size()))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGWINCH, resized)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)
