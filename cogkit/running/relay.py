"""The first process of a container: it starts the user's processes and joins them, ports and files to the link.

cogkit mounts this file with `mux` and `changes` into the container and runs it with the image's own Python, so it uses
the standard library only and keeps to the syntax of Python 3.7.  It imports little, because the user waits for it.

One thread, one loop.  The link is a connection to a unix socket that the builder forwards to cogkit; what the client
asks for on a channel of it (`mux`) is JSON:

    {"kind": "process"}                     then lines of JSON, see `_Process`
    {"kind": "stream", "process": N, "fd": 0 | 1 | 2}    standard input or output of the process of channel N
    {"kind": "connect", "port": N}          a TCP connection to a server in the container
    {"kind": "listen", "port": N}           each connection to the port here becomes a channel {"kind": "reverse"}
    {"kind": "free-port"}                   ACCEPT answers with a port nobody listens on
    {"kind": "changes", ...}                the files that changed, see `changes`

When the link ends, or has been silent for `SILENCE` seconds, everything in the container is ended: nothing may keep
running that nobody can reach.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import sys
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from cogkit.running import mux as m

SILENCE = 4.0
TICK = 0.5
MERCY = 0.4
"""Seconds that processes have to end when the link is gone."""
PIECE = 64 * 1024
BACKLOG = 1024 * 1024
"""Bytes that may wait for the link before nothing more is read from processes and connections."""
MAX_LINE = 8 * 1024 * 1024
GREETING = {"version": 1}


class _Loop:
    """Who wants to hear of which descriptor."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._interest: dict[int, int] = {}
        self._called: dict[int, Callable[[int], None]] = {}

    def watch(self, fd: int, events: int, called: Callable[[int], None]) -> None:
        before = self._interest.get(fd, 0)
        if events == before:
            return
        if not events:
            self._selector.unregister(fd)
            del self._interest[fd], self._called[fd]
            return
        self._called[fd] = called
        self._interest[fd] = events
        if before:
            self._selector.modify(fd, events)
        else:
            self._selector.register(fd, events)

    def wait(self, timeout: float) -> None:
        for key, events in self._selector.select(timeout):
            called = self._called.get(key.fd)
            if called is not None:
                called(events)


