"""Runs inside an image that is a Cog model: start its server, ask it once, print the answer.

``python prediction.py COMMAND INPUT``, both as JSON: the image's command as a list, the request's input as an object.
Uses nothing but Python's library, and must not know which model it asks.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import IO, Any

PATIENCE = 60.0
"""Seconds until the server must be ready, and again until it must have answered."""


def main(command: list[str], request: dict[str, Any]) -> int:
    """Ask; returns the exit code."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, env={**os.environ, "PORT": str(port)}, stdout=log, stderr=log)
        try:
            _wait_until_ready(server, f"http://127.0.0.1:{port}/health-check")
            answer = _post(f"http://127.0.0.1:{port}/predictions", {"input": request})
        except (OSError, RuntimeError) as problem:
            answer = {"status": "failed", "error": str(problem)}
        finally:
            server.terminate()
            server.wait()
        if answer["status"] != "succeeded":
            print(f"{answer['status']}: {answer.get('error')}\n{_text(log)}", file=sys.stderr)
            return 1
    output = answer["output"]
    print(output if isinstance(output, str) else json.dumps(output, indent=2))
    return 0


def _wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    status = "not there"
    while status != "READY":
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with code {server.returncode}")
        if status == "SETUP_FAILED" or time.monotonic() > deadline:
            raise RuntimeError(f"the server is {status}")
        time.sleep(0.05)
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                status = json.load(response)["status"]
        except OSError:
            continue  # it does not listen yet


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as refusal:
        return {"status": f"HTTP {refusal.code}", "error": refusal.read().decode(errors="replace")}
    return answer


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


if __name__ == "__main__":
    # A proxy is for registries; the server is on this side of it.
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.ProxyHandler({})))
    sys.exit(main(json.loads(sys.argv[1]), json.loads(sys.argv[2])))
