"""``cogkit build -`` and ``-f -``: what comes on standard input, and the service that the builder pulls it through."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from cogkit._proto import upload_pb2
from cogkit.building.definition import EMPTY_CONTEXT, MAX_DOCKERFILE, Definition
from cogkit.building.options import BuildOptions
from cogkit.building.plan import plan_frontend
from cogkit.building.standard_input import is_archive, is_piped, read_piped
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
    return BuildOptions(context=None if context is None else Path(context), file=file)


class Dripping(io.BytesIO):
    """Gives one byte at a time, as a slow pipe."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(1 if size else 0)


# ---- what it is


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_are_known_by_their_beginning(mode: str, form: int) -> None:
    assert is_archive(archive(mode, form)[:1024])
    assert is_archive(archive(mode, tarfile.PAX_FORMAT, "x/" * 100 + "long")[:1024])


@pytest.mark.parametrize("start", [b"", DOCKERFILE, b"# syntax=x\n" * 100, bytes(1024), b"BZ", b"\x1f\x8b"])
def test_anything_else_is_no_archive(start: bytes) -> None:
    assert not is_archive(start)


@pytest.mark.parametrize(
    ("context", "file", "expected"),
    [("-", None, True), (None, "-", True), ("dir", "-", True), (None, None, False), ("dir", "./-", False)],
)
def test_only_a_dash_means_standard_input(context: str | None, file: str | None, expected: bool) -> None:
    assert is_piped(piped(context, file)) == expected


# ---- the three forms


def test_archive_is_the_context_and_is_handed_on_from_its_beginning() -> None:
    content = archive()
    found = read_piped(piped(), Dripping(content))
    assert found.archive is not None
    parts = []
    while part := found.archive.read(100_000):
        parts.append(part)
    assert b"".join(parts) == content


def test_text_is_a_dockerfile_with_an_empty_context() -> None:
    found = read_piped(piped(), Dripping(DOCKERFILE * 200))
    assert (found.archive, found.context, found.dockerfile) == (None, None, DOCKERFILE * 200)
    definition = Definition("Dockerfile", found.dockerfile)
    plan = plan_frontend(
        BuildOptions(), context=EMPTY_CONTEXT, dockerfile=definition.mount, filename=definition.filename
    )
    assert [(mount.name, mount.files) for mount in plan.mounts] == [
        ("context", {}),
        ("dockerfile", {"Dockerfile": DOCKERFILE * 200}),
    ]


def test_dockerfile_for_a_folder_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    found = read_piped(piped(str(tmp_path), "-"), io.BytesIO(DOCKERFILE))
    assert (found.context, found.dockerfile) == (tmp_path, DOCKERFILE)
    assert list(tmp_path.iterdir()) == []


def test_binary_dockerfile_stays_as_it_is() -> None:
    assert read_piped(piped(), io.BytesIO(b"FROM a\n# \xff\r\n")).dockerfile == b"FROM a\n# \xff\r\n"


@pytest.mark.parametrize(
    ("options", "content", "message"),
    [
        (piped(), b"", "nothing came on standard input"),
        (piped(None, "-"), b"", "nothing came on standard input"),
        (piped("-", "-"), DOCKERFILE, "cannot both come"),
        (piped("-", "other"), DOCKERFILE, "-f other names another"),
        (piped(), b"x" * (MAX_DOCKERFILE + 1), "too large for a Dockerfile"),
    ],
    ids=["nothing", "no Dockerfile", "both", "two Dockerfiles", "too much"],
)
def test_what_makes_no_sense_is_refused(options: BuildOptions, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_piped(options, io.BytesIO(content))


def test_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_piped(piped(str(tmp_path / "gone"), "-"), io.BytesIO(DOCKERFILE))


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
