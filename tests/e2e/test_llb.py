"""LLB that was made in Python, built by a real daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cogkit.buildkit import (
    Client,
    Export,
    LocalMount,
    Secrets,
    SecretSource,
    SolveError,
    SolveRequest,
    SolveStatus,
    llb,
)
from cogkit.buildkit.session.service import Service
from tests.conftest import MakeTree, RunBuildctl
from tests.real.buildkitd import Buildkitd

Build = Callable[..., Path]


@pytest.fixture
def build(buildkitd: Buildkitd, tmp_path: Path) -> Iterator[Build]:
    """Build a state and get its files: ``build(state, mounts=…, services=…)`` gives their folder."""
    with Client.connect(buildkitd.address) as client:
        count = 0

        def run(
            state: llb.State,
            mounts: tuple[LocalMount, ...] = (),
            services: tuple[Service, ...] = (),
            entitlements: tuple[str, ...] = (),
            on_status: Callable[[SolveStatus], None] | None = None,
        ) -> Path:
            nonlocal count
            count += 1
            folder = tmp_path / f"result-{count}"
            request = SolveRequest(
                definition=state,
                mounts=mounts,
                exports=(Export("local", directory=folder),),
                entitlements=entitlements,
            )
            client.solve(request, services=services, on_status=on_status)
            return folder

        yield run


def _secret(folder: Path) -> SecretSource:
    (folder / "secret").write_text("hush")
    return SecretSource("token", path=folder / "secret")


def script(text: str) -> list[str]:
    return ["sh", "-ec", text]


def test_a_command_with_every_kind_of_mount(build: Build, context_tree: MakeTree, tmp_path: Path) -> None:
    context = context_tree({"a": "from here", "sub/b": "below", "not": "x"})
    step = llb.image("busybox").run(
        script(
            "cat /in/a /sub/b > /out/files; cat /run/secrets/token > /out/secret; echo kept > /cache/x;"
            "df /memory | grep -q tmpfs; touch /memory/x; test -f /scratch-in/seed; ! touch /in/new 2>/dev/null;"
            "pwd > /out/pwd; id -u > /out/user; echo $WORD > /out/word"
        ),
        dir="/tmp",
        user="1000",
        env={"WORD": "said"},
        mounts=[
            llb.BindMount("/in", llb.local("context", exclude=["not"]), readonly=True),
            llb.BindMount("/sub", llb.local("context"), path="sub", readonly=True),
            llb.BindMount("/out", llb.scratch().file(llb.mkdir("/o", 0o777)), path="o"),
            llb.BindMount("/scratch-in", llb.scratch().file(llb.mkfile("seed")), no_output=True),
            llb.CacheMount(
                "/cache", "llb-every-kind", "private", source=llb.scratch().file(llb.mkdir("/c", 0o777)), path="c"
            ),
            llb.TmpfsMount("/memory", 1 << 20),
            llb.SecretMount("token", uid=1000),
            llb.SSHMount("none", optional=True),
        ],
    )
    found = build(
        step.get_mount("/out"),
        mounts=(LocalMount("context", context),),
        services=(Secrets([_secret(tmp_path)]),),
    )
    read = {path.name: path.read_text().strip() for path in (found / "o").iterdir()}
    assert read == {"files": "from herebelow", "secret": "hush", "pwd": "/tmp", "user": "1000", "word": "said"}


def test_what_surrounds_a_command_reaches_it(build: Build) -> None:
    step = llb.image("busybox").run(
        script(
            "{ hostname; grep other.example /etc/hosts; ulimit -n; ls /sys/class/net; echo $http_proxy; } > /out/x;"
            "! touch /root-is-readonly 2> /dev/null"
        ),
        hostname="somewhere",
        extra_hosts={"other.example": "10.1.2.3"},
        ulimits=[llb.Ulimit("nofile", 333)],
        network="none",
        proxy=llb.ProxyEnv(http="http://proxy.example"),
        readonly_root=True,
        mounts=[llb.BindMount("/out")],
    )
    lines = (build(step.get_mount("/out")) / "x").read_text().split("\n")
    assert lines[0] == "somewhere"
    assert lines[1].split() == ["10.1.2.3", "other.example"]
    assert lines[2:5] == ["333", "lo", "http://proxy.example"]


def test_results_are_merged_and_differences_taken(build: Build) -> None:
    base = llb.image("busybox")
    one = llb.diff(base, base.run(script("echo one > /one; rm /bin/sh")))
    two = llb.diff(base, base.run(script("mkdir /d; echo two > /d/two")))
    found = build(llb.merge([one, two, llb.scratch().file(llb.mkdir("/d").mkfile("/d/three", "three", 0o600))]))
    files = {path.relative_to(found).as_posix() for path in found.rglob("*") if path.is_file()}
    assert files == {"one", "d/two"} | {"d/three"}


def test_file_actions_change_files(build: Build, context_tree: MakeTree) -> None:
    context = context_tree({"src/a.py": "a", "src/b.txt": "b", "src/deep/c.py": "c", "one": "1"})
    local = llb.local("context")
    other = llb.mkdir("/made").mkfile("/made/x", b"\x00\xff", 0o640, chown="7:8", created=0)
    state = (
        llb.scratch()
        .dir("/w")
        .file(llb.mkdir("/w/deep/er", 0o711, parents=True).mkfile("note", "hello", 0o604))
        .file(
            llb.copy(local, "/src", "/py", include=["**/*.py"], contents_only=True, create_dest_path=True)
            .copy(local, "on?", "many/", wildcard=True, create_dest_path=True, mode=0o600, chown=llb.Chown(5, 6))
            .copy(other.with_state(llb.scratch()), "/made", "/copied")
            .rm("/py/deep")
            .rm("/nothing", allow_not_found=True)
        )
    )
    found = build(state, mounts=(LocalMount("context", context),))
    files = {path.relative_to(found).as_posix() for path in found.rglob("*") if not path.is_dir()}
    assert files == {"w/note", "py/a.py", "w/many/one", "copied/x"}
    assert (found / "w/note").read_text() == "hello"
    assert (found / "w/note").stat().st_mode & 0o7777 == 0o604
    assert (found / "w/deep/er").stat().st_mode & 0o7777 == 0o711
    assert (found / "copied/x").read_bytes() == b"\x00\xff"
    assert int((found / "copied/x").stat().st_mtime) == 0
    assert (found / "w/many/one").stat().st_mode & 0o7777 == 0o600


@pytest.mark.needs_newer_buildkit("file action that makes a link")
def test_links_are_made(build: Build) -> None:
    found = build(llb.scratch().file(llb.mkfile("/note", "x").symlink("note", "/link")))
    assert os.readlink(found / "link") == "note"


def test_an_image_config_is_taken_over(build: Build) -> None:
    config = '{"os": "linux", "config": {"Env": ["GREETING=hi"], "WorkingDir": "/var/made"}}'
    step = llb.image("busybox").with_image_config(config).run(script("echo $GREETING $(pwd) > said"))
    assert (build(step) / "var/made/said").read_text() == "hi /var/made\n"


@pytest.mark.needs_newer_buildkit("secrets as environment variables")
def test_secrets_are_environment_variables(build: Build, tmp_path: Path) -> None:
    step = llb.image("busybox").run(
        script("echo $TOKEN:$OTHER: > /out/x"),
        mounts=[llb.SecretEnv("token", "TOKEN"), llb.SecretEnv("OTHER", optional=True), llb.BindMount("/out")],
    )
    found = build(step.get_mount("/out"), services=(Secrets([_secret(tmp_path)]),))
    assert (found / "x").read_text() == "hush::\n"


@pytest.mark.needs_newer_buildkit("exit codes that are allowed")
def test_exit_codes_can_be_a_success(build: Build) -> None:
    step = llb.image("busybox").run(
        script("touch /out/x; exit 7"), mounts=[llb.BindMount("/out")], valid_exit_codes=[7]
    )
    assert (build(step.get_mount("/out")) / "x").exists()


@pytest.mark.needs_newer_buildkit("the op that waits for others")
def test_a_result_can_require_another_to_succeed(build: Build) -> None:
    base = llb.image("busybox")
    made = base.run(script("touch /out/x"), mounts=[llb.BindMount("/out")]).get_mount("/out")
    assert (build(made.requires("checks", base.run(script("true requires")))) / "x").exists()
    with pytest.raises(SolveError, match="did not complete successfully"):
        build(made.requires("checks", base.run(script("exit 3"))))


def test_a_failure_names_the_place_in_the_source_map(build: Build) -> None:
    source = llb.SourceMap("build.py", "first\nsecond\nthird\n", language="Python")
    step = llb.image("busybox").run(script("echo before; exit 9"), name="the step", locations=[source.lines(2)])
    with pytest.raises(SolveError) as caught:
        build(step)
    assert caught.value.where == "build.py:2"
    assert ">>> second" in (caught.value.detail or "")
    assert caught.value.process_exit_code == 9


def test_names_and_groups_are_in_the_progress(build: Build) -> None:
    events: list[SolveStatus] = []
    step = llb.image("busybox").run(
        script("echo names and groups"),
        name="say it",
        progress_group=llb.ProgressGroup("talk", "all the talk"),
        ignore_cache=True,
        mounts=[llb.BindMount("/out")],
    )
    digest = step.get_mount("/out").marshal().head
    build(step.get_mount("/out"), on_status=events.append)
    (vertex,) = {each.digest: each for event in events for each in event.vertexes if each.name == "say it"}.values()
    assert vertex.digest == digest
    assert vertex.progress_group == llb.ProgressGroup("talk", "all the talk")


def test_buildctl_reads_and_draws_a_definition_as_we_do(
    buildctl: RunBuildctl, context_tree: MakeTree, tmp_path: Path
) -> None:
    base = llb.image("busybox").run(["sh", "-c", 'echo "x"'], mounts=[llb.BindMount("/in", llb.local("context"))])
    definition = llb.merge([base, base.file(llb.copy(llb.http("https://example.com/x"), "x", "/y").rm("/z"))]).marshal()
    path = tmp_path / "definition"
    path.write_bytes(bytes(definition))
    assert buildctl("debug", "dump-llb", "--dot", path).stdout == definition.dot()


def test_a_gateway_solves_a_state(buildkitd: Buildkitd) -> None:
    """The callback that is the frontend: it builds one state, reads it, and goes on with another."""
    from cogkit.buildkit import Gateway, GatewayResult

    async def frontend(gateway: Gateway) -> GatewayResult:
        first = await gateway.solve(definition=llb.image("busybox").run(script("echo 42 > /answer")))
        assert first.ref is not None
        answer = (await first.ref.read_file("/answer")).decode().strip()
        second = await gateway.solve(definition=llb.scratch().file(llb.mkfile("/said", f"it was {answer}")))
        assert second.ref is not None
        assert await second.ref.read_file("/said") == b"it was 42"
        return second

    with Client.connect(buildkitd.address) as client:
        client.solve(SolveRequest(), build=frontend)


# ---- sources on this machine


class _Web(BaseHTTPRequestHandler):
    """A file, and git repositories by the protocol of git's own http-backend."""

    repository: Path
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Accept")))
        if self.path == "/file":
            self._answer("text/plain", b"downloaded")
        elif self.path == "/x.git/info/refs?service=git-upload-pack":
            refs = self._upload_pack("--advertise-refs")
            kind = "application/x-git-upload-pack-advertisement"
            self._answer(kind, b"001e# service=git-upload-pack\n0000" + refs)
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self._answer("application/x-git-upload-pack-result", self._upload_pack(body=body))

    def _upload_pack(self, *flags: str, body: bytes = b"") -> bytes:
        environ = {**os.environ, "GIT_PROTOCOL": self.headers.get("Git-Protocol") or ""}
        command = ["git", "upload-pack", "--stateless-rpc", *flags, str(self.repository)]
        done = subprocess.run(command, input=body, env=environ, capture_output=True, timeout=120, check=False)
        return done.stdout

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, type[_Web]]]:
    """A web server, and what it was asked for."""

    class Handler(_Web):
        repository = tmp_path / "repository"
        asked: list[tuple[str, str | None]] = []  # noqa: RUF012 - one for each server

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_is_a_source(build: Build, web: tuple[str, type[_Web]]) -> None:
    address, handler = web
    state = llb.http(f"{address}/file", filename="got", chmod=0o640, chown=(3, 4))
    found = build(state)
    assert (found / "got").read_text() == "downloaded"
    assert (found / "got").stat().st_mode & 0o7777 == 0o640
    assert "/file" in [path for path, _ in handler.asked]


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_a_repository_is_a_source(build: Build, web: tuple[str, type[_Web]], tmp_path: Path) -> None:
    address, handler = web
    handler.repository.mkdir()

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=main"]
        command = ["git", "-C", str(handler.repository), *identity, *arguments]
        # No configuration of this machine: it could ask for signatures.
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout.strip()

    git("init", "-q")
    (handler.repository / "sub").mkdir()
    (handler.repository / "sub" / "a").write_text("first")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("tag", "v1")
    (handler.repository / "sub" / "a").write_text("second")
    git("commit", "-q", "-a", "-m", "second")
    assert (build(llb.git(f"{address}/x.git", "main")) / "sub/a").read_text() == "second"
    assert (build(llb.git(f"{address}/x.git", "v1", subdir="sub")) / "a").read_text() == "first"
