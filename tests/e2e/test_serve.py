"""``cogkit serve`` against a real buildkitd: requests, streams, large bodies, changes, and its ends."""

from __future__ import annotations

import http.client
import http.server
import json
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RunCogkit, StartCogkit
from tests.real.registry import Registry

LIMIT = 120

pytestmark = pytest.mark.one_release_is_enough
IMPORTS = "from cog import BaseRunner, Input, Path\nimport os, time\n\n\nclass Runner(BaseRunner):\n"


@pytest.fixture
def model(tmp_path: Path, run_cogkit: RunCogkit, base_images: Registry) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    assert run_cogkit("init", cwd=folder).returncode == 0
    return folder


def write(model: Path, body: str) -> None:
    (model / "run.py").write_text(IMPORTS + body)


class Served:
    """A running ``cogkit serve``."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def predict(self, **inputs: Any) -> dict[str, Any]:
        body = json.dumps({"input": inputs}).encode()
        _, answer = self.request("POST", "/predictions", body, **{"Content-Type": "application/json"})
        found: dict[str, Any] = json.loads(answer)
        return found

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            status, body = self.request("GET", "/health-check")
            return status == 200 and json.loads(body)["status"] == "READY"
        except (OSError, http.client.HTTPException):
            return False


Serve = Callable[..., Served]


@pytest.fixture
def serve(model: Path, start_cogkit: StartCogkit, eventually: Callable[..., None], tmp_path: Path) -> Serve:
    """Start ``cogkit serve`` in the project, and wait until its model is ready."""

    def start(*arguments: str) -> Served:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        log = tmp_path / "serve.log"
        with log.open("wb") as file:
            process = start_cogkit("serve", "-p", str(port), *arguments, cwd=model, stdout=file, stderr=file)
        served = Served(process, port, log)
        eventually(served.is_ready, within=LIMIT)
        return served

    return start


def test_requests_go_in_and_answers_come_out(model: Path, serve: Serve) -> None:
    write(model, "    def run(self, n: int) -> int:\n        return 2 * n\n")
    served = serve()
    assert served.predict(n=21)["output"] == 42
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: served.request("GET", "/health-check")[0], range(200)))
    assert codes == [200] * 200
    assert b"Serving at http://localhost:" in served.log.read_bytes()
    served.process.send_signal(signal.SIGINT)
    assert served.process.wait(LIMIT) == 0, served.log.read_text()


@contextmanager
def _server(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_reaches_this_machine_by_its_name(model: Path, serve: Serve) -> None:
    write(model, "    def run(self, n: int) -> int:\n        return n\n")
    heard: list[dict[str, Any]] = []
    came = threading.Event()

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            came.set()

        def log_message(self, format: str, *args: Any) -> None: ...

    served = serve()
    with _server(Sink) as port:
        body = {
            "input": {"n": 5},
            "webhook": f"http://host.docker.internal:{port}/hook",
            "webhook_events_filter": ["completed"],
        }
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        status, _ = served.request("POST", "/predictions", json.dumps(body).encode(), **headers)
        assert status == 202
        assert came.wait(LIMIT)
    assert heard[0]["output"] == 5


def test_the_playground_leads_to_the_model_and_takes_its_webhooks(model: Path, serve: Serve) -> None:
    write(model, "    def run(self, n: int) -> int:\n        return n\n")
    served = serve("--playground", "--playground-port", "0")
    found = re.search(rb"Playground at (http://127\.0\.0\.1:(\d+)/)\n", served.log.read_bytes())
    assert found
    url = found[1].decode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}config", timeout=LIMIT) as answer:
        webhooks = json.load(answer)["webhooks"]
    assert webhooks == f"http://host.docker.internal:{int(found[2])}/webhook/"
    with opener.open(f"{url}events/abc", timeout=LIMIT) as events:
        body = {"input": {"n": 6}, "webhook": f"{webhooks}abc", "webhook_events_filter": ["completed"]}
        headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
        request = urllib.request.Request(f"{url}api/predictions/abc", json.dumps(body).encode(), headers, method="PUT")
        with opener.open(request, timeout=LIMIT) as answer:
            assert answer.status == 202
        deadline, data = time.monotonic() + LIMIT, b""
        while not data.startswith(b"data: ") and time.monotonic() < deadline:
            data = events.readline()  # there is a comment every 15 seconds
    assert json.loads(data.removeprefix(b"data: "))["output"] == 6


def test_a_change_starts_the_model_again(model: Path, serve: Serve, eventually: Callable[..., None]) -> None:
    write(model, "    def run(self) -> str:\n        return 'before'\n")
    served = serve("--watch")
    assert served.predict()["output"] == "before"
    write(model, "    def run(self) -> str:\n        return 'after'\n")

    def is_after() -> bool:
        try:
            return served.predict().get("output") == "after"
        except (OSError, http.client.HTTPException):  # asked in the moment of the change
            assert served.process.poll() is None, served.log.read_text()
            return False

    eventually(is_after, within=LIMIT)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(LIMIT) == 0, served.log.read_text()


def test_a_model_that_crashes_is_told_with_what_it_said(model: Path, serve: Serve) -> None:
    write(model, "    def run(self) -> str:\n        return str(os.getppid())\n")
    served = serve("-e", "GREETING=hello")
    with suppress(OSError, http.client.HTTPException):  # whether it still answers is its own affair
        served.request("POST", "/shutdown")
    assert served.process.wait(LIMIT) == 1, served.log.read_text()
    text = served.log.read_text()
    assert "the model's server ended with exit code" in text
    assert "Traceback" not in text


def test_a_port_that_is_taken_is_told_before_anything_is_built(model: Path, run_cogkit: RunCogkit) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run_cogkit("serve", "-p", str(taken.getsockname()[1]), cwd=model)
    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1" in done.stderr
    assert "#1 " not in done.stderr
