"""Hands a request of the page on to the model's server, and the answer back as it comes.

Only what the page needs passes: a few headers each way, no cookies, no credentials, no redirects to follow.  This file
must not know what a prediction is.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.running.playground.http_message import HEAD_LIMIT, MessageError, read_body, read_head

CONNECT_TIMEOUT = 20.0
_TO_MODEL = ("accept", "content-type", "prefer")
_TO_PAGE = ("content-type", "content-length", "retry-after")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the model's server is."""

    host: str
    port: int
    path: str
    """What comes before every path; without a slash at its end."""
    is_tls: bool
    url: str

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_tls else 80) else f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Read the address of a model's server.

    Raises:
        UsageError: it is not an HTTP URL of a server.
    """
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    is_plain = all(" " < each < "\x7f" for each in url)
    if not is_plain or parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or parts.fragment:
        raise UsageError(
            f"{url} is not the address of a model's server", hint="give it as http://HOST:PORT, as cogkit serve says it"
        )
    is_tls = parts.scheme == "https"
    path = parts.path.rstrip("/")
    known = Target(host, port or (443 if is_tls else 80), path, is_tls, "")
    return Target(known.host, known.port, path, is_tls, f"{parts.scheme}://{known.authority}{path}")


class ModelUnreachableError(Exception):
    """There is no answer of the model's server; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of the model's answer, and its body as it comes."""

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]


class Exchange:
    """One request to the model.  `close` it whatever happens; that also tells the model that nobody waits."""

    def __init__(self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._target = target
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, target: Target) -> Exchange:
        """Connect.

        Raises:
            ModelUnreachableError: nothing listens there.
        """
        context = ssl.create_default_context() if target.is_tls else None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(target.host, target.port, ssl=context, limit=HEAD_LIMIT)
        except TimeoutError:
            raise ModelUnreachableError(f"{target.url} does not answer") from None
        except OSError as problem:
            raise ModelUnreachableError(f"{target.url} cannot be reached: {problem.strerror or problem}") from None
        return cls(target, reader, writer)

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: AsyncIterator[bytes]) -> None:
        """Send the request; a model that stops reading may already have answered, so that is not an error."""
        lines = [f"{method} {self._target.path}{path} HTTP/1.1", f"Host: {self._target.authority}"]
        lines += [f"{name}: {headers[name]}" for name in _TO_MODEL if name in headers]
        has_body = method not in ("GET", "HEAD")
        length = headers.get("content-length", "0" if "transfer-encoding" not in headers else None)
        if has_body:
            lines.append(f"content-length: {length}" if length is not None else "transfer-encoding: chunked")
        lines += ["accept-encoding: identity", "connection: close", "", ""]
        try:
            self._writer.write("\r\n".join(lines).encode("latin-1"))
            async for piece in body:
                if has_body:
                    self._writer.write(piece if length is not None else b"%x\r\n%b\r\n" % (len(piece), piece))
                    await self._writer.drain()
            if has_body and length is None:
                self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()
        except OSError:
            return

    async def answer(self) -> Answer:
        """Wait for the answer, as long as the model takes.

        Raises:
            ModelUnreachableError: the connection ended, or what came is not HTTP.
        """
        try:
            head = await read_head(self._reader)
            while head is not None and head.first[1].startswith("1"):
                head = await read_head(self._reader)
        except (MessageError, OSError) as problem:
            raise ModelUnreachableError(f"{self._target.url} answers with something else than HTTP") from problem
        if head is None or not head.first[1].isdecimal():
            raise ModelUnreachableError(f"{self._target.url} ended the connection without an answer")
        headers = {name: head.headers[name] for name in _TO_PAGE if name in head.headers}
        status = int(head.first[1])
        if status in (204, 304):
            return Answer(status, headers, _nothing())
        return Answer(status, headers, read_body(self._reader, head.headers, most=None, until_close=True))

    def close(self) -> None:
        self._writer.transport.abort()


async def _nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes, ...]():
        yield piece
