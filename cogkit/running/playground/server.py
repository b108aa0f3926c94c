"""The playground's server: the page, the way from it to the model, and a webhook sink.

    GET  /                 the page, with its style and scripts
    GET  /config           the model's address, and where webhooks go
    any  /api/PATH         handed on to the model's server
    GET  /events/ID        what comes to the webhook, as server-sent events
    POST /webhook/ID       the webhook of a prediction

Other web sites must not use it: the page and the way to the model are for browsers on this machine that ask for them by
a name of this machine (so no foreign name can be made to lead here), and from the page itself.  Only the webhook takes
requests from elsewhere, and only for what the page waits for.  This file must not know what a prediction is.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cogkit.errors import CogkitError
from cogkit.fast_dataclass import dataclass
from cogkit.running.playground.http_message import HEAD_LIMIT, Head, MessageError, read_body, read_head
from cogkit.running.playground.proxy import Exchange, ModelUnreachableError, Target, parse_target
from cogkit.running.playground.webhooks import DELIVERY_LIMIT, Webhooks

REQUEST_LIMIT = 1024 * 1024 * 1024
"""Most bytes of a request to the model."""
HEAD_TIMEOUT = 60.0
FINISH_TIMEOUT = 10.0
KEEP_ALIVE = 15.0
"""Seconds after which a quiet stream of events gets a comment."""
MOST_CONNECTIONS = 128

_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_FILES = {f"/{path.name}": path for path in sorted(_PAGE.iterdir()) if path.suffix in _TYPES}
_FILES["/"] = _FILES.pop("/index.html")
_SECURITY = {
    # Pictures, sound and films may be where the model put them.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob: http: https:; media-src 'self' data: blob: http: https:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "connection": "close",
}


@dataclass(frozen=True, slots=True)
class Playground:
    """A playground that is being served."""

    url: str
    target: str


@asynccontextmanager
async def open_playground(
    model_url: str, host: str = "127.0.0.1", port: int = 0, *, webhook_host: str | None = None
) -> AsyncIterator[Playground]:
    """Serve the playground until the block ends.

    Args:
        model_url: Where the model's server is or will be.
        host: Address to listen on.
        port: 0 takes a free one.
        webhook_host: The name by which the model reaches this machine; ``host`` unless given.

    Raises:
        UsageError: ``model_url`` is not one.
        CogkitError: the address cannot be listened on.
    """
    target = parse_target(model_url)
    tasks = set[asyncio.Task[Any]]()
    site: _Site | None = None

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None and site is not None
        tasks.add(task)
        try:
            if len(tasks) <= MOST_CONNECTIONS:
                await site.serve(_Connection(reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    try:
        server = await asyncio.start_server(connected, host, port, limit=HEAD_LIMIT, start_serving=False)
    except (OSError, UnicodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise CogkitError(
            f"the playground cannot listen on {host}:{port}: {reason}", hint="choose another --host or --port"
        ) from None
    port = server.sockets[0].getsockname()[1]
    webhooks = f"http://{_authority(webhook_host or _reachable(host), port)}/webhook/"
    site = _Site(target, webhooks)
    try:
        await server.start_serving()
        yield Playground(f"{url_of(host, port)}/", target.url)
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def url_of(host: str, port: int) -> str:
    """Where a server that listens there is reached from this machine."""
    return f"http://{_authority(_reachable(host), port)}"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reachable(host: str) -> str:
    """A name for an address that means all of them."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


