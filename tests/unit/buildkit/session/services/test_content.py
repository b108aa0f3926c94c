"""The Content service: stores by name, blobs by digest, and answers as containerd gives them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from cogkit._proto import content_pb2 as pb
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services.content import CHUNK, Content
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import CogkitError
from cogkit.oci.content_store import ContentStore
from tests.unit.service_call import FakeCall, serve

SERVICE = "/containerd.services.content.v1.Content/"
DATA = b"some data"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.fixture
def service(tmp_path: Path) -> Content:
    blobs = tmp_path / "read" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (blobs / digest_of(DATA)[7:]).write_bytes(DATA)
    return Content(
        {"oci:read": ContentStore(tmp_path / "read"), "export": ContentStore(tmp_path / "written", writable=True)}
    )


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def call(service: Content, method: str, *requests: Message, store: str | None = "oci:read") -> list[bytes]:
    metadata = {} if store is None else {"buildkit-attachable-store-id": (store.encode(), b"further")}
    made = FakeCall(SERVICE + method, *(request.SerializeToString() for request in requests), metadata=metadata)
    await serve(service, made)
    return made.all_heard()


def refused(service: Content, method: str, *requests: Message, store: str | None = "oci:read") -> CallError:
    with pytest.raises(CallError) as caught:
        asyncio.run(call(service, method, *requests, store=store))
    return caught.value


def write(data: bytes = b"", action: pb.WriteAction = pb.WRITE, **fields: Any) -> pb.WriteContentRequest:
    return pb.WriteContentRequest(ref="ref", action=action, data=data, **fields)


def written(tmp_path: Path) -> dict[str, bytes]:
    root = tmp_path / "written"
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---- which store


@pytest.mark.parametrize(
    "method", ["Info", "Read", "Write", "List", "Status", "ListStatuses", "Abort", "Update", "Delete"]
)
def test_store_that_was_not_offered_is_refused(method: str, service: Content) -> None:
    for store, code in (("oci:other", StatusCode.NOT_FOUND), (None, StatusCode.INVALID_ARGUMENT)):
        assert refused(service, method, pb.InfoRequest(digest=digest_of(DATA)), store=store).code is code


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "sha256:../..", "sha256:" + "0" * 63])
def test_what_is_no_digest_is_refused(digest: str, service: Content) -> None:
    for method, request in (("Info", pb.InfoRequest), ("Read", pb.ReadContentRequest)):
        assert refused(service, method, request(digest=digest)).code is StatusCode.INVALID_ARGUMENT
    if digest:
        error = refused(service, "Write", write(expected=digest), store="export")
        assert error.code is StatusCode.INVALID_ARGUMENT


# ---- reading


def test_info_tells_a_blobs_size(service: Content) -> None:
    async def scenario() -> None:
        (answer,) = await call(service, "Info", pb.InfoRequest(digest=digest_of(DATA)))
        info = pb.InfoResponse.FromString(answer).info
        assert (info.digest, info.size) == (digest_of(DATA), len(DATA))
        assert info.created_at.seconds > 1_700_000_000

    run(scenario)


def test_missing_blob_is_not_found(service: Content) -> None:
    for method, request in (("Info", pb.InfoRequest), ("Read", pb.ReadContentRequest)):
        error = refused(service, method, request(digest=digest_of(b"other")))
        assert (error.code, error.message) == (StatusCode.NOT_FOUND, f"content {digest_of(b'other')}: not found")


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [(0, 0, DATA), (5, 0, b"data"), (2, 3, DATA[2:5]), (5, 100, b"data"), (9, 0, b""), (-3, 0, DATA), (0, -1, DATA)],
)
def test_any_part_of_a_blob_can_be_read(offset: int, size: int, expected: bytes, service: Content) -> None:
    async def scenario() -> None:
        request = pb.ReadContentRequest(digest=digest_of(DATA), offset=offset, size=size)
        answers = [pb.ReadContentResponse.FromString(each) for each in await call(service, "Read", request)]
        assert b"".join(answer.data for answer in answers) == expected

    run(scenario)


def test_large_blob_comes_in_pieces_with_their_offsets(service: Content, tmp_path: Path) -> None:
    large = bytes(range(256)) * (3 * CHUNK // 256) + b"rest"
    (tmp_path / "read" / "blobs" / "sha256" / digest_of(large)[7:]).write_bytes(large)

    async def scenario() -> None:
        heard = await call(service, "Read", pb.ReadContentRequest(digest=digest_of(large)))
        answers = [pb.ReadContentResponse.FromString(each) for each in heard]
        assert [answer.offset for answer in answers] == [0, CHUNK, 2 * CHUNK, 3 * CHUNK]
        assert b"".join(answer.data for answer in answers) == large

    run(scenario)


def test_reading_past_the_end_is_out_of_range(service: Content) -> None:
    request = pb.ReadContentRequest(digest=digest_of(DATA), offset=len(DATA) + 1)
    assert refused(service, "Read", request).code is StatusCode.OUT_OF_RANGE


def test_blob_that_is_a_link_is_the_error_the_user_sees(service: Content, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "read" / "blobs" / "sha256" / digest_of(b"x")[7:]).symlink_to(tmp_path / "secret")
    error = refused(service, "Read", pb.ReadContentRequest(digest=digest_of(b"x")))
    assert isinstance(error.cause, CogkitError)
    assert "symbolic link" in error.message


def test_blobs_are_listed(service: Content) -> None:
    async def scenario() -> None:
        (answer,) = await call(service, "List", pb.ListContentRequest())
        assert [info.digest for info in pb.ListContentResponse.FromString(answer).info] == [digest_of(DATA)]

    run(scenario)
    assert refused(service, "List", pb.ListContentRequest(filters=["x"])).code is StatusCode.UNIMPLEMENTED


# ---- writing


def test_blob_is_written_as_containerds_client_does_it(service: Content, tmp_path: Path) -> None:
    async def scenario() -> None:
        expected: dict[str, Any] = {"expected": digest_of(DATA), "total": len(DATA)}
        heard = await call(
            service,
            "Write",
            write(action=pb.STAT, **expected),
            write(DATA[:4]),
            write(DATA[4:], offset=4),
            write(action=pb.COMMIT, offset=len(DATA), **expected),
            store="export",
        )
        answers = [pb.WriteContentResponse.FromString(each) for each in heard]
        assert [(answer.action, answer.offset) for answer in answers] == [
            (pb.STAT, 0),
            (pb.WRITE, 4),
            (pb.WRITE, len(DATA)),
            (pb.COMMIT, len(DATA)),
        ]
        assert answers[0].total == len(DATA)
        assert answers[-1].digest == digest_of(DATA)

    run(scenario)
    assert written(tmp_path) == {digest_of(DATA)[7:]: DATA}


def test_blob_that_is_there_does_not_travel_again(service: Content) -> None:
    async def scenario() -> None:
        await call(service, "Write", write(DATA, action=pb.COMMIT), store="export")

    run(scenario)
    for first in (write(action=pb.STAT, expected=digest_of(DATA)), write(DATA, pb.COMMIT, expected=digest_of(DATA))):
        assert refused(service, "Write", first, store="export").code is StatusCode.ALREADY_EXISTS
    late = (write(action=pb.STAT), write(DATA, action=pb.COMMIT, expected=digest_of(DATA)))
    assert refused(service, "Write", *late, store="export").code is StatusCode.ALREADY_EXISTS
    assert refused(service, "Write", write(DATA, action=pb.COMMIT), store="export").code is StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize("wrong", [{"expected": digest_of(b"other")}, {"total": 3}])
def test_blob_that_is_not_what_it_should_be_is_not_kept(
    wrong: dict[str, Any], service: Content, tmp_path: Path
) -> None:
    error = refused(service, "Write", write(DATA, action=pb.COMMIT, **wrong), store="export")
    assert error.code is StatusCode.FAILED_PRECONDITION
    assert written(tmp_path) == {}


def test_write_that_breaks_off_leaves_nothing_and_can_begin_again(service: Content, tmp_path: Path) -> None:
    async def scenario() -> None:
        await call(service, "Write", write(b"half"), store="export")
        assert written(tmp_path) == {}
        await call(service, "Write", write(b"wrong"), write(DATA), write(action=pb.COMMIT, offset=9), store="export")
        assert written(tmp_path) == {digest_of(DATA)[7:]: DATA}

    run(scenario)


def test_gap_in_a_write_is_out_of_range(service: Content) -> None:
    assert refused(service, "Write", write(DATA, offset=3), store="export").code is StatusCode.OUT_OF_RANGE


def test_store_that_is_only_read_is_not_written(service: Content, tmp_path: Path) -> None:
    error = refused(service, "Write", write(b"x", action=pb.COMMIT))
    assert error.code is StatusCode.PERMISSION_DENIED
    assert len(list((tmp_path / "read").rglob("*"))) == 3


def test_nothing_is_deleted_or_changed(service: Content, tmp_path: Path) -> None:
    for store in ("oci:read", "export"):
        delete = refused(service, "Delete", pb.DeleteContentRequest(digest=digest_of(DATA)), store=store)
        assert delete.code is StatusCode.PERMISSION_DENIED
        assert refused(service, "Update", pb.UpdateRequest(), store=store).code is StatusCode.FAILED_PRECONDITION
    assert (tmp_path / "read" / "blobs" / "sha256" / digest_of(DATA)[7:]).exists()


def test_write_without_a_reference_is_refused(service: Content) -> None:
    assert refused(service, "Write", pb.WriteContentRequest(), store="export").code is StatusCode.INVALID_ARGUMENT


def test_one_reference_has_one_writer_and_its_status_is_told(service: Content) -> None:
    async def scenario() -> None:
        metadata = {"buildkit-attachable-store-id": (b"export",)}
        open_call = FakeCall(
            f"{SERVICE}Write", write(b"half", total=8).SerializeToString(), metadata=metadata, ends=False
        )
        writing = asyncio.ensure_future(serve(service, open_call))
        await open_call.heard.get()
        with pytest.raises(CallError) as caught:
            await call(service, "Write", write(b"other"), store="export")
        assert caught.value.code is StatusCode.UNAVAILABLE
        (answer,) = await call(service, "Status", pb.StatusRequest(ref="ref"), store="export")
        status = pb.StatusResponse.FromString(answer).status
        assert (status.offset, status.total) == (4, 8)
        (answer,) = await call(service, "ListStatuses", pb.ListStatusesRequest(), store="export")
        assert [each.ref for each in pb.ListStatusesResponse.FromString(answer).statuses] == ["ref"]
        open_call.hang_up()
        await writing
        await call(service, "Abort", pb.AbortRequest(ref="ref"), store="export")
        with pytest.raises(CallError) as caught:
            await call(service, "Status", pb.StatusRequest(ref="ref"), store="export")
        assert caught.value.code is StatusCode.NOT_FOUND

    run(scenario)


def test_torn_request_is_an_error_and_no_crash(service: Content) -> None:
    async def scenario() -> None:
        for messages in ([], [b"\xff\xff"]):
            torn = FakeCall(f"{SERVICE}Write", *messages, metadata={"buildkit-attachable-store-id": (b"export",)})
            with pytest.raises(CallError) as caught:
                await serve(service, torn)
            assert caught.value.code is StatusCode.INTERNAL

    run(scenario)
