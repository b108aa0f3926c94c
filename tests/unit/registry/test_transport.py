"""HTTP on real sockets: what redirects take along, what is streamed, and how a broken conversation is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cogkit.registry.transport import Response, Transport, TransportError


class Server:
    """Answers as the test says; ``seen`` has method, path, headers and body of each request."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda handler: respond(handler, 200, b"hello")
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.seen.append((self.command, self.path, headers, body))
                server.answer(self)

            do_POST = do_PUT = do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def respond(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.stop()


@pytest.fixture
def other() -> Iterator[Server]:
    started = Server("127.0.0.2")
    yield started
    started.stop()


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


def content(response: Response) -> bytes:
    with response:
        return response.body(1 << 20)


def test_a_connection_is_used_again_when_its_answer_was_read_or_nearly(server: Server, transport: Transport) -> None:
    ports: set[int] = set()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        ports.add(handler.client_address[1])
        respond(handler, 200, b"x" * 5000)

    server.answer = answer
    assert len(content(transport.request("GET", server.url))) == 5000
    transport.request("HEAD", server.url).close()
    transport.request("GET", server.url).close()
    transport.request("GET", server.url).close()
    assert len(ports) == 1


def test_a_body_is_streamed_out_with_its_length(server: Server, transport: Transport) -> None:
    pieces = (b"ab", b"", b"cd")
    content(transport.request("PUT", server.url, {"Content-Length": "4"}, iter(pieces)))
    _, _, headers, body = server.seen[0]
    assert body == b"abcd"
    assert "transfer-encoding" not in headers
    assert headers["user-agent"].startswith("cogkit/")


def test_a_redirect_is_an_answer_unless_it_is_to_be_followed(server: Server, transport: Transport) -> None:
    server.answer = lambda handler: respond(handler, 307, Location="/there")
    with transport.request("GET", server.url) as response:
        assert response.status == 307
    with transport.request("GET", server.url, redirects=3) as response:
        assert response.status == 307
    assert len(server.seen) == 5


def test_a_redirect_to_another_host_leaves_the_login_behind(
    server: Server, other: Server, transport: Transport
) -> None:
    server.answer = lambda handler: respond(handler, 307, Location=f"{other.url}/blob")
    headers = {"Authorization": "Bearer x", "Range": "bytes=5-"}
    assert content(transport.request("GET", server.url, headers, redirects=1)) == b"hello"
    _, path, sent, _ = other.seen[0]
    assert path == "/blob"
    assert "authorization" not in sent
    assert sent["range"] == "bytes=5-"


def test_a_redirect_within_the_host_keeps_it(server: Server, transport: Transport) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        respond(handler, *((302, b"") if handler.path == "/" else (200, b"ok")), Location="/second")

    server.answer = answer
    content(transport.request("GET", f"{server.url}/", {"Authorization": "Bearer x"}, redirects=1))
    assert [headers["authorization"] for _, _, headers, _ in server.seen] == ["Bearer x", "Bearer x"]


def test_a_posted_body_is_not_sent_to_where_a_redirect_leads(server: Server, transport: Transport) -> None:
    server.answer = lambda handler: respond(handler, 302 if handler.command == "POST" else 200, Location="/second")
    content(transport.request("POST", server.url, {"Content-Type": "text/plain"}, b"secret", redirects=1))
    assert [(method, path, body) for method, path, _, body in server.seen] == [
        ("POST", "/", b"secret"),
        ("GET", "/second", b""),
    ]
    server.answer = lambda handler: respond(handler, 308, Location="/third")
    with transport.request("POST", server.url, body=b"secret", redirects=1) as response:
        assert response.status == 308


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://[::1"])
def test_a_redirect_leads_to_a_web_address_or_nowhere(server: Server, transport: Transport, location: str) -> None:
    server.answer = lambda handler: respond(handler, 302, Location=location)
    with pytest.raises(TransportError) as caught:
        transport.request("GET", server.url, redirects=3)
    assert caught.value.permanent


def test_a_body_is_not_read_beyond_its_limit(server: Server, transport: Transport) -> None:
    server.answer = lambda handler: respond(handler, 200, b"x" * (1 << 20))
    with transport.request("GET", server.url) as response, pytest.raises(TransportError, match="more than"):
        response.body((1 << 20) - 1)


def test_a_body_that_ends_too_early_gives_what_arrived_and_then_says_so(server: Server, transport: Transport) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 600)
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    server.answer = answer
    arrived = b""
    with transport.request("GET", server.url) as response, pytest.raises(TransportError) as caught:
        for data in response.chunks():
            arrived += data
    assert len(arrived) == 600
    assert not caught.value.permanent


def test_silence_ends(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(TransportError, match="timed out") as caught:
            transport.request("GET", url, timeout=0.2)
    assert not caught.value.permanent


def test_nobody_there_says_why(transport: Transport) -> None:
    with pytest.raises(TransportError, match="Connection refused"):
        transport.request("GET", "http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"errors": [{"code": "DENIED", "message": "not  for\\nyou"}]}', "not for you"),
        (b'{"errors": [{"code": "DENIED"}]}', "DENIED"),
        (b'{"details": "wrong user"}', "wrong user"),
        (b"<html>", ""),
        (b'{"errors": []}', ""),
        (b"[1]", ""),
        (b"x" * 100_000, ""),
    ],
)
def test_a_refusal_says_what_its_json_says(server: Server, transport: Transport, body: bytes, said: str) -> None:
    server.answer = lambda handler: respond(handler, 403, body)
    with transport.request("GET", server.url) as response:
        assert response.explanation() == said
