"""The usual build as a request; `exports`' short forms beside it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cogkit.buildkit import docker, dockerfile, image, local, oci, tar
from cogkit.buildkit.mounts import LocalMount
from cogkit.errors import OutputError


def test_a_folder_and_its_dockerfile(tmp_path: Path) -> None:
    request = dockerfile(tmp_path)
    assert (request.frontend, request.frontend_attrs) == ("dockerfile.v0", {"filename": "Dockerfile"})
    only = frozenset({"Dockerfile", "Dockerfile.dockerignore"})
    assert request.mounts == (LocalMount("context", tmp_path), LocalMount("dockerfile", tmp_path, only=only))
    assert request.shared_key


def test_everything_that_the_frontend_is_told(tmp_path: Path) -> None:
    request = dockerfile(
        tmp_path,
        file=tmp_path / "sub" / "My.Dockerfile",
        target="last",
        build_args={"A": "b"},
        labels={"l": "m"},
        platforms=("linux/amd64", "linux/arm64"),
        contexts={"base": "docker-image://busybox", "more": tmp_path / "more"},
        no_cache=True,
        pull=True,
        attrs={"add-hosts": "a=127.0.0.1"},
    )
    assert request.frontend_attrs == {
        "filename": "My.Dockerfile",
        "target": "last",
        "build-arg:A": "b",
        "label:l": "m",
        "platform": "linux/amd64,linux/arm64",
        "no-cache": "",
        "image-resolve-mode": "pull",
        "context:base": "docker-image://busybox",
        "context:more": "local:more",
        "frontend.caps": "moby.buildkit.frontend.contexts+forward",
        "add-hosts": "a=127.0.0.1",
    }
    assert [mount.name for mount in request.mounts] == ["context", "dockerfile", "more"]
    assert request.mounts[1].root == tmp_path / "sub"


def test_what_to_make_of_the_result(tmp_path: Path) -> None:
    made = image("a", "b:1", push=True, compression="zstd", force_compression="true")
    assert made.attrs == {"name": "a,b:1", "push": "true", "compression": "zstd", "force-compression": "true"}
    assert oci(tmp_path / "x.tar").path == str(tmp_path / "x.tar")
    assert docker(tmp_path / "x.tar", "a").attrs == {"name": "a"}
    layout = oci(tmp_path / "layout", layout=True)
    assert layout.is_layout and layout.directory == tmp_path / "layout"
    assert local(tmp_path, mirror=True).mirror
    assert tar(tmp_path / "x.tar").path == str(tmp_path / "x.tar")


def test_a_tar_may_go_into_an_object() -> None:
    stream = io.BytesIO()
    export = tar(stream)
    export.check()
    assert export.extent is None
    assert export.file is not None
    writer = export.file.open()
    writer.write([b"one", memoryview(b"two")])
    writer.finish()
    writer.publish()
    assert (stream.getvalue(), writer.written) == (b"onetwo", 6)
    stream.close()
    with pytest.raises(OutputError, match="cannot write to <BytesIO>"):
        writer.write([b"more"])
