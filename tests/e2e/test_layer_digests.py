"""An image that cogkit builds has the layers that buildctl's has, from the same context."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import tarfile
from pathlib import Path

import pytest

from cogkit.buildkit import Client, Export, LocalMount, OutputFile, SolveRequest
from tests.conformance import generate
from tests.conftest import RunBuildctl
from tests.real.buildkitd import Buildkitd


def layers(image: Path) -> list[str]:
    """The digests of the layers in an OCI archive."""

    def read(archive: tarfile.TarFile, digest: str) -> object:
        file = archive.extractfile("blobs/" + digest.replace(":", "/"))
        assert file is not None
        return json.load(file)

    with tarfile.open(image) as archive:
        index_file = archive.extractfile("index.json")
        assert index_file is not None
        document = json.load(index_file)
        while "manifests" in document:
            document = read(archive, document["manifests"][0]["digest"])
    return [layer["digest"] for layer in document["layers"]]


def entries(image: Path) -> dict[str, tuple[object, ...]]:
    """What the layers hold: by name, all that a tar says of an entry."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(image) as archive:
        for digest in layers(image):
            with tarfile.open(fileobj=archive.extractfile("blobs/" + digest.replace(":", "/"))) as layer:
                for member in layer:
                    content = layer.extractfile(member) if member.isreg() else None
                    found[member.name] = (
                        *(member.type, member.mode, member.uid, member.gid, member.size, member.linkname),
                        *(member.devmajor, member.devminor),
                        member.mtime if not member.isdir() else None,
                        {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")},
                        content.read() if content is not None else None,
                    )
    return found


def assert_same_layers(buildkitd: Buildkitd, buildctl: RunBuildctl, context: Path, folder: Path) -> list[str]:
    """Build with cogkit and with buildctl: the digests are the same.  Returns the names in the layers.

    On a busy machine BuildKit's COPY sometimes leaves a directory with the present time; two builds by buildctl then
    differ as well.  So the entries have to be the same at once, the digests within three attempts.
    """
    for attempt in range(3):
        attempt_folder = folder / f"attempt-{attempt}"
        attempt_folder.mkdir()
        ours, theirs = built_by_both(buildkitd, buildctl, context, attempt_folder)
        assert entries(ours) == entries(theirs)
        if layers(ours) == layers(theirs):
            break
    assert layers(ours) == layers(theirs)
    return list(entries(ours))


def built_by_both(buildkitd: Buildkitd, buildctl: RunBuildctl, context: Path, folder: Path) -> tuple[Path, Path]:
    """Build ``context/Dockerfile`` with cogkit and with buildctl, without the cache; the two OCI archives."""
    ours, theirs = folder / "cogkit.tar", folder / "buildctl.tar"
    # With rewrite-timestamp, what is younger than this (the directories which COPY makes for itself) gets this time.
    attrs = {"no-cache": "", "platform": "linux/amd64", "build-arg:SOURCE_DATE_EPOCH": "1700000000"}
    request = SolveRequest(
        frontend="dockerfile.v0",
        frontend_attrs=attrs,
        mounts=(
            LocalMount("context", context),
            LocalMount("dockerfile", context, only=frozenset({"Dockerfile", "Dockerfile.dockerignore"})),
        ),
        exports=(Export("oci", {"rewrite-timestamp": "true"}, file=OutputFile(ours)),),
    )
    with Client.connect(buildkitd.address) as client:
        client.solve(request)
    buildctl(
        "build",
        "--frontend=dockerfile.v0",
        *(f"--opt={key}={value}" for key, value in attrs.items()),
        f"--local=context={context}",
        f"--local=dockerfile={context}",
        f"--output=type=oci,rewrite-timestamp=true,dest={theirs}",
    )
    return ours, theirs


def rich_tree(root: Path) -> None:
    """Everything a context may hold that is not an ordinary file."""
    base = os.fsencode(root)
    for directory in (b"dir", b"dir/sub", b"sticky", b"empty", b"\xff-dir", "ünï".encode()):
        os.makedirs(base + b"/" + directory)
    for name, content in (
        (b"plain", b"plain"),
        (b"dir/script", b"#!/bin/sh\n"),
        (b"dir/sub/setuid", b"x"),
        (b"dir/sub/setgid", b"x"),
        (b"zero", b""),
        (b"\xff-dir/\xfe", b"not utf-8"),
        ("ünï/日本".encode(), "日本".encode()),
        (b"new\nline", b"x"),
        (b"big", random.Random(1).randbytes(3_000_000)),
    ):
        with open(base + b"/" + name, "wb") as file:
            file.write(content)
    (root / "dir/script").chmod(0o755)
    (root / "dir/sub/setuid").chmod(0o4755)
    (root / "dir/sub/setgid").chmod(0o2711)
    (root / "sticky").chmod(0o1777)
    os.link(root / "plain", root / "dir/plain-too")
    os.link(root / "plain", root / "a-plain")
    (root / "link").symlink_to("dir/script")
    (root / "absolute-link").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to("no/where")
    os.link(root / "link", root / "link-too", follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)  # the path of a socket has to be short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    if os.geteuid() == 0:
        os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(8, 1))
        os.setxattr(
            root / "dir/script", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000")
        )
        os.chown(root / "zero", 1000, 1000)


