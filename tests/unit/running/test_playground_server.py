"""The playground's server: who may use it, what passes to the model and back, and what webhooks keep."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import cogkit.running.playground
from cogkit.errors import CogkitError, UsageError
from cogkit.running.playground import server as server_module
from cogkit.running.playground.http_message import HEAD_LIMIT
from cogkit.running.playground.proxy import parse_target
from cogkit.running.playground.server import open_playground
from cogkit.running.playground.webhooks import BOX_DELIVERIES, MOST_BOXES, Webhooks

PAGE = Path(cogkit.running.playground.__file__).parent / "page"
PATIENCE = 90

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, PATIENCE))


@asynccontextmanager
async def model(talk: Talk) -> AsyncIterator[str]:
    """A server that talks as told with whoever connects; yields its URL."""
    talks = set[asyncio.Task[None]]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await talk(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


def saying(answer: bytes, asked: list[bytes] | None = None) -> Talk:
    """A model that gives this answer to a request without a body, or with one of a known length."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if asked is not None:
            asked.append(head + body)
        writer.write(answer)
        await writer.drain()

    return talk


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    fields = {"Host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if body or method in ("POST", "PUT"):
        fields.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def ask(url: str, sent: bytes) -> tuple[int, str, bytes]:
    """The status, the head and the body (as it is on the wire) of the answer."""
    reader, writer = await connect(url)
    try:
        writer.write(sent)
        got = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body


NOWHERE = "http://127.0.0.1:1"


def test_the_page_and_all_it_names_are_served_and_run_nothing_from_elsewhere() -> None:
    async def work() -> None:
        async with open_playground(NOWHERE) as opened:
            status, head, page = await ask(opened.url, request("GET", "/"))
            assert status == 200
            policy = re.search(r"content-security-policy: (.*)", head)
            assert policy and "default-src 'none'; script-src 'self'" in policy[1]
            assert "frame-ancestors 'none'" in policy[1]
            assert page == (PAGE / "index.html").read_bytes()
            named = set(re.findall(r'(?:href|src)="([\w.]+)"', page.decode()))
            for script in PAGE.glob("*.js"):
                named |= set(re.findall(r'from "\./([\w.]+)"', script.read_text()))
            assert named == {path.name for path in PAGE.iterdir()} - {"index.html"}
            for name in named:
                status, _, body = await ask(opened.url, request("GET", f"/{name}"))
                assert (status, body) == (200, (PAGE / name).read_bytes())

    run(work())


@pytest.mark.parametrize("path", ["/nothing", "/../server.py", "/page/index.html", "/%2e%2e/server.py", "//etc/passwd"])
def test_no_other_file_is_served(path: str) -> None:
    async def work() -> None:
        async with open_playground(NOWHERE) as opened:
            assert (await ask(opened.url, request("GET", path)))[0] == 404

    run(work())


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "localhost.evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "192.0.2.1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/config", "/api/openapi.json", "/events/a"])
def test_other_sites_cannot_use_it(headers: dict[str, str], path: str) -> None:
    asked: list[bytes] = []

    async def work() -> None:
        async with model(saying(b"", asked)) as url, open_playground(url) as opened:
            status, _, _ = await ask(opened.url, request("GET", path, b"", **headers))
            assert status == 403
        assert not asked

    run(work())


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8", "127.0.0.1:99", "127.8.8.8", "[::1]:80", "[::1]"])
def test_names_of_this_machine_are_taken(host: str) -> None:
    async def work() -> None:
        async with open_playground(NOWHERE) as opened:
            answered = await ask(opened.url, request("GET", "/config", Host=host, Origin=f"http://{host}"))
            assert answered[0] == 200
            assert json.loads(answered[2])["target"] == NOWHERE

    run(work())


def test_a_request_passes_without_what_the_model_must_not_get() -> None:
    asked: list[bytes] = []
    answer = (
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nContent-Type: a/b\r\nSet-Cookie: x=y\r\nLocation: /z\r\n\r\n{}"
    )

    async def work() -> None:
        async with model(saying(answer, asked)) as url, open_playground(f"{url}/base/") as opened:
            sent = request(
                "PUT",
                "/api/predictions/a?b=c",
                body=b'{"input": {}}',
                Content_Type="application/json",
                Prefer="respond-async",
                Cookie="secret",
                Authorization="x",
            )
            status, head, body = await ask(opened.url, sent)
        assert (status, body) == (201, b"{}")
        assert "content-type: a/b" in head
        assert "cookie" not in head.lower() and "location" not in head.lower()
        passed = asked[0].decode()
        assert passed.startswith("PUT /base/predictions/a?b=c HTTP/1.1\r\n")
        assert f"Host: {urlsplit(url).netloc}\r\n" in passed
        assert "prefer: respond-async" in passed and passed.endswith('{"input": {}}')
        assert "secret" not in passed and "uthorization" not in passed

    run(work())


def test_a_body_in_chunks_passes() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = await reader.readuntil(b"0\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + got.partition(b"\r\n\r\n")[2])

    async def work() -> None:
        async with model(echo) as url, open_playground(url) as opened:
            head = request("POST", "/api/x", Transfer_Encoding="chunked").replace(b"Content-Length: 0\r\n", b"")
            status, _, body = await ask(opened.url, head + b"3\r\nabc\r\n0\r\n\r\n")
        assert status == 200
        assert body == b"d\r\n3\r\nabc\r\n0\r\n\r\n\r\n0\r\n\r\n"

    run(work())


def test_an_event_arrives_while_the_model_still_works() -> None:
    async def work() -> None:
        arrived = asyncio.Event()

        async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"9\r\nevent: 1\n\r\n")
            await arrived.wait()
            writer.write(b"9\r\nevent: 2\n\r\n0\r\n\r\n")

        async with model(stream) as url, open_playground(url) as opened:
            reader, writer = await connect(opened.url)
            writer.write(request("POST", "/api/predictions", Accept="text/event-stream"))
            await reader.readuntil(b"event: 1\n")
            arrived.set()
            assert (await reader.read(-1)).endswith(b"event: 2\n\r\n0\r\n\r\n")
            writer.close()

    run(work())


def test_the_model_learns_that_the_page_has_gone() -> None:
    async def work() -> None:
        began, gone = asyncio.Event(), asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            began.set()
            with suppress(OSError):
                await reader.read(-1)
            gone.set()

        async with model(hang) as url, open_playground(url) as opened:
            _, writer = await connect(opened.url)
            writer.write(request("POST", "/api/predictions"))
            await began.wait()
            writer.close()
            await gone.wait()

    run(work())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    ],
)
def test_an_answer_that_is_cut_off_is_seen_to_be(answer: bytes) -> None:
    async def work() -> None:
        async with model(saying(answer)) as url, open_playground(url) as opened:
            status, _, body = await ask(opened.url, request("GET", "/api/x"))
        assert status == 200
        assert b"hello" in body and not body.endswith(b"0\r\n\r\n")

    run(work())


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 what\r\n\r\n", b"HTTP/1.1 200"])
def test_what_is_no_answer_is_told(answer: bytes) -> None:
    async def work() -> None:
        async with model(saying(answer)) as url, open_playground(url) as opened:
            status, _, body = await ask(opened.url, request("GET", "/api/x"))
        assert status == 502
        assert url in json.loads(body)["detail"]

    run(work())


