"""Where docker's settings lead, and what an engine's API may answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.docker_engine import EngineDialer
from cogkit.buildkit.connect.engine_api import EngineApi, EngineError
from cogkit.buildkit.connect.engine_endpoint import find_endpoint
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import UsageError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def _context(home: Path, name: str, host: str) -> None:
    folder = home / ".docker" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


def test_docker_s_settings_count_in_docker_s_order(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    default = Address("docker")
    assert find_endpoint(default, home).url == "unix:///var/run/docker.sock"
    _context(tmp_path, "current", "unix:///current.sock")
    _context(tmp_path, "named", "ssh://far")
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "current"}')
    assert find_endpoint(default, home).url == "unix:///current.sock"
    assert find_endpoint(default, {**home, "DOCKER_CONTEXT": "named"}).url == "ssh://far"
    assert find_endpoint(default, {**home, "DOCKER_CONTEXT": "default"}).url == "unix:///var/run/docker.sock"
    both = {**home, "DOCKER_CONTEXT": "named", "DOCKER_HOST": "tcp://far:2375"}
    assert find_endpoint(default, both).url == "tcp://far:2375"
    assert find_endpoint(Address("docker", context="current"), both).url == "unix:///current.sock"
    assert find_endpoint(Address("docker", path="/own.sock"), both).url == "unix:///own.sock"


def test_tls_files_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    environment = {"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    tls = find_endpoint(Address("docker"), environment).tls
    assert tls is not None
    assert (tls.ca, tls.cert) == (tmp_path / "ca.pem", None)


@pytest.mark.parametrize("host", ["npipe:////./pipe/docker", "/var/run/docker.sock", "unix://", "fd://"])
def test_engines_that_cannot_be_reached_are_refused(host: str) -> None:
    with pytest.raises(UsageError, match="DOCKER_HOST names an engine that cannot be reached"):
        find_endpoint(Address("docker"), {"DOCKER_HOST": host})


def test_a_broken_context_is_told_with_its_place(tmp_path: Path) -> None:
    _context(tmp_path, "broken", "unix:///x")
    (meta,) = tmp_path.rglob("meta.json")
    meta.write_text("{")
    with pytest.raises(UsageError, match="cannot be read") as caught:
        find_endpoint(Address("docker", context="broken"), {"HOME": str(tmp_path)})
    assert caught.value.where == str(meta)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cogkit-", dir="/tmp") as name:
        yield Path(name)


@asynccontextmanager
async def _engine(folder: Path, serve: Serve) -> AsyncIterator[Address]:
    path = folder / "docker.sock"
    async with await asyncio.start_unix_server(serve, path):
        yield Address("docker", path=str(path))


def _answering(*answers: bytes) -> Serve:
    """Answers one request after the other on each connection, then ends it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"chunked" in head:
                await reader.readuntil(b"0\r\n\r\n")
            writer.write(answer)
        writer.close()

    return serve


def test_answers_of_both_kinds_are_read(folder: Path) -> None:
    async def ask() -> list[Any]:
        known = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1, 2]\n"
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[1, \r\n2\r\n3]\r\n0\r\n\r\n"
        async with _engine(folder, _answering(known, chunked, known)) as address:
            api = EngineApi(address)
            found = [await api.get("/a"), await api.get("/b")]

            async def body() -> AsyncIterator[bytes]:
                yield b"x" * 10
                yield b""
                yield b"y"

            found.append(json.loads(await api.request("POST", "/c", body=body())))
            await api.close()
            return found

    assert asyncio.run(ask()) == [[1, 2], [1, 3], [1, 2]]


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b'HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n{"message":"gone"}', "the engine refused: gone"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", "it did not say why"),
        (b"", "broke off"),
        (b"nonsense\r\n\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", "its answer is too long"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", "its answer is too long"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "broke off"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (1 << 20), "broke off"),
    ],
)
def test_an_engine_that_refuses_or_breaks_off_is_an_error(folder: Path, answer: bytes, complaint: str) -> None:
    async def ask() -> None:
        async with _engine(folder, _answering(answer)) as address:
            api = EngineApi(address)
            try:
                await api.get("/images/json?x")
            finally:
                await api.close()

    with pytest.raises(EngineError, match=complaint):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "refused to speak gRPC .HTTP status 403"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (b"", "closed the connection at once"),
    ],
)
def test_what_is_not_an_engine_is_said(folder: Path, answer: bytes, complaint: str) -> None:
    async def explain() -> BuilderUnreachableError:
        async with _engine(folder, _answering(answer)) as address:
            dialer = EngineDialer(address)
            with pytest.raises(OSError):
                await dialer.open()
            error = await dialer.explain("no answer")
            await dialer.close()
            return error

    with pytest.raises(BuilderUnreachableError, match=complaint):
        raise asyncio.run(explain())


def test_an_engine_without_the_upgrade_is_spoken_to_directly(folder: Path) -> None:
    """So will engines to come: gRPC on the API's own socket, and the session as a call."""
    connections: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(4)
        connections.append(first)
        if first == b"POST":
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def dial() -> object:
        async with _engine(folder, serve) as address:
            dialer = EngineDialer(address)
            _, writer = await dialer.open()
            writer.write(b"PRI * HTTP/2.0")
            await writer.drain()
            session = await dialer.open_session("/x", [], lambda: None)
            writer.close()
            while len(connections) < 2:
                await asyncio.sleep(0.01)
            return session

    assert asyncio.run(asyncio.wait_for(dial(), 60)) is None
    assert connections == [b"POST", b"PRI "]