class Stream:
    """Joins a descriptor, or two, to a channel: what can be read goes out, what comes in is written."""

    def __init__(self, relay: Relay, channel: int, reads: int, writes: int, closes: Callable[[], None]) -> None:
        self._relay = relay
        self.channel = channel
        self._reads = reads
        self._writes = writes
        self._closes = closes
        self._pending: deque[memoryview] = deque()
        self._input_ended = False
        self.draining = False
        self._closed = False
        for fd in (reads, writes):
            if fd >= 0:
                os.set_blocking(fd, False)
        self.update()

    def feed(self, data: bytes) -> None:
        if self._writes < 0:
            self._relay.mux.consumed(self.channel, len(data))
            return
        self._pending.append(memoryview(data))
        self._write()

    def end(self) -> None:
        """The other side sends no more."""
        self._input_ended = True
        self._write()

    def drain(self) -> None:
        """Whoever wrote to it is gone: send what is there, and no more."""
        self.draining = True
        self.update()

    def update(self) -> None:
        """Ask the loop for what can be gone on with."""
        if self._closed:
            return
        wanted: dict[int, int] = {}
        if self._reads >= 0:
            wanted[self._reads] = selectors.EVENT_READ if self._may_read() else 0
            if not self._may_read():
                self._relay.starved.add(self)
            elif self.draining:
                self._relay.soon(self._read)
        if self._writes >= 0:
            wanted[self._writes] = wanted.get(self._writes, 0) | (selectors.EVENT_WRITE if self._pending else 0)
        for fd, events in wanted.items():
            self._relay.loop.watch(fd, events, self._ready)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for fd in {self._reads, self._writes}:
            if fd >= 0:
                self._relay.loop.watch(fd, 0, self._ready)
        self._closes()
        self._relay.streams.pop(self.channel, None)

    def _may_read(self) -> bool:
        mux = self._relay.mux
        return mux.room(self.channel) > 0 and mux.backlog + self._relay.unsent < BACKLOG

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_READ:
            self._read()
        if events & selectors.EVENT_WRITE and not self._closed:
            self._write()

    def _read(self) -> None:
        mux = self._relay.mux
        while not self._closed and self._reads >= 0 and self._may_read():
            try:
                data = os.read(self._reads, min(PIECE, mux.room(self.channel)))
            except BlockingIOError:
                if not self.draining:
                    return
                data = b""
            except OSError as error:
                if error.errno != errno.EIO:  # what a terminal says when its last process is gone
                    self._fail(error)
                    return
                data = b""
            if not data:
                self._output_ended()
                return
            mux.send(self.channel, data)
            if not self.draining:
                break
        if not self._may_read():
            self.update()

    def _output_ended(self) -> None:
        self._relay.loop.watch(self._reads, 0, self._ready)
        both = self._reads == self._writes
        self._reads = -1
        self._relay.mux.end(self.channel)
        if self._writes < 0 or self._input_ended:
            self.close()
        elif both and self._pending:
            self.update()

    def _write(self) -> None:
        while self._pending and not self._closed:
            piece = self._pending[0]
            try:
                count = os.write(self._writes, piece)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.EPIPE or error.errno == errno.EIO:
                    self._nobody_reads()
                else:
                    self._fail(error)
                return
            self._relay.mux.consumed(self.channel, count)
            if count == len(piece):
                self._pending.popleft()
            else:
                self._pending[0] = piece[count:]
        if self._input_ended and not self._pending and self._writes >= 0:
            self._end_input()
        self.update()

    def _nobody_reads(self) -> None:
        """What comes in is dropped from now on."""
        for piece in self._pending:
            self._relay.mux.consumed(self.channel, len(piece))
        self._pending.clear()
        self._end_input()

    def _end_input(self) -> None:
        fd, self._writes = self._writes, -1
        if fd != self._reads:
            self._relay.loop.watch(fd, 0, self._ready)
        self.shut(fd)
        if self._reads < 0:
            self.close()

    def shut(self, fd: int) -> None:
        """No more will be written to ``fd``."""
        if fd != self._reads:
            os.close(fd)
            self._closes = _nothing

    def _fail(self, error: OSError) -> None:
        self._relay.mux.reset(self.channel, error.strerror or str(error))
        self.close()


class _Connection(Stream):
    """A TCP connection."""

    def __init__(self, relay: Relay, channel: int, connection: socket.socket) -> None:
        self._socket = connection
        super().__init__(relay, channel, connection.fileno(), connection.fileno(), connection.close)

    def shut(self, fd: int) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class _Terminal(Stream):
    """The terminal of a process; the end of the input is the character that says so."""

    def shut(self, fd: int) -> None:
        try:
            os.write(fd, b"\x04")
        except OSError:
            pass


def _nothing() -> None:
    pass


