"""A model's HTTP server on the builder, reached at a port of this machine for as long as it runs.

With a watch on the project, a new server is made beside the one that runs and takes its place when it is ready; one
that cannot be made leaves the old one in place.  This file must not show anything but through what it is given.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from cogkit.buildkit.blocking import in_thread
from cogkit.errors import CogkitError, UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.project.dotcog import DOTCOG_NAME
from cogkit.running.attached import STDERR, STDOUT, copy_output
from cogkit.running.command import model_env
from cogkit.running.link import Link
from cogkit.running.model import ASK_EVERY, SERVER, ModelError, health
from cogkit.running.outputs import Tell
from cogkit.running.ports import DEFAULT_HOST, Forwarder, serve_here
from cogkit.running.session import HOST_NAME, Running

DEFAULT_PORT = 8393
LOOK_EVERY = 0.3
"""Seconds between two looks at the project's files."""
DRAIN_SECONDS = 5.0
"""How long a model that is replaced has to answer what it was asked."""
TAIL_LINES = 20
_TAIL = 16 * 1024
_NAMED_PORT = re.compile(rb"host\.docker\.internal:([0-9]{1,5})(?![0-9])")

OpenSession = Callable[[], AbstractAsyncContextManager[Running]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How a model is served.

    Attributes:
        host, port: Where, on this machine.
        upload_url: Where the server puts files that it makes.
        env: Variables of the user's.
        watch: The project's folder, to start again when something in it changes; None: not.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    upload_url: str = ""
    env: Mapping[str, str]
    watch: Path | None = None

    @property
    def url(self) -> str:
        """Where it is reached, in Cog's words."""
        shown = "localhost" if self.host in (DEFAULT_HOST, "::1", "0.0.0.0") else self.host
        url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}"
        return f"http://0.0.0.0:{self.port} ({url})" if self.host == "0.0.0.0" else url

    @property
    def args(self) -> list[str]:
        """The server's command line."""
        return [*SERVER, *(["--upload-url", self.upload_url] if self.upload_url else [])]


def reserve(host: str, port: int) -> socket.socket:
    """Take the port before anything is built; nobody is let in yet.

    Raises:
        UsageError: it cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        reserved = socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(address)
    except OSError as problem:
        raise UsageError(
            f"cannot listen on {host}:{port}: {problem.strerror or problem}",
            hint="see what uses the port, or choose another with -p",
        ) from None
    return reserved


class _Forwarding(Forwarder):
    """The server's port here; ports of this machine that requests name become known in the container."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[tuple[int, int]] = set()

    async def look_at(self, data: bytes) -> None:
        if HOST_NAME.encode() not in data or self.running is None or self.running.where.same_network:
            return
        for found in _NAMED_PORT.finditer(data):
            await reach_here(self.running.link, int(found[1]), self._known)


async def reach_here(link: Link, port: int, known: set[tuple[int, int]]) -> None:
    """Let what runs in the container reach a port of this machine at `HOST_NAME`."""
    if (id(link), port) in known or not 0 < port < 65536:
        return
    known.add((id(link), port))
    with suppress(CogkitError):
        await link.listen(port, serve_here)


async def serve(open_session: OpenSession, options: ServeOptions, environ: Mapping[str, str], tell: Tell) -> None:
    """Serve until cancelled.

    Args:
        open_session: Makes a container of the project as it is then.
        options: How.
        environ: Our own environment.
        tell: Says a line to the user.

    Raises:
        ModelError: the server ended.
        CogkitError: the container, or the builder, is gone; or it cannot be built.
    """
    forwarder = _Forwarding()
    reserved = reserve(options.host, options.port)
    current: _Generation | None = None
    try:
        current = await _Generation.begin(open_session, options, environ)
        forwarder.use(current.running, current.port)
        await forwarder.listen_on(reserved)
        tell(f"Serving at {options.url}")
        tell("")
        if options.watch is None:
            await current.end_of_it()
            return
        seen = await in_thread(_snapshot, options.watch)
        while True:
            seen = await _next_change(options.watch, seen, current, tell)
            tell("Something has changed: building and starting the model again...")
            following: _Generation | None = None
            try:
                following = await _Generation.begin(open_session, options, environ)
                await following.until_ready()
            except CogkitError as problem:
                tell(f"the model that runs stays: {problem}")
                if following is not None:
                    await following.close()
                continue
            forwarder.use(following.running, following.port)
            before, current = current, following
            await forwarder.drained(before.running, DRAIN_SECONDS)
            await before.close()
            tell(f"Serving at {options.url}")
    finally:
        await forwarder.close()
        reserved.close()
        if current is not None:
            await current.close()