def test_a_model_that_is_not_there_is_told() -> None:
    async def work() -> None:
        async with open_playground(NOWHERE) as opened:
            status, _, body = await ask(opened.url, request("GET", "/api/health-check"))
        assert status == 502
        assert f"{NOWHERE} cannot be reached" in json.loads(body)["detail"]

    run(work())


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * HEAD_LIMIT + b"\r\n", 431),
        (request("POST", "/api/x", Content_Length="-1"), 400),
        (request("POST", "/api/x", Content_Length="1, 2"), 400),
        (request("POST", "/api/x", Content_Length="1", Transfer_Encoding="chunked"), 400),
        (request("POST", "/api/x", Transfer_Encoding="gzip, chunked"), 400),
        (request("POST", "/api/x", Content_Length=str(10**15)), 413),
        (request("DELETE", "/api/x"), 405),
        (request("POST", "/config"), 405),
        (request("POST", "/webhook/a", Content_Length=str(10**9)), 413),
        (request("GET", "/webhook/a"), 405),
        (request("POST", "/webhook/a", Origin="http://localhost"), 405),
        (request("POST", "/webhook/nobody-asked", body=b"{}"), 404),
        (request("GET", "/events/a.b"), 404),
    ],
)
def test_what_makes_no_sense_is_refused(sent: bytes, status: int) -> None:
    async def work() -> None:
        async with model(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as url, open_playground(url) as opened:
            reader, writer = await connect(opened.url)
            writer.write(sent)
            assert int((await reader.readline()).split()[1]) == status
            writer.close()

    run(work())


def test_a_webhook_is_an_event_of_the_page() -> None:
    async def work() -> None:
        async with open_playground(NOWHERE) as opened:
            reader, writer = await connect(opened.url)
            writer.write(request("GET", "/events/abc"))
            await reader.readuntil(b": here\n\n")
            # A model calls by a name that is not of this machine.
            sent = request("POST", "/webhook/abc", body=b'{"a":\n1}', Host="host.docker.internal")
            assert (await ask(opened.url, sent))[0] == 200
            assert await reader.readuntil(b"\n\n") == b'id: 1\ndata: {"a":\ndata: 1}\n\n'
            assert (await ask(opened.url, request("POST", "/webhook/abc", body=b"two\revent: x")))[0] == 200
            assert await reader.readuntil(b"\n\n") == b"id: 2\ndata: two\ndata: event: x\n\n"
            writer.close()
            again, writer = await connect(opened.url)
            writer.write(request("GET", "/events/abc", Last_Event_ID="1"))
            await again.readuntil(b": here\n\n")
            assert (await again.readuntil(b"\n\n")).startswith(b"id: 2\n")
            writer.close()

    run(work())


def test_a_quiet_stream_of_webhooks_stays_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "KEEP_ALIVE", 0.01)

    async def work() -> None:
        async with open_playground(NOWHERE) as opened:
            reader, writer = await connect(opened.url)
            writer.write(request("GET", "/events/abc"))
            await reader.readuntil(b": still here\n\n: still here\n\n")
            assert (await ask(opened.url, request("POST", "/webhook/abc", body=b"{}")))[0] == 200
            await reader.readuntil(b"data: {}\n\n")
            writer.close()

    run(work())