class _Connection:
    """A browser's or a model's connection: one request, one answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self.peer = str(writer.get_extra_info("peername")[0])
        self.own = str(writer.get_extra_info("sockname")[0])
        self.has_begun = False

    async def begin(self, status: int, headers: Mapping[str, str]) -> None:
        reason = next((each.phrase for each in HTTPStatus if each == status), "")
        fields = {**headers, **_SECURITY}
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self.has_begun = True
        await self.write("\r\n".join(lines).encode("latin-1"))

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, status: int, type: str, body: bytes) -> None:
        await self.begin(status, {"content-type": type, "content-length": str(len(body))})
        await self.write(body)

    async def answer_json(self, status: int, value: object) -> None:
        await self.answer(status, "application/json", json.dumps(value).encode())

    async def finish(self) -> None:
        """Let the other side read the answer, also if it is still sending: closing at once could tear the answer."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        try:
            async with asyncio.timeout(FINISH_TIMEOUT):
                while await self.reader.read(HEAD_LIMIT):
                    pass
        except TimeoutError:
            pass

    async def unless_gone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work``, which may take long, and stop when the other side has closed."""

        async def until_closed() -> None:
            while await self.reader.read(HEAD_LIMIT):
                pass

        async def working() -> None:
            await work()

        tasks = [asyncio.create_task(until_closed()), asyncio.create_task(working())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(ends[1], Exception):
            raise ends[1]


class _Site:
    """What is behind each path."""

    def __init__(self, target: Target, webhooks: str) -> None:
        self._target = target
        self._config = {"target": target.url, "webhooks": webhooks}
        self._webhooks = Webhooks()

    async def serve(self, connection: _Connection) -> None:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                head = await read_head(connection.reader)
            if head is not None:
                await self._route(connection, head)
        except MessageError as problem:
            if not connection.has_begun:
                await connection.answer_json(problem.status, {"detail": problem.message})
        except TimeoutError:
            return
        await connection.finish()

    async def _route(self, connection: _Connection, head: Head) -> None:
        method, path, _ = head.first
        path = path.partition("?")[0]
        if path.startswith("/webhook/"):
            await self._take_delivery(connection, head, path.removeprefix("/webhook/"))
        elif not _is_from_here(connection, head):
            await connection.answer_json(403, {"detail": "the playground is for browsers on its own machine"})
        elif path.startswith("/api/"):
            await self._hand_on(connection, head)
        elif method != "GET":
            await connection.answer_json(405, {"detail": f"{method} is not for {path}"})
        elif path in _FILES:
            file = _FILES[path]
            await connection.answer(200, _TYPES[file.suffix], file.read_bytes())
        elif path == "/config":
            await connection.answer_json(200, self._config)
        elif path.startswith("/events/"):
            await self._stream_deliveries(connection, head, path.removeprefix("/events/"))
        else:
            await connection.answer_json(404, {"detail": f"there is nothing at {path}"})

    async def _hand_on(self, connection: _Connection, head: Head) -> None:
        method, path, _ = head.first
        if method not in ("GET", "HEAD", "POST", "PUT"):
            raise MessageError(405, f"{method} is not for the model")
        try:
            exchange = await Exchange.open(self._target)
        except ModelUnreachableError as problem:
            await connection.answer_json(502, {"detail": str(problem)})
            return
        try:
            body = read_body(connection.reader, head.headers, most=REQUEST_LIMIT)
            await exchange.send(method, path.removeprefix("/api"), head.headers, body)
            await connection.unless_gone(lambda: self._hand_back(connection, exchange, is_head=method == "HEAD"))
        finally:
            exchange.close()

    async def _hand_back(self, connection: _Connection, exchange: Exchange, *, is_head: bool) -> None:
        try:
            answer = await exchange.answer()
        except ModelUnreachableError as problem:
            await connection.answer_json(502, {"detail": str(problem)})
            return
        headers = dict(answer.headers)
        has_body = not is_head and answer.status not in (204, 304)
        is_chunked = has_body and "content-length" not in headers
        if is_chunked:
            # So that the browser sees whether it got all of it.
            headers["transfer-encoding"] = "chunked"
        await connection.begin(answer.status, headers)
        if has_body:
            async for piece in answer.body:
                await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
        if is_chunked:
            await connection.write(b"0\r\n\r\n")

    async def _take_delivery(self, connection: _Connection, head: Head, id: str) -> None:
        if head.first[0] != "POST" or "origin" in head.headers:
            raise MessageError(405, "a webhook takes the POST of a model")
        body = bytearray()
        async for piece in read_body(connection.reader, head.headers, most=DELIVERY_LIMIT):
            body += piece
        if self._webhooks.deliver(id, bytes(body)):
            await connection.answer_json(200, {})
        else:
            await connection.answer_json(404, {"detail": "nobody waits for this webhook"})

    async def _stream_deliveries(self, connection: _Connection, head: Head, id: str) -> None:
        if not self._webhooks.open(id):
            raise MessageError(404, "this cannot be the id of a prediction")
        seen = head.headers.get("last-event-id", "")
        after = int(seen) if seen.isascii() and seen.isdecimal() and len(seen) < 16 else 0

        async def stream() -> None:
            await connection.begin(200, {"content-type": "text/event-stream"})
            await connection.write(b": here\n\n")
            async with aclosing(_with_pauses(self._webhooks.deliveries(id, after))) as deliveries:
                async for delivery in deliveries:
                    await connection.write(b": still here\n\n" if delivery is None else _event(*delivery))

        await connection.unless_gone(stream)


async def _with_pauses(deliveries: AsyncIterator[tuple[int, bytes]]) -> AsyncGenerator[tuple[int, bytes] | None]:
    """The deliveries, and None whenever none came for a while."""

    async def following() -> tuple[int, bytes] | None:
        return await anext(deliveries, None)

    pending = asyncio.create_task(following())
    try:
        while True:
            done, _ = await asyncio.wait([pending], timeout=KEEP_ALIVE)
            if not done:
                yield None
                continue
            delivery = pending.result()
            if delivery is None:
                return
            yield delivery
            pending = asyncio.create_task(following())
    finally:
        pending.cancel()


def _event(number: int, body: bytes) -> bytes:
    """A delivery as a server-sent event; no line of it can become a field of its own."""
    lines = body.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join([f"id: {number}\n", *(f"data: {line}\n" for line in lines), "\n"]).encode()


def _is_from_here(connection: _Connection, head: Head) -> bool:
    """Whether a browser on this machine asks, by a name of this machine, for itself and not for another site."""
    host = head.headers.get("host", "")
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.removeprefix("[").removesuffix("]").lower()
    if not (_is_loopback(connection.peer) or connection.peer == connection.own):
        return False
    if name != "localhost" and not _is_loopback(name) and name != connection.own:
        return False
    origin = head.headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return False
    # Following a link to the page is no harm.
    is_page = head.first[1] == "/" and head.headers.get("sec-fetch-mode") == "navigate"
    return is_page or head.headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