class _Process:
    """A process of the user.  Lines from the client:

        {"start": {"args": [...], "env": {...}, "cwd": "/src", "terminal": [rows, columns] | null, "input": bool}}
        {"signal": "INT"}    to its process group
        {"resize": [rows, columns]}

    and to the client: ``{"started": PID}`` or ``{"failed": why, "errno": N}``, then ``{"exited": CODE}``, with 128 and
    the number of the signal for one that a signal ended, and the end of the channel.
    """

    def __init__(self, relay: Relay, channel: int) -> None:
        self._relay = relay
        self._channel = channel
        self._lines = bytearray()
        self.pid = 0
        self._terminal = -1
        self._fds: dict[int, int] = {}
        self._streams: list[Stream] = []

    def feed(self, data: bytes) -> None:
        self._relay.mux.consumed(self._channel, len(data))
        self._lines += data
        lines, fits = m.split_lines(self._lines, MAX_LINE)
        if not fits:
            self._relay.mux.reset(self._channel, "a line is too long")
        for line in lines:
            self._take(json.loads(line.decode()))

    def end(self) -> None:
        """Nobody wants it any more."""
        self.signal(signal.SIGKILL)

    def close(self) -> None:
        self.end()

    def _take(self, asked: dict[str, Any]) -> None:
        if "start" in asked:
            try:
                self._start(asked["start"])
            except OSError as error:
                self._tell({"failed": error.strerror or str(error), "errno": error.errno})
                self._relay.mux.end(self._channel)
        elif "signal" in asked:
            self.signal(getattr(signal, "SIG" + asked["signal"], signal.SIGTERM))
        elif "resize" in asked and self._terminal >= 0:
            _resize(self._terminal, asked["resize"])

    def signal(self, number: int) -> None:
        if self.pid:
            try:
                os.killpg(self.pid, number)
            except OSError:
                pass

    def _start(self, asked: dict[str, Any]) -> None:
        size = asked.get("terminal")
        if size:
            self._terminal, inner = os.openpty()
            _resize(self._terminal, size)
            given = {0: inner, 1: inner, 2: inner}
            self._fds = {0: self._terminal}
        else:
            given = {}
            if asked.get("input"):
                given[0], self._fds[0] = os.pipe()
            else:
                given[0] = os.open(os.devnull, os.O_RDONLY)
            for fd in (1, 2):
                self._fds[fd], given[fd] = os.pipe()
        told, tells = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _become(asked, given, tells, bool(size))
        for fd in set(given.values()):
            os.close(fd)
        os.close(tells)
        failure = os.read(told, 4096)
        os.close(told)
        if failure:
            os.waitpid(self.pid, 0)
            self.pid = 0
            for fd in self._fds.values():
                os.close(fd)
            number, _, what = failure.partition(b" ")
            raise OSError(int(number), what.decode("utf-8", "replace"))
        self._relay.processes[self.pid] = self
        self._tell({"started": self.pid})

    def attach(self, channel: int, fd: int) -> Stream | None:
        """The stream of one descriptor; each can be asked for once."""
        mine = self._fds.pop(fd, None)
        if mine is None:
            return None

        def closes() -> None:
            os.close(mine)

        if self._terminal >= 0:
            stream: Stream = _Terminal(self._relay, channel, mine, mine, closes)
        elif fd == 0:
            stream = Stream(self._relay, channel, -1, mine, closes)
        else:
            stream = Stream(self._relay, channel, mine, -1, closes)
        if not self.pid:
            stream.drain()
        self._streams.append(stream)
        return stream

    def exited(self, status: int) -> None:
        self.pid = 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
        self._tell({"exited": code})
        self._relay.mux.end(self._channel)
        for stream in self._streams:
            stream.drain()

    def _tell(self, what: dict[str, Any]) -> None:
        line = json.dumps(what).encode() + b"\n"
        if self._relay.mux.room(self._channel) >= len(line):
            self._relay.mux.send(self._channel, line)


def _resize(terminal: int, size: list[int]) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))


def _become(asked: dict[str, Any], given: dict[int, int], tells: int, terminal: bool) -> None:
    """In the new process: become what was asked for.  Does not return."""
    doing = ""
    try:
        os.setsid()
        if terminal:
            fcntl.ioctl(given[0], termios.TIOCSCTTY, 0)
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        for fd, source in given.items():
            os.dup2(source, fd)
        # Devices of the container may have put variables into our own environment.
        args, env = asked["args"], {**os.environ, **asked["env"]}
        env.pop("COGKIT_RUN", None)
        doing = asked["cwd"]
        os.chdir(doing)
        doing = args[0]
        os.execvpe(doing, args, env)
    except OSError as error:
        os.write(tells, f"{error.errno} {doing}: {error.strerror}".encode("utf-8", "replace"))
    except BaseException as error:
        os.write(tells, f"{errno.EINVAL} {doing}: {error!r}".encode("utf-8", "replace"))
    finally:
        os._exit(127)


