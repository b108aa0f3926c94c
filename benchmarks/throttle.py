"""A slow link: a TCP proxy on the loopback address that limits the rate and adds delay.

``python -m benchmarks.throttle TARGET [--rate MBIT] [--delay MS]`` prints the address it listens on; TARGET is
``unix:///path`` or ``tcp://host:port``, and the delay is that of one direction.  Rate and delay hold for each
direction of each connection by itself; nothing is lost or reordered.
"""

from __future__ import annotations

import argparse
import asyncio

CHUNK = 16 * 1024
"""Bytes passed on at a time; also what a link of this speed would hold in its own queue."""

WINDOW_SECONDS = 0.25
"""How far the sender may run ahead of the link, as a socket's buffers would let it."""


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float, delay: float) -> None:
    """Pass bytes on: each leaves ``delay`` seconds after the link, at ``rate`` bytes a second, has taken it."""
    loop = asyncio.get_running_loop()
    in_flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await in_flight.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    delivery = asyncio.create_task(deliver())
    link_free = loop.time()
    try:
        while True:
            data = await reader.read(CHUNK)
            link_free = max(link_free, loop.time()) + len(data) / rate
            in_flight.put_nowait((link_free + delay, data))
            if not data:
                break
            await asyncio.sleep(max(0.0, link_free - loop.time() - WINDOW_SECONDS))
        await delivery
    except (ConnectionError, OSError):
        pass  # one end has left; the other learns of it when both are closed
    finally:
        delivery.cancel()


async def start(target: str, *, megabits: float, milliseconds: float) -> asyncio.Server:
    """Listen on a free port of the loopback address and pass every connection on to ``target``."""
    rate, delay = megabits * 1e6 / 8, milliseconds / 1000

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if target.startswith("unix://"):
            far_reader, far_writer = await asyncio.open_unix_connection(target.removeprefix("unix://"))
        else:
            host, _, port = target.removeprefix("tcp://").rpartition(":")
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(
                _pump(reader, far_writer, rate, delay),
                _pump(far_reader, writer, rate, delay),
            )
        finally:
            writer.close()
            far_writer.close()

    return await asyncio.start_server(connected, "127.0.0.1", 0)


async def _serve(target: str, megabits: float, milliseconds: float) -> None:
    server = await start(target, megabits=megabits, milliseconds=milliseconds)
    print(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="a slow link to an address")
    parser.add_argument("target")
    parser.add_argument("--rate", type=float, default=50.0, help="megabits a second (default: 50)")
    parser.add_argument("--delay", type=float, default=20.0, help="milliseconds in one direction (default: 20)")
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.target, arguments.rate, arguments.delay))


if __name__ == "__main__":
    main()
