"""Listens in on a client: a proxy in front of a daemon that counts its bytes and names the gRPC calls it makes.

``python -m benchmarks.tap TARGET`` prints the address it listens on and, when it is told to end (SIGTERM), one line of
JSON: `traffic.Traffic`.  TARGET is ``unix:///path``.  It changes nothing, and reads no more of HTTP/2 than where a call
begins: frames of requests have their path in HEADERS (RFC 9113, 6.2).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from hpack import Decoder

from benchmarks.traffic import Traffic

PIECE = 256 * 1024
_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_HEADERS, _CONTINUATION = 1, 9
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_TABLE_SIZE = 1 << 20  # far above what any peer allows


class CallNames:
    """The calls in what a gRPC client sends over one connection, which may be cut into pieces anywhere."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._to_skip = _PREFACE
        self._block = bytearray()
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = _TABLE_SIZE

    def take(self, data: bytes) -> list[str]:
        """The paths of the calls that begin in ``data``."""
        self._buffer += data
        found: list[str] = []
        while True:
            skipped = min(self._to_skip, len(self._buffer))
            del self._buffer[:skipped]
            self._to_skip -= skipped
            if self._to_skip or len(self._buffer) < 9:
                return found
            length, kind, flags = int.from_bytes(self._buffer[:3]), self._buffer[3], self._buffer[4]
            if kind not in (_HEADERS, _CONTINUATION):
                self._to_skip = 9 + length
                continue
            if len(self._buffer) < 9 + length:
                return found
            self._block += _block(bytes(self._buffer[9 : 9 + length]), kind, flags)
            self._to_skip = 9 + length
            if flags & _END_HEADERS:
                headers = dict(self._decoder.decode(bytes(self._block), raw=True))
                found += [bytes(headers[b":path"]).decode()] if b":path" in headers else []
                self._block.clear()


def _block(payload: bytes, kind: int, flags: int) -> bytes:
    """The compressed headers in a frame."""
    if kind == _CONTINUATION:
        return payload
    start = bool(flags & _PADDED) + 5 * bool(flags & _PRIORITY)
    return payload[start : len(payload) - (payload[0] if flags & _PADDED else 0)]


async def serve(target: str, path: Path, traffic: Traffic) -> asyncio.Server:
    """Listen on the socket ``path`` and pass every connection on to ``target``."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(target.removeprefix("unix://"))
        names = CallNames()

        def up(data: bytes) -> None:
            traffic.sent += len(data)
            traffic.calls.update(names.take(data))

        def down(data: bytes) -> None:
            traffic.received += len(data)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: Callable[[bytes], None]) -> None:
            while data := await source.read(PIECE):
                seen(data)
                sink.write(data)
                await sink.drain()
            sink.write_eof()

        try:
            await asyncio.gather(pump(reader, far_writer, up), pump(far_reader, writer, down))
        except OSError:
            pass  # one end has left; the other learns of it when both are closed
        finally:
            writer.close()
            far_writer.close()

    return await asyncio.start_unix_server(connected, path)


async def _main(target: str) -> None:
    traffic, told = Traffic(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    with tempfile.TemporaryDirectory(prefix="cogkit-") as folder:
        await serve(target, Path(folder, "tap.sock"), traffic)
        print(f"unix://{folder}/tap.sock", flush=True)
        await told.wait()
    print(traffic.to_json(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="count what a client sends to a daemon")
    parser.add_argument("target")
    asyncio.run(_main(parser.parse_args().target))


if __name__ == "__main__":
    main()
