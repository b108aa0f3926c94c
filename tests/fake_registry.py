"""A registry in memory whose connections break where a test wants it: uploads go on, downloads have ranges.

Unlike docker-registry it keeps what arrived of a broken upload, as newer registries do.  Every byte of a blob that
goes either way is counted.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

NONE: Mapping[str, str] = {}


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        cut_uploads: Bytes of each upload's body after which the connection is cut, one entry used up by each.
        cut_downloads: The same for bodies of blobs that are sent.
        refusals: Answers (status, headers) that are given instead, one used up by each request.
        forget_uploads: Forget an upload that broke.
        no_ranges: Send the whole blob whatever range is asked for.
        corrupt: Digests of blobs that are sent with a wrong byte.
        stall_after: Bytes of blobs, either way, after which nothing moves until `FakeRegistry.go_on`.
    """

    cut_uploads: list[int] = field(default_factory=list)
    cut_downloads: list[int] = field(default_factory=list)
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    forget_uploads: bool = False
    no_ranges: bool = False
    corrupt: set[str] = field(default_factory=set)
    stall_after: int | None = None


class FakeRegistry:
    """A registry that is running when the constructor returns.

    Attributes:
        host: ``127.0.0.1:PORT``.
        blobs: By repository and digest.
        manifests: Type and bytes by repository and tag or digest.
        faults: What goes wrong from now on.
        received: Bytes of blobs that arrived.
        served: Bytes of blobs that were sent.
        asked: Method and path of every request.
        authorize: Called with path and ``Authorization``; what it returns is a challenge, None lets it pass.
    """

    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.faults = Faults()
        self.received = 0
        self.served = 0
        self.asked: list[tuple[str, str]] = []
        self.authorize: Callable[[str, str], str | None] = lambda path, shown: None
        self.chunk_headers: dict[str, str] = {}
        self.lock = threading.Lock()
        self.stalled = threading.Event()
        self._released = threading.Event()
        self.busy = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def go_on(self) -> None:
        """End a stall; there is no other one."""
        self.faults.stall_after = None
        self._released.set()

    def count(self, received: int = 0, served: int = 0) -> None:
        """Count bytes of blobs, and wait where it was said to."""
        with self.lock:
            self.received += received
            self.served += served
            limit = self.faults.stall_after
            stalls = limit is not None and self.received + self.served >= limit
        if stalls:
            self.stalled.set()
            self._released.wait(120)

    def put_blob(self, repository: str, content: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.blobs[repository, digest] = content
        return digest


def _handler(registry: FakeRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            with registry.lock:
                registry.busy += 1
            try:
                self.handle_one()
            except ConnectionError:
                self.close_connection = True
            finally:
                with registry.lock:
                    registry.busy -= 1

        def handle_one(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            with registry.lock:
                registry.asked.append((self.command, self.path))
                challenge = registry.authorize(parts.path, self.headers.get("Authorization", ""))
                refusal = None
                if challenge is None and registry.faults.refusals and parts.path != "/v2/":
                    refusal = registry.faults.refusals.pop(0)
            if challenge is not None or refusal is not None:
                self._drain()
                status, headers = refusal or (401, {"WWW-Authenticate": challenge or ""})
                return self._answer(status, b"", headers)
            if parts.path == "/v2/":
                return self._answer(200, b"{}")
            repository, kind, rest = _split(parts.path)
            with registry.lock:
                if kind == "manifests":
                    return self._manifest(repository, rest)
                if kind == "tags":
                    tags = [name for where, name in registry.manifests if where == repository and ":" not in name]
                    return self._answer(200, json.dumps({"name": repository, "tags": tags}).encode())
            if rest.startswith("uploads/"):
                return self._upload(repository, rest.removeprefix("uploads/"), query)
            return self._blob(repository, rest)

        do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = handle_request

        # ---------------------------------------------------------------- kinds of things

        def _manifest(self, repository: str, reference: str) -> None:
            if self.command == "PUT":
                content = self._drain()
                kind = self.headers.get("Content-Type", "")
                digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
                for name in {reference, digest}:
                    registry.manifests[repository, name] = (kind, content)
                return self._answer(201, b"", {"Docker-Content-Digest": digest})
            found = registry.manifests.get((repository, reference))
            if found is None:
                return self._answer(404, _error("MANIFEST_UNKNOWN", "manifest unknown"))
            digest = f"sha256:{hashlib.sha256(found[1]).hexdigest()}"
            return self._answer(200, found[1], {"Content-Type": found[0], "Docker-Content-Digest": digest})

        def _blob(self, repository: str, digest: str) -> None:
            with registry.lock:
                content = registry.blobs.get((repository, digest))
                if content is not None and digest in registry.faults.corrupt:
                    content = bytes([content[0] ^ 1]) + content[1:]
                no_ranges = registry.faults.no_ranges
            if content is None:
                return self._answer(404, _error("BLOB_UNKNOWN", "blob unknown to registry"))
            asked = self.headers.get("Range", "")
            if asked and not no_ranges:
                begin = int(asked.removeprefix("bytes=").partition("-")[0])
                where = f"bytes {begin}-{len(content) - 1}/{len(content)}"
                return self._answer(206, content[begin:], {"Content-Range": where}, blob=True)
            return self._answer(200, content, blob=True)

        def _upload(self, repository: str, name: str, query: dict[str, str]) -> None:
            if self.command == "POST":
                self._drain()
                with registry.lock:
                    mounted = registry.blobs.get((query.get("from", ""), query.get("mount", "")))
                    if mounted is not None:
                        registry.blobs[repository, query["mount"]] = mounted
                        return self._answer(201, b"")
                    name = f"u{len(registry.asked)}"
                    registry.uploads[name] = bytearray()
                return self._moved(202, repository, name)
            with registry.lock:
                known = registry.uploads.get(name)
            if known is None:
                self._drain()
                return self._answer(404, _error("BLOB_UPLOAD_UNKNOWN", "upload unknown"))
            if self.command == "GET":
                return self._moved(204, repository, name)
            if self.command == "DELETE":
                with registry.lock:
                    registry.uploads.pop(name, None)
                return self._answer(204, b"")
            begin = self.headers.get("Content-Range", f"{len(known)}-").partition("-")[0]
            if int(begin) != len(known):
                self._drain()
                return self._answer(416, b"")
            if not self._receive(known, name):
                return None
            if self.command == "PATCH":
                return self._moved(202, repository, name)
            digest = f"sha256:{hashlib.sha256(known).hexdigest()}"
            with registry.lock:
                registry.uploads.pop(name, None)
                if digest != query.get("digest"):
                    return self._answer(400, _error("DIGEST_INVALID", "provided digest did not match"))
                registry.blobs[repository, digest] = bytes(known)
            return self._answer(201, b"", {"Docker-Content-Digest": digest})

        # ---------------------------------------------------------------- bytes

        def _receive(self, upload: bytearray, name: str) -> bool:
            left = int(self.headers.get("Content-Length", 0))
            with registry.lock:
                cut = registry.faults.cut_uploads.pop(0) if left and registry.faults.cut_uploads else None
            while left:
                data = self.rfile.read1(min(left, 65536, left if cut is None else max(cut, 1)))
                if not data:
                    return False
                left -= len(data)
                with registry.lock:
                    upload += data
                registry.count(received=len(data))
                if cut is not None:
                    cut -= len(data)
                    if cut <= 0 and left:
                        if registry.faults.forget_uploads:
                            registry.uploads.pop(name, None)
                        self._reset()
                        return False
            return True

        def _drain(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _moved(self, status: int, repository: str, name: str) -> None:
            with registry.lock:
                size = len(registry.uploads.get(name, b""))
                extra = dict(registry.chunk_headers)
            headers = {"Location": f"/v2/{repository}/blobs/uploads/{name}", "Range": f"0-{max(size - 1, 0)}", **extra}
            self._answer(status, b"", headers)

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str] = NONE, *, blob: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if blob and registry.faults.cut_downloads:
                cut = registry.faults.cut_downloads.pop(0)
                if cut < len(body):
                    self.wfile.write(body[:cut])
                    registry.count(served=cut)
                    self._shut()
                    return
            if not blob:
                self.wfile.write(body)
                return
            for offset in range(0, len(body), 65536):
                piece = body[offset : offset + 65536]
                self.wfile.write(piece)
                registry.count(served=len(piece))

        def _shut(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def _reset(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler


def _split(path: str) -> tuple[str, str, str]:
    for kind in ("manifests", "blobs", "tags"):
        before, found, rest = path.removeprefix("/v2/").rpartition(f"/{kind}/")
        if found:
            return before, kind, rest
    return path, "", ""


def _error(code: str, message: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()