def test_webhooks_keep_the_newest_and_forget_the_oldest() -> None:
    async def work() -> None:
        webhooks = Webhooks()
        assert webhooks.open("one")
        for index in range(BOX_DELIVERIES + 5):
            assert webhooks.deliver("one", str(index).encode())
        assert await anext(aiter(webhooks.deliveries("one"))) == (6, b"5")
        for index in range(MOST_BOXES):
            assert webhooks.open(f"other-{index}")
        assert not webhooks.deliver("one", b"")
        assert [each async for each in webhooks.deliveries("one")] == []
        assert not webhooks.open("") and not webhooks.open("a/b") and not webhooks.open("a" * 65)

    run(work())


def test_webhooks_are_bounded_in_size_but_keep_the_last() -> None:
    async def work() -> None:
        webhooks = Webhooks()
        webhooks.open("a")
        for letter in (b"a", b"b", b"c"):
            webhooks.deliver("a", letter * 9 * 1024 * 1024)
        assert (await anext(aiter(webhooks.deliveries("a"))))[0] == 3

    run(work())


def test_where_webhooks_go_can_be_named() -> None:
    async def work() -> None:
        async with open_playground(NOWHERE, webhook_host="host.docker.internal") as opened:
            _, _, body = await ask(opened.url, request("GET", "/config"))
            port = urlsplit(opened.url).port
            assert json.loads(body)["webhooks"] == f"http://host.docker.internal:{port}/webhook/"

    run(work())


def test_a_port_that_is_taken_is_an_error() -> None:
    async def work() -> None:
        async with open_playground(NOWHERE) as opened:
            port = urlsplit(opened.url).port
            assert port is not None
            with pytest.raises(CogkitError, match=f"cannot listen on 127.0.0.1:{port}"):
                async with open_playground(NOWHERE, port=port):
                    pass

    run(work())


@pytest.mark.parametrize(
    "given, url",
    [
        ("http://127.0.0.1:8393", "http://127.0.0.1:8393"),
        ("localhost:5000/", "http://localhost:5000"),
        ("https://model.example/a/", "https://model.example/a"),
        ("http://[::1]:1", "http://[::1]:1"),
        ("http://host:80", "http://host"),
    ],
)
def test_addresses_of_models(given: str, url: str) -> None:
    assert parse_target(given).url == url


@pytest.mark.parametrize(
    "given",
    ["", "ftp://x", "http://", "http://a:b@c", "http://a b", "http://a:99999", "http://a#b", "http://[x", "a\r\nb"],
)
def test_what_is_not_the_address_of_a_model(given: str) -> None:
    with pytest.raises(UsageError, match="is not the address"):
        parse_target(given)