def age(root: Path) -> None:
    """Give every entry a time of its own that is older than the one of `built_by_both`."""
    moment = 1_600_000_000_123_456_789
    for directory, names, files in os.walk(os.fsencode(root), topdown=False):
        for name in (*files, *names):
            moment += 1_000_000_001
            os.utime(os.path.join(directory, name), ns=(moment, moment), follow_symlinks=False)


def test_everything_a_tree_may_hold(buildkitd: Buildkitd, buildctl: RunBuildctl, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    rich_tree(context)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /all/\nCOPY plain dir/plain-too /some/\n")
    age(context)
    names = assert_same_layers(buildkitd, buildctl, context, tmp_path)
    assert "all/dir/sub/setuid" in names and "some/plain-too" in names


NEEDS_LINKS = pytest.mark.needs_newer_buildkit("copies of directories with links in them whose targets are not copied")


@pytest.mark.parametrize(
    "dockerfile",
    [
        pytest.param("COPY link /one/\nCOPY dir/*-link /two/", id="links"),
        pytest.param("COPY dir/sub/. /one/\nCOPY d* /two/", id="globs", marks=NEEDS_LINKS),
        pytest.param("COPY --exclude=**/*.pyc dir /one/\nCOPY a-link/sub /two/", id="excludes", marks=NEEDS_LINKS),
        pytest.param("ADD dir/sub/x.py dir/sub/y.pyc /one/", id="files"),
    ],
)
def test_paths_that_the_daemon_asks_for(
    buildkitd: Buildkitd, buildctl: RunBuildctl, tmp_path: Path, dockerfile: str
) -> None:
    """Copies of single paths become follow-paths and include patterns."""
    context = tmp_path / "context"
    for name in ("dir/sub/x.py", "dir/sub/y.pyc", "dir/keep", "d2/a", "other/b", "target/real"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(name)
    (context / "link").symlink_to("target/real")
    (context / "dir/a-link").symlink_to("../target/real")
    (context / "dir/b-link").symlink_to("/other/b")
    (context / "a-link").symlink_to("dir")
    (context / "Dockerfile").write_text(f"# syntax=docker/dockerfile:1\nFROM scratch\n{dockerfile}\n")
    age(context)
    names = assert_same_layers(buildkitd, buildctl, context, tmp_path)
    assert any(name.startswith("one/") for name in names)


def test_a_dockerignore_with_exceptions(buildkitd: Buildkitd, buildctl: RunBuildctl, tmp_path: Path) -> None:
    context = tmp_path / "context"
    for name in (
        ".git/x",
        "a/keep",
        "a/drop",
        "b/deep/er/keep.md",
        "b/deep/x.pyc",
        "node_modules/m",
        "c/__pycache__/x",
    ):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(name)
    (context / ".dockerignore").write_text(
        "# comment\n.git\n/a/*\n!a/keep\nb\n!**/*.md\n**/*.py[co]\n**/__pycache__/**\n"
    )
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    age(context)
    names = assert_same_layers(buildkitd, buildctl, context, tmp_path)
    assert "a/keep" in names and "b/deep/er/keep.md" in names
    assert "a/drop" not in names and "b/deep/x.pyc" not in names and ".git/x" not in names


@pytest.mark.parametrize("seed", range(4))
def test_random_trees(buildkitd: Buildkitd, buildctl: RunBuildctl, tmp_path: Path, seed: int) -> None:
    context = tmp_path / "context"
    rng = random.Random(seed)
    paths = generate.make_tree(context, rng, entries=120)
    (context / "Dockerfile").unlink(missing_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    lines = [line for line in generate.readable_patterns(rng, paths) if b"\n" not in line and b"\\" not in line]
    (context / ".dockerignore").write_bytes(b"\n".join([*lines, b"!keep-one"]))
    (context / "keep-one").write_text("so that there is something to copy")
    names = assert_same_layers(buildkitd, buildctl, context, tmp_path)
    assert names
