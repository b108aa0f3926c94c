"""A web server on a loopback port: files from memory, and Git repositories by the real ``git http-backend``."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.real.tree import Node, write_tree


class WebServer:
    """Serves until it is closed.  A context manager.

    Args:
        repositories: Bare repositories in this folder are served below ``/git/``.

    Attributes:
        url: ``http://127.0.0.1:PORT``.
        repositories: The folder of the repositories.
        files: What is served under which path; may be changed at any time.
        requests: The method and path of every request, in order.
        logins: The ``Authorization`` of every request that had one.
    """

    def __init__(self, repositories: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.logins: list[str] = []
        self.repositories = repositories
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_repository(self, name: str, tree: Mapping[str, Node], *, branch: str = "main") -> str:
        """Make a repository with one commit; returns its URL, which ends in ``.git``."""
        work = write_tree(self.repositories / f"{name}-work", tree)
        git(work, "init", "--quiet", f"--initial-branch={branch}")
        git(work, "add", "--all")
        git(work, "commit", "--quiet", "--message=one")
        git(self.repositories, "clone", "--quiet", "--bare", str(work), f"{name}.git")
        return f"{self.url}/git/{name}.git"

    def answer_git(self, handler: BaseHTTPRequestHandler, path: str, query: str) -> None:
        """Let ``git http-backend`` (a CGI program) answer a request."""
        length = int(handler.headers.get("Content-Length") or 0)
        done = subprocess.run(
            ["git", "http-backend"],
            input=handler.rfile.read(length),
            capture_output=True,
            check=False,
            timeout=120,
            env=git_environment()
            | {
                "GIT_PROJECT_ROOT": str(self.repositories),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": handler.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": handler.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": handler.headers.get("Content-Encoding", ""),
                "HTTP_GIT_PROTOCOL": handler.headers.get("Git-Protocol", ""),
            },
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode("latin-1").split("\r\n") if line]
        status = next((value for name, _, value in lines if name == "Status"), "200")
        handler.send_response(int(status.split()[0]))
        for name, _, value in lines:
            if name != "Status":
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


def git(folder: Path, *arguments: str) -> str:
    """Run git as nobody in particular, whatever this machine's configuration says; returns what it printed."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=git_environment(),
    )
    return done.stdout.strip()


def git_environment() -> dict[str, str]:
    """The environment of a git that knows nobody's configuration."""
    who = {"NAME": "tests", "EMAIL": "tests@example.com", "DATE": "2020-01-01T00:00:00Z"}
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()},
    }


def _handler(server: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            server.requests.append(f"{self.command} {self.path}")
            if login := self.headers.get("Authorization"):
                server.logins.append(login)
            parts = urlsplit(self.path)
            if parts.path.startswith("/git/"):
                server.answer_git(self, parts.path.removeprefix("/git"), parts.query)
                return
            content = server.files.get(parts.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content or b"")

        do_GET = do_HEAD = do_POST = _answer

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler
