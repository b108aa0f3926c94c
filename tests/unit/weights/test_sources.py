"""Where weights come from: folders with what may not be in them, files of the web, models of the Hub."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cogkit.errors import CogkitError, ConfigError
from cogkit.registry.backoff import Backoff
from cogkit.weights.inventory import FileFilter, Inventory, set_digest
from cogkit.weights.sources import Intake, open_source
from cogkit.weights.sources.folder import FolderSource
from cogkit.weights.sources.huggingface import HuggingFaceSource, _explained
from cogkit.weights.sources.web import DownloadError, Web, WebSource
from cogkit.weights.store import WeightStore, WrongFileError

HASTY = Backoff(first=0.001, ceiling=0.002, patience=0.2)


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "project" / "w"
    (made / "sub").mkdir(parents=True)
    (made / "a.bin").write_bytes(b"a")
    (made / "sub" / "b.bin").write_bytes(b"bb")
    return made


def inventory(folder: Path, uri: str = "w", **intake: object) -> Inventory:
    return open_source(uri, folder.parent).inventory(Intake(**intake))  # type: ignore[arg-type]


# ---- folders


@pytest.mark.parametrize("uri", ["w", "./w", "w/", "file://./w", "file://{}", "{}"])
def test_a_folder_is_named_in_many_ways(folder: Path, uri: str) -> None:
    found = inventory(folder, uri.format(folder))
    assert [(file.path, file.size, file.digest) for file in found.files] == [
        ("a.bin", 1, sha(b"a")),
        ("sub/b.bin", 2, sha(b"bb")),
    ]
    lines = f"{sha(b'a')[7:]}  a.bin\n{sha(b'bb')[7:]}  sub/b.bin"
    assert found.fingerprint == set_digest(found.files) == sha("\n".join(sorted(lines.split("\n"))).encode())


@pytest.mark.parametrize(
    ("uri", "paths"),
    [("w/*.bin", ["a.bin"]), ("w/**/*.bin", ["a.bin", "sub/b.bin"]), ("w/s*", ["sub/b.bin"]), ("w/[a].bin", ["a.bin"])],
)
def test_a_pattern_names_some_of_a_folders_files(folder: Path, uri: str, paths: list[str]) -> None:
    assert [file.path for file in inventory(folder, uri).files] == paths


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("", "empty weight source path"),
        (".", "cannot be the project directory itself"),
        ("../elsewhere", "escapes the project directory"),
        ("w/../..", "escapes the project directory"),
        ("nothing", "weight source not found"),
        ("w/a.bin", "is not a directory"),
        ("w/*.nothing", "has no files"),
        ("s3://bucket/key", "unsupported weight source scheme 's3'"),
        ("hf://org", "invalid hf:// URI"),
        ("hf://org/repo/more", "invalid hf:// URI"),
        ("hf://org/repo@", "invalid hf:// URI"),
        ("https://user:pw@example.com/x", "must not embed credentials"),
        ("https://example.com/", "no filename"),
        ("https:///x", "not a web address"),
        ("https://example.com/%5Cx", "backslash"),
    ],
)
def test_what_is_no_source_says_why(folder: Path, uri: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        inventory(folder, uri)


def make_link(folder: Path) -> None:
    (folder / "link").symlink_to("a.bin")


def make_folder_link(folder: Path) -> None:
    (folder / "link").symlink_to("sub")


def make_pipe(folder: Path) -> None:
    os.mkfifo(folder / "link")


def make_socket(folder: Path) -> None:
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(folder)  # its path may be longer than a socket's may be
        try:
            made.bind("link")
        finally:
            os.chdir(here)


@pytest.mark.parametrize("make", [make_link, make_folder_link, make_pipe, make_socket])
def test_what_is_no_file_is_refused_not_left_out(folder: Path, make: Callable[[Path], None]) -> None:
    make(folder)
    with pytest.raises(ConfigError, match=r"contains non-regular entry 'link' \(a "):
        inventory(folder)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (b"a\\b", "backslash or a control character"),
        (b"a\nb", "backslash or a control character"),
        (b"a\x7f", "backslash or a control character"),
        (b"\xff", "not UTF-8"),
        (b".wh.a", "deletion mark"),
        (b".cog/x", "kept for the state of weights"),
        (b"sub/.cog/x", "kept for the state of weights"),
    ],
)
def test_names_that_no_weight_may_have_are_refused(folder: Path, name: bytes, words: str) -> None:
    path = os.fsencode(folder) + b"/" + name
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).write_bytes(b"")
    with pytest.raises(ConfigError, match=words):
        inventory(folder)


def test_a_file_that_changes_while_it_is_read_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WeightStore(tmp_path / "store")
    read = os.read

    def growing(fd: int, count: int) -> bytes:
        data = read(fd, count)
        if data == b"a":
            (folder / "a.bin").write_bytes(b"changed")
        return data

    monkeypatch.setattr(os, "read", growing)
    monkeypatch.setattr("cogkit.weights.store._cloned", lambda source, target: False)
    with pytest.raises(WrongFileError, match="changed while it was read"):
        inventory(folder, store=store)
    assert not store.has(sha(b"a"), 1)


def test_only_what_is_wanted_is_copied(folder: Path, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "store")
    found = inventory(folder, store=store, wanted=FileFilter(include=("sub/",)))
    assert len(found.files) == 2
    assert not store.has(sha(b"a"), 1)
    assert store.has(sha(b"bb"), 2)
    assert store.path(sha(b"bb")).stat().st_mode & 0o777 == 0o444
    (folder / "sub" / "b.bin").write_bytes(b"cc")
    assert store.path(sha(b"bb")).read_bytes() == b"bb", "an edit of the source reached the store"


# ---- the web


class WebServer:
    """Serves ``files`` with ranges; ``cuts`` are bytes after which answers break off."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.sent = 0
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.seen.append((self.command, self.path, headers))
                if server.statuses and self.command == "GET":
                    return self.answer(server.statuses.pop(0), b"", {})
                content, extra = server.files.get(self.path, (None, {}))
                if content is None:
                    return self.answer(404, b"", {})
                begin = int(headers.get("range", "bytes=0-")[6:].partition("-")[0])
                if begin >= len(content) > 0:
                    return self.answer(416, b"", extra)
                return self.answer(206 if "range" in headers else 200, content[begin:], extra)

            do_HEAD = do_GET

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                cut = server.cuts.pop(0) if server.cuts and body else len(body)
                self.wfile.write(body[:cut])
                server.sent += len(body[:cut])
                if cut < len(body):
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[WebServer]:
    started = WebServer()
    yield started
    started.stop()


