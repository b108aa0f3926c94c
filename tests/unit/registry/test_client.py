"""The registry client against a registry in memory: what is sent again, what is not, and what a refusal says."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cogkit.errors import Interrupted
from cogkit.oci.digest import digest_of
from cogkit.oci.media_types import OCI_MANIFEST
from cogkit.registry import client as client_module
from cogkit.registry.backoff import Backoff
from cogkit.registry.client import (
    BytesSource,
    RegistryClient,
    RegistryError,
    RegistryRefusedError,
    RegistryUnreachableError,
    WrongContentError,
)
from cogkit.registry.docker_config import RegistryLogin
from tests.fake_registry import FakeRegistry
from tests.real.token_server import TokenServer

HASTY = Backoff(first=0.001, ceiling=0.002, patience=0.1)
CONTENT = random.Random(7).randbytes(3 << 20)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    started = FakeRegistry()
    yield started
    started.stop()


@pytest.fixture
def client(fake: FakeRegistry) -> Iterator[RegistryClient]:
    made = RegistryClient(fake.host, backoff=HASTY)
    yield made
    made.close()


class Kept:
    """Upload sessions in memory."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        return self.all.get(key)

    def put(self, key: str, location: str) -> None:
        self.all[key] = location

    def drop(self, key: str) -> None:
        self.all.pop(key, None)


def read(client: RegistryClient, digest: str, size: int) -> bytes:
    return b"".join(client.read_blob("r", digest, size))


# ---- manifests


def test_a_manifest_comes_back_as_it_was_put(client: RegistryClient) -> None:
    content = json.dumps({"mediaType": OCI_MANIFEST}).encode()
    digest = client.put_manifest("team/app", "v1", content, OCI_MANIFEST)
    found = client.get_manifest("team/app", "v1")
    assert found is not None
    assert (found.content, found.media_type, found.digest) == (content, OCI_MANIFEST, digest)
    info = client.head_manifest("team/app", digest)
    assert info is not None
    assert (info.digest, info.media_type, info.size) == (digest, OCI_MANIFEST, len(content))
    assert client.tags("team/app") == ["v1"]


def test_what_is_not_there_is_none(client: RegistryClient) -> None:
    assert client.get_manifest("r", "v1") is None
    assert client.head_manifest("r", "v1") is None
    assert client.blob_size("r", digest_of(b"x")) is None


def test_a_manifest_of_another_digest_is_refused(client: RegistryClient, fake: FakeRegistry) -> None:
    wanted = digest_of(b"{}")
    fake.manifests["r", wanted] = (OCI_MANIFEST, b'{"other": 1}')
    with pytest.raises(WrongContentError, match="another digest"):
        client.get_manifest("r", wanted)