class _Listener:
    """A port here whose connections end at the client."""

    def __init__(self, relay: Relay, channel: int, port: int) -> None:
        self._relay = relay
        self._port = port
        self._channel = channel
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self._socket.listen(128)
        self._socket.setblocking(False)
        relay.loop.watch(self._socket.fileno(), selectors.EVENT_READ, self._ready)

    def _ready(self, events: int) -> None:
        try:
            connection = self._socket.accept()[0]
        except OSError:
            return
        request = json.dumps({"kind": "reverse", "port": self._port}).encode()
        channel = self._relay.mux.open(request)
        self._relay.streams[channel] = _Connection(self._relay, channel, connection)

    def feed(self, data: bytes) -> None:
        self._relay.mux.consumed(self._channel, len(data))

    def end(self) -> None:
        self.close()

    def close(self) -> None:
        self._relay.loop.watch(self._socket.fileno(), 0, self._ready)
        self._socket.close()


class _Producer:
    """Sends what a generator of bytes gives, as fast as the link takes it."""

    def __init__(self, relay: Relay, channel: int, made: Any) -> None:
        self._relay = relay
        self._channel = channel
        self._made = made
        self._rest = b""
        self.update()

    def feed(self, data: bytes) -> None:
        self._relay.mux.consumed(self._channel, len(data))
        self._made.feed(data)
        self.update()

    def end(self) -> None:
        self.close()
        self._relay.mux.end(self._channel)

    def close(self) -> None:
        self._relay.streams.pop(self._channel, None)

    def drain(self) -> None:
        pass

    def update(self) -> None:
        mux = self._relay.mux
        room = min(mux.room(self._channel), BACKLOG - mux.backlog - self._relay.unsent)
        if room > 0 and not self._rest:
            self._rest = self._made.produce()
        if room > 0 and self._rest:
            mux.send(self._channel, self._rest[:room])
            self._rest = self._rest[room:]
            self._relay.soon(self.update)