CONTENT = random.Random(13).randbytes(300_000)


@pytest.mark.parametrize(("etag", "fingerprint"), [('"v1"', 'etag:"v1"'), ('W/"v1"', sha(CONTENT)), ("", sha(CONTENT))])
def test_a_file_of_the_web_is_a_weight(server: WebServer, tmp_path: Path, etag: str, fingerprint: str) -> None:
    server.files["/models/net%20one.pth"] = (CONTENT, {"ETag": etag} if etag else {})
    source = WebSource(f"{server.url}/models/net%20one.pth", Web(backoff=HASTY))
    only_asked = source.inventory(Intake())
    store = WeightStore(tmp_path / "store")
    found = source.inventory(Intake(store=store))
    assert found == only_asked
    assert [(file.path, file.digest) for file in found.files] == [("net one.pth", sha(CONTENT))]
    assert found.fingerprint == fingerprint
    assert store.path(sha(CONTENT)).read_bytes() == CONTENT


def test_a_download_goes_on_where_it_broke_also_in_another_process(server: WebServer, tmp_path: Path) -> None:
    server.files["/x.bin"] = (CONTENT, {"ETag": '"v1"'})
    store = WeightStore(tmp_path / "store")
    server.cuts = [100_000, 50_000, *([0] * 1000)]
    with pytest.raises(DownloadError, match=r"ended too early|connection"):
        WebSource(f"{server.url}/x.bin", Web(backoff=HASTY)).inventory(Intake(store=store))
    server.cuts = []
    WebSource(f"{server.url}/x.bin", Web(backoff=HASTY)).inventory(Intake(store=store))
    assert store.has(sha(CONTENT), len(CONTENT))
    assert server.sent == len(CONTENT)


def test_a_part_of_another_version_is_no_use(server: WebServer, tmp_path: Path) -> None:
    server.files["/x.bin"] = (CONTENT, {"ETag": '"v1"'})
    store = WeightStore(tmp_path / "store")
    server.cuts = [100_000, *([0] * 1000)]
    with pytest.raises(DownloadError):
        WebSource(f"{server.url}/x.bin", Web(backoff=HASTY)).inventory(Intake(store=store))
    server.cuts = []
    server.files["/x.bin"] = (CONTENT[::-1], {"ETag": '"v2"'})
    found = WebSource(f"{server.url}/x.bin", Web(backoff=HASTY)).inventory(Intake(store=store))
    assert found.files[0].digest == sha(CONTENT[::-1])


def test_a_file_that_is_not_there_is_one_sentence(server: WebServer) -> None:
    with pytest.raises(DownloadError, match="answers 404"):
        WebSource(f"{server.url}/x.bin?signature=secret", Web(backoff=HASTY)).inventory(Intake())