def test_a_manifest_that_is_no_json_object_says_so(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.manifests["r", "v1"] = (OCI_MANIFEST, b"[]")
    found = client.get_manifest("r", "v1")
    assert found is not None
    with pytest.raises(RegistryError, match="not a JSON object"):
        found.document()


# ---- downloads


def test_a_blob_is_read(client: RegistryClient, fake: FakeRegistry) -> None:
    assert read(client, fake.put_blob("r", CONTENT), len(CONTENT)) == CONTENT
    assert read(client, fake.put_blob("r", b""), 0) == b""


@pytest.mark.parametrize("seed", range(5))
def test_a_download_that_breaks_goes_on_where_it_was(client: RegistryClient, fake: FakeRegistry, seed: int) -> None:
    digest = fake.put_blob("r", CONTENT)
    dice = random.Random(seed)
    fake.faults.cut_downloads = [dice.randrange(len(CONTENT) // 4) for _ in range(4)]
    assert read(client, digest, len(CONTENT)) == CONTENT
    assert fake.served == len(CONTENT)


def test_a_registry_without_ranges_still_gives_all_of_it(client: RegistryClient, fake: FakeRegistry) -> None:
    digest = fake.put_blob("r", CONTENT)
    fake.faults.no_ranges = True
    fake.faults.cut_downloads = [1000, 2000]
    assert read(client, digest, len(CONTENT)) == CONTENT


def test_reading_begins_where_a_former_one_ended(client: RegistryClient, fake: FakeRegistry) -> None:
    digest = fake.put_blob("r", CONTENT)
    before = hashlib.sha256(CONTENT[:1000])
    rest = b"".join(client.read_blob("r", digest, len(CONTENT), start=1000, hashed=before))
    assert rest == CONTENT[1000:]
    assert fake.served == len(CONTENT) - 1000


def test_a_wrong_byte_is_noticed(client: RegistryClient, fake: FakeRegistry) -> None:
    digest = fake.put_blob("r", CONTENT)
    fake.faults.corrupt.add(digest)
    with pytest.raises(WrongContentError, match="another digest"):
        read(client, digest, len(CONTENT))


def test_a_blob_longer_than_it_should_be_is_noticed(client: RegistryClient, fake: FakeRegistry) -> None:
    with pytest.raises(WrongContentError, match="more than its 10 bytes"):
        read(client, fake.put_blob("r", CONTENT), 10)


def test_a_blob_that_is_missing_is_told_by_its_whole_name(client: RegistryClient, fake: FakeRegistry) -> None:
    with pytest.raises(RegistryError, match=f"{fake.host}/r@sha256:.* is not there"):
        read(client, digest_of(b"x"), 1)


# ---- uploads


def test_a_blob_is_uploaded_once(client: RegistryClient, fake: FakeRegistry) -> None:
    source = BytesSource(CONTENT)
    assert client.push_blob("r", source) == "uploaded"
    assert client.push_blob("r", source) == "exists"
    assert fake.blobs["r", source.digest] == CONTENT
    assert fake.received == len(CONTENT)


def test_an_empty_blob_is_uploaded(client: RegistryClient, fake: FakeRegistry) -> None:
    client.push_blob("r", BytesSource(b""))
    assert fake.blobs["r", digest_of(b"")] == b""


def test_a_blob_of_another_repository_is_mounted_not_sent(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.put_blob("there", CONTENT)
    assert client.push_blob("r", BytesSource(CONTENT), mount_from=("nowhere", "there")) == "mounted"
    assert fake.received == 0
    assert ("r", digest_of(CONTENT)) in fake.blobs
    assert not fake.uploads, "an upload that was started in place of a mount was not taken back"


def test_large_blobs_go_in_chunks_as_the_registry_wants_them(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.chunk_headers = {"OCI-Chunk-Max-Length": str(1 << 20)}
    client.push_blob("r", BytesSource(CONTENT))
    assert fake.blobs["r", digest_of(CONTENT)] == CONTENT
    assert [method for method, _ in fake.asked].count("PATCH") == 3


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("chunk", [0, 1 << 20])
def test_an_upload_that_breaks_sends_only_what_is_missing(
    client: RegistryClient, fake: FakeRegistry, seed: int, chunk: int
) -> None:
    if chunk:
        fake.chunk_headers = {"OCI-Chunk-Max-Length": str(chunk)}
    dice = random.Random(seed)
    fake.faults.cut_uploads = [dice.randrange(1, 500_000) for _ in range(4)]
    told: list[int] = []
    client.push_blob("r", BytesSource(CONTENT), sent=told.append)
    assert fake.blobs["r", digest_of(CONTENT)] == CONTENT
    assert fake.received == len(CONTENT)
    assert sum(told) == len(CONTENT)


def test_an_upload_that_the_registry_forgot_begins_again(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.faults.forget_uploads = True
    fake.faults.cut_uploads = [1_000_000]
    client.push_blob("r", BytesSource(CONTENT))
    assert fake.blobs["r", digest_of(CONTENT)] == CONTENT


def test_another_process_goes_on_with_an_upload(fake: FakeRegistry) -> None:
    kept = Kept()
    stop = threading.Event()
    first = RegistryClient(fake.host, backoff=HASTY, stop=stop, sessions=kept)
    fake.chunk_headers = {"OCI-Chunk-Max-Length": str(1 << 20)}

    class Stopping(BytesSource):
        def read_from(self, offset: int) -> Iterator[bytes]:
            if offset:
                stop.set()
            return super().read_from(offset)

    with pytest.raises(Interrupted):
        first.push_blob("r", Stopping(CONTENT))
    assert fake.received == 1 << 20
    RegistryClient(fake.host, backoff=HASTY, sessions=kept).push_blob("r", BytesSource(CONTENT))
    assert fake.received == len(CONTENT)
    assert not kept.all


def test_a_source_that_ends_too_early_is_told(client: RegistryClient, fake: FakeRegistry) -> None:
    class Short(BytesSource):
        def read_from(self, offset: int) -> Iterator[bytes]:
            yield self.content[: len(self.content) // 2]

    with pytest.raises(WrongContentError, match="changed while it was sent"):
        client.push_blob("r", Short(CONTENT))


def test_a_body_of_another_digest_is_refused_by_the_registry(client: RegistryClient) -> None:
    class Lying(BytesSource):
        @property
        def digest(self) -> str:
            return digest_of(b"something else")

    with pytest.raises(RegistryError, match="provided digest did not match"):
        client.push_blob("r", Lying(b"content"))


# ---- patience


def test_429_and_5xx_are_waited_for(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.faults.refusals = [(429, {"Retry-After": "0"}), (503, {}), (429, {}), (500, {})]
    client.push_blob("r", BytesSource(CONTENT))
    assert fake.blobs["r", digest_of(CONTENT)] == CONTENT
    assert not fake.faults.refusals


def test_patience_ends_with_the_registrys_answer(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.faults.refusals = [(429, {})] * 1000
    with pytest.raises(RegistryUnreachableError, match="answers 429"):
        client.get_manifest("r", "v1")


def test_a_wait_that_is_longer_than_reasonable_is_a_refusal(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.faults.refusals = [(429, {"Retry-After": "86400"})]
    with pytest.raises(RegistryUnreachableError, match="answers 429"):
        client.get_manifest("r", "v1")


def test_nobody_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_PATIENCE", 0.0)
    with pytest.raises(RegistryUnreachableError, match="cannot be reached: Connection refused"):
        RegistryClient("127.0.0.1:1", backoff=HASTY).get_manifest("r", "v1")


def test_an_interrupt_ends_a_wait(fake: FakeRegistry) -> None:
    stop = threading.Event()
    client = RegistryClient(fake.host, stop=stop)
    fake.faults.refusals = [(429, {"Retry-After": "100"})]
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(Interrupted):
        client.get_manifest("r", "v1")


# ---- logins


def test_a_registry_that_wants_a_password_gets_it_once_it_asked(fake: FakeRegistry) -> None:
    wanted = "Basic " + base64.b64encode(b"me:s3cret").decode()
    fake.authorize = lambda path, shown: None if shown == wanted else 'Basic realm="x"'
    client = RegistryClient(fake.host, RegistryLogin("me", "s3cret"), backoff=HASTY)
    client.push_blob("r", BytesSource(CONTENT))
    assert ("r", digest_of(CONTENT)) in fake.blobs
    assert fake.received == len(CONTENT)


@pytest.mark.parametrize(
    ("login", "hint"),
    [(RegistryLogin(), "log in: cogkit login"), (RegistryLogin("me", "wr0ng"), "log in with another user")],
)
def test_a_refusal_says_what_to_do_and_no_password(fake: FakeRegistry, login: RegistryLogin, hint: str) -> None:
    fake.authorize = lambda path, shown: 'Basic realm="x"'
    with pytest.raises(RegistryRefusedError, match="answers 401") as caught:
        RegistryClient(fake.host, login, backoff=HASTY).get_manifest("r", "v1")
    assert hint in str(caught.value.hint)
    assert "wr0ng" not in str(caught.value)


def test_tokens_are_asked_for_by_scope_and_used_again(fake: FakeRegistry, tmp_path: Path) -> None:
    tokens = TokenServer(tmp_path, {"me": "s3cret"})
    challenge = f'Bearer realm="{tokens.realm}",service="tests",scope="repository:other:pull"'
    fake.authorize = lambda path, shown: None if shown.startswith("Bearer ") else challenge
    try:
        client = RegistryClient(fake.host, RegistryLogin("me", "s3cret"), backoff=HASTY)
        fake.put_blob("there", CONTENT)
        client.push_blob("r", BytesSource(CONTENT), mount_from=("there",))
        client.push_blob("r", BytesSource(b"more"))
        scopes = [asked.parameters["scope"] for asked in tokens.asked]
        assert scopes == [
            ["repository:r:pull"],
            ["repository:r:pull,push repository:there:pull"],
            ["repository:r:pull,push"],
        ]
    finally:
        tokens.stop()


def test_a_token_that_ran_out_is_renewed_in_the_middle(fake: FakeRegistry, tmp_path: Path) -> None:
    tokens = TokenServer(tmp_path, {"": ""})
    revoked: set[str] = set()

    def authorize(path: str, shown: str) -> str | None:
        if shown and shown not in revoked:
            if "/uploads/u" in path and not revoked:
                revoked.add(shown)  # it was good for one piece, and then no more
            return None
        return f'Bearer realm="{tokens.realm}",service="tests"'

    fake.authorize = authorize
    fake.chunk_headers = {"OCI-Chunk-Max-Length": str(1 << 20)}
    try:
        RegistryClient(fake.host, backoff=HASTY).push_blob("r", BytesSource(CONTENT))
        assert fake.blobs["r", digest_of(CONTENT)] == CONTENT
    finally:
        tokens.stop()