class _Generation:
    """One container with one server, in a task of its own."""

    def __init__(self) -> None:
        self.running: Running
        self.port = 0
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None]

    @classmethod
    async def begin(cls, open_session: OpenSession, options: ServeOptions, environ: Mapping[str, str]) -> _Generation:
        """Start one; returns when it takes connections, or has failed."""
        self = cls()
        ready = asyncio.Event()
        self._task = asyncio.create_task(self._live(open_session, options, environ, ready))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.is_set():
                self._task.result()
            return self
        except BaseException:
            await self.close()
            raise
        finally:
            waiting.cancel()

    @property
    def has_ended(self) -> bool:
        return self._task.done()

    async def end_of_it(self) -> None:
        """Wait for its end, which is always an error."""
        await asyncio.shield(self._task)

    async def until_ready(self) -> None:
        """Wait until the model is set up.

        Raises:
            ModelError: it failed, or ended.
        """
        while (status := await health(self.running.link, self.port)) != "READY":
            if status == "SETUP_FAILED":
                raise ModelError("Model setup failed", hint="its own words are above")
            await asyncio.wait({self._task}, timeout=ASK_EVERY)
            if self._task.done():
                self._task.result()

    async def close(self) -> None:
        self._stop.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(3.0):
                await asyncio.gather(asyncio.shield(self._task), return_exceptions=True)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _live(
        self, open_session: OpenSession, options: ServeOptions, environ: Mapping[str, str], ready: asyncio.Event
    ) -> None:
        async with open_session() as running:
            self.running = running
            await running.run(self._serve(options, environ, ready))

    async def _serve(self, options: ServeOptions, environ: Mapping[str, str], ready: asyncio.Event) -> None:
        link, image = self.running.link, self.running.image
        upload = urlsplit(options.upload_url)
        if upload.hostname == HOST_NAME and not self.running.where.same_network:
            await reach_here(link, upload.port or 80, set())
        self.port = await link.free_port()
        env = {**model_env(self.running, options.env, environ), "PORT": str(self.port)}
        process = await link.start(image.args(options.args), env, image.working_dir)
        assert process.stderr is not None
        tail = _Tail()
        logs = [
            asyncio.create_task(copy_output(process.stdout, STDOUT, tail.add)),
            asyncio.create_task(copy_output(process.stderr, STDERR, tail.add)),
        ]
        exited, stopped = asyncio.create_task(process.wait()), asyncio.create_task(self._stop.wait())
        ready.set()
        try:
            await asyncio.wait({exited, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                await asyncio.wait(logs, timeout=1.0)
                raise ModelError(
                    f"the model's server ended with exit code {exited.result()}",
                    hint="start it again when the cause is mended; --watch does so when a file changes",
                    detail=tail.text() or None,
                )
        finally:
            for task in (*logs, exited, stopped):
                task.cancel()
            await asyncio.gather(*logs, exited, stopped, return_exceptions=True)


class _Tail:
    """The last lines that were written."""

    def __init__(self) -> None:
        self._kept = b""

    def add(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-_TAIL:]

    def text(self) -> str:
        return "\n".join(self._kept.decode("utf-8", "replace").splitlines()[-TAIL_LINES:])


# ---------------------------------------------------------------- watching the project


async def _next_change(root: Path, seen: _Snapshot, current: _Generation, tell: Tell) -> _Snapshot:
    """Wait until something in the project has changed and is quiet again.

    A model that ends meanwhile is only told of, because the change may be what mends it.

    Raises:
        CogkitError: the builder, or the way to it, is gone.
    """
    told = False
    while True:
        await asyncio.sleep(LOOK_EVERY)
        if current.has_ended and not told:
            told = True
            try:
                await current.end_of_it()
            except ModelError as problem:
                tell(f"{problem}; waiting for a change")
        if (now := await in_thread(_snapshot, root)) == seen:
            continue
        while True:
            await asyncio.sleep(LOOK_EVERY)
            later = await in_thread(_snapshot, root)
            if later == now:
                return now
            now = later


_Snapshot = dict[str, tuple[int, int, int]]
_IGNORED = frozenset({DOTCOG_NAME, ".git", "__pycache__"})


def _snapshot(root: Path) -> _Snapshot:
    """What tells whether a file was changed, by its path."""
    found: _Snapshot = {}
    folders = [os.fspath(root)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name in _IGNORED:
                    continue
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        found[entry.path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def check_port(port: int) -> int:
    """Raises `UsageError` for a number that is not a port's."""
    if not 0 < port < 65536:
        raise UsageError(f"invalid port {port}: port must be between 1 and 65535", hint="for example -p 8000")
    return port


def shown(args: Sequence[str]) -> str:
    """A command line for the user to read."""
    return " ".join(args)