class Relay:
    """Everything in the container."""

    def __init__(self, link: socket.socket) -> None:
        self.mux = m.Mux(m.RELAY)
        self.loop = _Loop()
        self.streams: dict[int, Any] = {}
        self.processes: dict[int, _Process] = {}
        self._by_channel: dict[int, _Process] = {}
        self._link = link
        self._out: deque[memoryview] = deque()
        self.unsent = 0
        self._soon: list[Callable[[], None]] = []
        self._heard = time.monotonic()
        self._gone = False
        self.starved: set[Any] = set()
        """Streams that wait until the link has taken more."""
        self._watching: Any = None
        link.setblocking(False)
        child, ours = os.pipe()
        os.set_blocking(ours, False)
        os.set_blocking(child, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(ours)
        self._child = child
        self.loop.watch(child, selectors.EVENT_READ, self._child_ended)

    def soon(self, call: Callable[[], None]) -> None:
        """Call it in the next round."""
        self._soon.append(call)

    def run(self) -> None:
        """Serve the link until it ends."""
        self.mux.open(json.dumps({"kind": "greeting", **GREETING, **_whereabouts()}).encode())
        while not self._gone:
            self._flush()
            self.loop.wait(0 if self._soon else TICK)
            calls, self._soon = self._soon, []
            for call in calls:
                call()
            if time.monotonic() - self._heard > SILENCE:
                break
        self._end_everything()

    # ---------------------------------------------------------------- the link

    def _flush(self) -> None:
        if self.mux.backlog:
            data = self.mux.take()
            self._out.append(memoryview(data))
            self.unsent += len(data)
        while self._out:
            try:
                count = self._link.send(self._out[0])
            except BlockingIOError:
                break
            except OSError:
                self._gone = True
                return
            self.unsent -= count
            if count == len(self._out[0]):
                self._out.popleft()
            else:
                self._out[0] = self._out[0][count:]
        writes = selectors.EVENT_WRITE if self._out else 0
        self.loop.watch(self._link.fileno(), selectors.EVENT_READ | writes, self._link_ready)
        if self.starved and self.unsent < BACKLOG // 2:
            starved, self.starved = self.starved, set()
            for stream in starved:
                stream.update()

    def _link_ready(self, events: int) -> None:
        if not events & selectors.EVENT_READ:
            return
        try:
            data = self._link.recv(4 * PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._gone = True
            return
        self._heard = time.monotonic()
        for event in self.mux.feed(data):
            self._take(event)

    def _take(self, event: m.Event) -> None:
        if isinstance(event, m.Opened):
            try:
                self._opened(event.channel, json.loads(event.request.decode()))
            except (OSError, ValueError, KeyError) as error:
                self.mux.reset(event.channel, getattr(error, "strerror", None) or str(error))
            return
        if isinstance(event, (m.Accepted, m.Pong)):
            return
        stream = self.streams.get(event.channel)
        if isinstance(event, m.Data):
            if stream is None:
                self.mux.consumed(event.channel, len(event.data))
            else:
                stream.feed(event.data)
        elif stream is not None:
            if isinstance(event, m.Ended):
                stream.end()
            elif isinstance(event, m.Reset):
                self.streams.pop(event.channel, None)
                stream.close()
            elif isinstance(event, m.Room) and hasattr(stream, "update"):
                stream.update()

    def _opened(self, channel: int, asked: dict[str, Any]) -> None:
        kind = asked["kind"]
        if kind == "process":
            self.streams[channel] = self._by_channel[channel] = _Process(self, channel)
        elif kind == "stream":
            process = self._by_channel.get(asked["process"])
            stream = process.attach(channel, asked["fd"]) if process is not None else None
            if stream is None:
                self.mux.reset(channel, "there is no such stream")
            else:
                self.streams[channel] = stream
                stream.update()
        elif kind == "connect":
            self._connect(channel, asked["port"])
        elif kind == "listen":
            self.streams[channel] = _Listener(self, channel, asked["port"])
            self.mux.accept(channel)
        elif kind == "free-port":
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.mux.accept(channel, str(probe.getsockname()[1]).encode())
            self.mux.end(channel)
        elif kind == "watch":
            from cogkit.running.changes import Watched

            self._watching = Watched(asked["root"], asked["hidden"], asked["skipped"])
            self.mux.accept(channel)
            self.mux.end(channel)
        elif kind == "changes":
            self.streams[channel] = _Producer(self, channel, self._watching.changes())
        else:
            self.mux.reset(channel, "an unknown request")

    def _connect(self, channel: int, port: int) -> None:
        connection = socket.socket()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # To this very machine: it is there or it is not.
        connection.settimeout(1.0)
        try:
            connection.connect(("127.0.0.1", port))
        except OSError:
            connection.close()
            raise
        self.mux.accept(channel)
        self.streams[channel] = _Connection(self, channel, connection)

    # ---------------------------------------------------------------- processes

    def _child_ended(self, events: int) -> None:
        try:
            while os.read(self._child, 4096):
                pass
        except BlockingIOError:
            pass
        self.reap()

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            process = self.processes.pop(pid, None)
            if process is not None:
                process.exited(status)

    def _end_everything(self) -> None:
        self._kill(signal.SIGTERM)
        deadline = time.monotonic() + MERCY
        while self.processes and time.monotonic() < deadline:
            time.sleep(0.02)
            self.reap()
        self._kill(signal.SIGKILL)

    def _kill(self, number: int) -> None:
        for pid in list(self.processes):
            try:
                os.killpg(pid, number)
            except OSError:
                pass
        if os.getpid() == 1:
            # Without a process namespace of our own, this would end what is not ours.
            try:
                os.kill(-1, number)
            except OSError:
                pass


def _whereabouts() -> dict[str, Any]:
    """What tells the client whether this is its own network."""
    where: dict[str, Any] = {"pid": os.getpid()}
    try:
        where["network"] = os.stat("/proc/self/ns/net").st_ino
        with open("/proc/sys/kernel/random/boot_id") as file:
            where["boot"] = file.read().strip()
    except OSError:
        pass
    return where


def main(path: str, code: int = 0) -> None:
    """Connect to the socket at ``path`` and serve; then end with ``code``."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    relay = Relay(link)
    relay.run()
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