def test_429_and_5xx_of_the_web_are_waited_for(server: WebServer) -> None:
    server.files["/x.bin"] = (CONTENT, {})
    server.statuses = [429, 503, 500]
    assert WebSource(f"{server.url}/x.bin", Web(backoff=HASTY)).inventory(Intake()).files


# ---- Hugging Face

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(server: WebServer) -> WebServer:
    """A Hub with one model: a large file, a small one, and a list in two pages."""
    tree = f"/api/models/org/repo/tree/{COMMIT}?recursive=true"
    large = {
        "type": "file",
        "path": "model.safetensors",
        "size": 130,
        "lfs": {"oid": sha(CONTENT)[7:], "size": len(CONTENT)},
    }
    server.files |= {
        "/api/models/org/repo/revision/main": (json.dumps({"sha": COMMIT}).encode(), {}),
        tree: (
            json.dumps([large, {"type": "directory", "path": "sub"}]).encode(),
            {"Link": f'<{server.url}/page2>; rel="next"'},
        ),
        "/page2": (json.dumps([{"type": "file", "path": "sub/config#1.json", "size": 2}]).encode(), {}),
        f"/org/repo/resolve/{COMMIT}/model.safetensors": (CONTENT, {}),
        f"/org/repo/resolve/{COMMIT}/sub/config%231.json": (b"{}", {}),
    }
    return server


def hub_source(hub: WebServer, uri: str = "hf://org/repo") -> HuggingFaceSource:
    headers = {"Authorization": "Bearer t0ken"}
    web = Web(headers=headers, backoff=HASTY, explain=_explained)
    return HuggingFaceSource(uri, {"HF_ENDPOINT": hub.url + "/"}, web)


def test_a_model_of_the_hub_is_listed_without_its_large_files(hub: WebServer) -> None:
    found = hub_source(hub).inventory(Intake())
    assert found.fingerprint == f"commit:{COMMIT}"
    assert [(file.path, file.size, file.digest) for file in found.files] == [
        ("model.safetensors", len(CONTENT), sha(CONTENT)),
        ("sub/config#1.json", 2, sha(b"{}")),
    ]
    assert hub.sent < 10_000
    assert {headers["authorization"] for _, _, headers in hub.seen} == {"Bearer t0ken"}


def test_files_of_the_hub_arrive_and_broken_downloads_go_on(hub: WebServer, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "store")
    source = hub_source(hub)
    found = source.inventory(Intake(store=store))
    hub.cuts = [100_000, 7]
    before = hub.sent
    source.fetch(found.files, Intake(store=store))
    assert all(store.has(file.digest, file.size) for file in found.files)
    assert hub.sent - before == len(CONTENT)


def test_a_file_of_the_hub_that_is_not_what_its_list_says_is_refused(hub: WebServer, tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "store")
    source = hub_source(hub)
    found = source.inventory(Intake(store=store))
    hub.files[f"/org/repo/resolve/{COMMIT}/model.safetensors"] = (CONTENT[::-1], {})
    with pytest.raises(WrongFileError, match="digest mismatch"):
        source.fetch(found.files, Intake(store=store))
    hub.files[f"/org/repo/resolve/{COMMIT}/model.safetensors"] = (CONTENT, {})
    source.fetch(found.files, Intake(store=store))
    assert store.has(sha(CONTENT), len(CONTENT))


@pytest.mark.parametrize(("status", "words"), [(401, "HF_TOKEN"), (403, "permissions"), (404, "revision")])
def test_a_refusal_of_the_hub_says_what_to_do(hub: WebServer, status: int, words: str) -> None:
    hub.statuses = [status]
    with pytest.raises(CogkitError, match=f"HTTP {status}") as caught:
        hub_source(hub).inventory(Intake())
    assert words in str(caught.value.hint)


def test_a_hub_that_talks_nonsense_is_one_sentence(hub: WebServer) -> None:
    hub.files["/api/models/org/repo/revision/main"] = (b'{"sha": "../../evil"}', {})
    with pytest.raises(DownloadError, match="does not say which commit"):
        hub_source(hub).inventory(Intake())
    hub.files["/api/models/org/repo/revision/main"] = (b"<html>", {})
    with pytest.raises(DownloadError, match="not JSON"):
        hub_source(hub).inventory(Intake())


def test_a_path_of_the_hub_cannot_leave_the_weight(hub: WebServer) -> None:
    hub.files["/page2"] = (json.dumps([{"type": "file", "path": "../x", "size": 2}]).encode(), {})
    with pytest.raises(ConfigError, match="not a path below"):
        hub_source(hub).inventory(Intake())


def test_a_folder_is_not_the_place_of_links_to_elsewhere(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "project" / "linked").symlink_to(folder)
    assert FolderSource("linked", tmp_path / "project").inventory(Intake()).files
