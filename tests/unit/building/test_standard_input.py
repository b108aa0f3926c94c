"""``cogkit build -`` and ``-f -``: what comes on standard input, and the service that the builder pulls it through."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from cogkit._proto import upload_pb2
from cogkit.building.archive_streams import PEEK, StreamKind, kind_of
from cogkit.building.definition import EMPTY_CONTEXT, MAX_DOCKERFILE, Definition
from cogkit.building.options import BuildOptions
from cogkit.building.plan import plan_frontend
from cogkit.building.standard_input import (
    PipedContext,
    is_standard_input,
    read_piped_context,
    read_piped_dockerfile,
)
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services.upload import PIECE, Upload
from cogkit.errors import ConfigError, UsageError
from tests.unit.service_call import FakeCall, serve

PULL = "/moby.upload.v1.Upload/Pull"
DOCKERFILE = b"FROM scratch\n"


def archive(mode: str = "w", form: int = tarfile.PAX_FORMAT, name: str = "Dockerfile") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as tar:  # type: ignore[call-overload]
        member = tarfile.TarInfo(name)
        member.size = len(DOCKERFILE)
        tar.addfile(member, io.BytesIO(DOCKERFILE))
    return buffer.getvalue()


def piped(context: str | None = "-", file: str | None = None) -> BuildOptions:
    return BuildOptions(context=context, file=file)


class Dripping(io.BytesIO):
    """Gives one byte at a time, as a slow pipe."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 if size else 0)


# ---- what it is


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_that_the_builder_knows_are_passed_on(mode: str, form: int) -> None:
    content = archive(mode, form)
    assert kind_of(content[:PEEK]) is StreamKind.PASSED_ON
    assert whole(read_piped_context(piped(), Dripping(content))) == content


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_that_the_builder_does_not_know_by_its_beginning_is_wrapped(form: int) -> None:
    content = archive("w", form, "ü" + "x/" * 100 + "long")
    assert kind_of(content[:PEEK]) is StreamKind.WRAPPED
    sent = whole(read_piped_context(piped(), Dripping(content)))
    assert sent.startswith(b"\x1f\x8b\x08")
    assert gzip.decompress(sent) == content


@pytest.mark.parametrize("program", ["zstd", "lz4"])
@pytest.mark.parametrize("name", ["Dockerfile", "ü" * 60])
def test_what_only_other_programs_unpack_is_unpacked_here(program: str, name: str) -> None:
    content = archive("w", tarfile.PAX_FORMAT, name) + bytes(5_000_000)
    packed = subprocess.run([program, "-c"], input=content, capture_output=True, check=True, timeout=120).stdout
    assert kind_of(packed[:PEEK]) is StreamKind.UNPACKED
    sent = whole(read_piped_context(piped(), io.BytesIO(packed)))
    assert (gzip.decompress(sent) if sent != content else sent) == content


@pytest.mark.parametrize("program", ["zstd", "lz4"])
def test_a_stream_that_is_cut_is_no_shorter_archive(program: str) -> None:
    content = archive() + os.urandom(3_000_000)
    packed = subprocess.run([program, "-c"], input=content, capture_output=True, check=True, timeout=120).stdout
    with pytest.raises(BuildError, match=f"cannot be unpacked by .*{program}"):
        whole(read_piped_context(piped(), io.BytesIO(packed[:2_000_000])))


def test_a_program_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="the program zstd is not installed"):
        read_piped_context(piped(), io.BytesIO(b"\x28\xb5\x2f\xfd" + bytes(100)))


def test_no_tar_inside_is_told(tmp_path: Path) -> None:
    packed = subprocess.run(["zstd", "-c"], input=DOCKERFILE, capture_output=True, check=True, timeout=120).stdout
    with pytest.raises(UsageError, match="no tar in what is compressed by zstd"):
        read_piped_context(piped(), io.BytesIO(packed))


