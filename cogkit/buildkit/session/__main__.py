"""A harness: the session's server on a TCP port, for conformance suites and foreign gRPC clients.

``python -m cogkit.buildkit.session --listen PORT [--root DIR]`` listens on 127.0.0.1 only (port 0: any free one), says
``listening on 127.0.0.1:PORT`` on standard output, and serves Health, and with ``--root`` that directory's file sync as
the mount ``context``, to each connection until it is interrupted.  Not part of a build: there the daemon is reached
through ``Control.Session``.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from cogkit.buildkit.errors import SessionProtocolError
from cogkit.buildkit.session.service import Service
from cogkit.buildkit.session.session import Session, SocketByteStream


def _services(root: Path | None) -> list[Service]:
    if root is None:
        return []
    from cogkit.buildkit.mounts import LocalMount
    from cogkit.buildkit.session.services.filesync import FileSync

    return [FileSync([LocalMount(name="context", root=root)])]


async def _serve(root: Path | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    session = Session(_services(root))
    try:
        await session.run(SocketByteStream(reader, writer))
    except (SessionProtocolError, OSError) as error:
        print(error, file=sys.stderr)
    for cause in session.errors:
        print(f"call failed: {cause}", file=sys.stderr)


async def _listen(port: int, root: Path | None) -> None:
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    server = await asyncio.start_server(lambda r, w: _serve(root, r, w), "127.0.0.1", port)
    async with server:
        print("listening on {}:{}".format(*server.sockets[0].getsockname()), flush=True)
        await interrupted.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the harness until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m cogkit.buildkit.session", description=__doc__.split("\n\n")[0])
    parser.add_argument("--listen", type=int, required=True, metavar="PORT", help="port on 127.0.0.1; 0: any free")
    parser.add_argument("--root", type=Path, metavar="DIR", help="serve DIR's file sync, as the mount 'context'")
    options = parser.parse_args(arguments)
    asyncio.run(_listen(options.listen, options.root))


if __name__ == "__main__":
    main()