@pytest.mark.parametrize("start", [DOCKERFILE, b"# syntax=x\n" * 100, b"BZ", b"\x1f\x8b"])
def test_anything_else_is_no_archive(start: bytes) -> None:
    assert kind_of(start) is StreamKind.TEXT


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (bytes(1024), "has no entries"),
        (gzip.compress(DOCKERFILE), "no tar in what is compressed by gzip"),
        (gzip.compress(DOCKERFILE * 1000), "no tar in what is compressed by gzip"),
        (gzip.compress(bytes(10240)), "has no entries"),
        (b"PK\x03\x04" + bytes(100), "is a zip archive"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "is a 7z archive"),
    ],
)
def test_archives_of_which_no_context_can_be_made_are_refused(start: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_piped_context(piped(), io.BytesIO(start))
    assert caught.value.hint is not None and "tar" in caught.value.hint


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_has_several_names(name: str) -> None:
    assert is_standard_input(name)
    assert not is_standard_input(f".{name}") and not is_standard_input(None)


# ---- the forms


def whole(found: PipedContext) -> bytes:
    assert found.archive is not None
    parts = []
    while part := found.archive.read(100_000):
        parts.append(part)
    return b"".join(parts)


def test_text_is_a_dockerfile_with_an_empty_context() -> None:
    found = read_piped_context(piped(), Dripping(DOCKERFILE * 200))
    assert (found.archive, found.dockerfile) == (None, DOCKERFILE * 200)
    definition = Definition("Dockerfile", found.dockerfile or b"")
    plan = plan_frontend(
        BuildOptions(), context=EMPTY_CONTEXT, dockerfile=definition.mount, filename=definition.filename
    )
    assert [(mount.name, mount.files) for mount in plan.mounts] == [
        ("context", {}),
        ("dockerfile", {"Dockerfile": DOCKERFILE * 200}),
    ]


def test_binary_dockerfile_stays_as_it_is() -> None:
    assert read_piped_dockerfile(io.BytesIO(b"FROM a\n# \xff\r\n")) == b"FROM a\n# \xff\r\n"


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        (piped(), b"", "nothing came on standard input"),
        (piped("-", "-"), DOCKERFILE, "cannot both come"),
        (piped("-", "other"), DOCKERFILE, "-f other names another"),
        (piped(), b"x" * (MAX_DOCKERFILE + 1), "too large for a Dockerfile"),
        (piped(), "FROM scratch".encode("utf-16"), "text in UTF-16"),
        (piped(), b"\x7fELF" + bytes(300), "is not text"),
    ],
    ids=["nothing", "both", "two Dockerfiles", "too much", "another encoding", "a program"],
)
def test_what_makes_no_sense_is_refused(options: BuildOptions, content: bytes, message: str) -> None:
    with pytest.raises((UsageError, ConfigError), match=message):
        read_piped_context(options, io.BytesIO(content))


def test_nothing_is_no_dockerfile() -> None:
    with pytest.raises(UsageError, match="nothing came from standard input"):
        read_piped_dockerfile(io.BytesIO())


def test_frontend_is_told_the_address_and_gets_no_folder_of_its_own() -> None:
    address = "http://buildkit-session/x"
    told = plan_frontend(BuildOptions(), context=address, dockerfile=None, filename="sub/Dockerfile")
    assert told.attrs == {"context": address, "filename": "sub/Dockerfile"}
    assert (told.mounts, told.shared_key) == ((), "")


# ---- the service


def pull(upload: Upload, path: str) -> bytes:
    call = FakeCall(PULL, metadata={"urlpath": (path.encode(),), "urlhost": (b"buildkit-session",)})
    asyncio.run(serve(upload, call))
    return b"".join(upload_pb2.BytesMessage.FromString(each).data for each in call.all_heard())


def test_stream_is_pulled_whole_and_once() -> None:
    upload = Upload()
    content = bytes(range(256)) * (PIECE // 100)
    first, second = upload.offer(io.BytesIO(content)), upload.offer(io.BytesIO(b"other"))
    assert first.startswith("http://buildkit-session/") and first != second
    assert pull(upload, first.removeprefix("http://buildkit-session")) == content
    with pytest.raises(CallError, match="no http response from session"):
        pull(upload, first.removeprefix("http://buildkit-session"))
    assert pull(upload, second.removeprefix("http://buildkit-session")) == b"other"


@pytest.mark.parametrize("path", ["", "/", "/other", "/etc/passwd"])
def test_address_that_was_not_given_out_is_refused(path: str) -> None:
    upload = Upload()
    upload.offer(io.BytesIO(b"x"))
    with pytest.raises(CallError, match="no http response from session"):
        pull(upload, path)


def test_stream_that_cannot_be_read_is_the_error_the_user_sees() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    upload = Upload()
    with pytest.raises(CallError) as caught:
        pull(upload, upload.offer(Broken()).removeprefix("http://buildkit-session"))
    assert isinstance(caught.value.cause, BuildError)
    assert "Input/output error" in caught.value.message
