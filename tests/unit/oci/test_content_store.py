"""OCI layouts on disk: blobs appear whole, the index is never torn, and nothing leads out."""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from cogkit import atomic_file
from cogkit.errors import OutputError
from cogkit.oci import content_store
from cogkit.oci.content_store import (
    BlobExistsError,
    ContentStore,
    Descriptor,
    LayoutError,
    WrongBlobError,
)
from cogkit.oci.digest import split_digest

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put_blob(store: ContentStore, data: bytes) -> str:
    writer = store.writer()
    try:
        writer.write(data)
        return writer.commit(size=len(data), expected=digest_of(data))
    finally:
        writer.close()


def entry(data: bytes, kind: str = MANIFEST_TYPE, **annotations: str) -> Descriptor:
    content: dict[str, Any] = {"mediaType": kind, "digest": digest_of(data), "size": len(data)}
    return Descriptor({**content, "annotations": annotations} if annotations else content)


def names(store: ContentStore) -> list[tuple[str, str, str]]:
    return [
        (each.digest[7:11], each.annotations.get(IMAGE_NAME, ""), each.annotations.get(REF_NAME, ""))
        for each in store.index()
    ]


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "layout", writable=True)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


# ---- blobs


def test_blob_appears_under_its_digest_when_it_is_committed_and_not_before(store: ContentStore) -> None:
    writer = store.writer()
    writer.write(b"da")
    writer.write(b"ta")
    # Where files cannot be without a name, it has a hidden one meanwhile.
    assert {name for name in files(store.root) if not Path(name).name.startswith(".")} == set()
    assert store.info(digest_of(b"data")) is None
    assert writer.commit(expected=digest_of(b"data")) == digest_of(b"data")
    writer.close()
    assert files(store.root) == {f"blobs/sha256/{digest_of(b'data')[7:]}"}
    info = store.info(digest_of(b"data"))
    assert info is not None and info.size == 4
    assert [blob.digest for blob in store.blobs()] == [digest_of(b"data")]


def test_blob_that_is_let_go_leaves_nothing(store: ContentStore) -> None:
    writer = store.writer()
    writer.write(b"data")
    writer.close()
    writer.close()
    assert files(store.root) == set()


def test_blob_of_another_digest_or_size_does_not_appear(store: ContentStore) -> None:
    for wrong in ({"expected": digest_of(b"other")}, {"size": 5}):
        writer = store.writer()
        writer.write(b"data")
        with pytest.raises(WrongBlobError):
            writer.commit(**wrong)
        writer.close()
    assert files(store.root) == set()


def test_blob_that_is_there_stays_as_it_is(store: ContentStore) -> None:
    put_blob(store, b"data")
    before = os.stat(store.root / "blobs" / "sha256" / digest_of(b"data")[7:])
    with pytest.raises(BlobExistsError):
        put_blob(store, b"data")
    assert os.stat(store.root / "blobs" / "sha256" / digest_of(b"data")[7:]).st_ino == before.st_ino


def test_write_can_begin_again(store: ContentStore) -> None:
    writer = store.writer()
    writer.write(b"wrong")
    writer.restart()
    writer.write(b"data")
    assert (writer.commit(), writer.offset) == (digest_of(b"data"), 4)
    writer.close()


def test_other_algorithms_have_their_own_folder(store: ContentStore) -> None:
    writer = store.writer(algorithm="sha512")
    writer.write(b"data")
    digest = writer.commit()
    writer.close()
    assert digest == f"sha512:{hashlib.sha512(b'data').hexdigest()}"
    assert store.info(digest) is not None


def test_without_unnamed_files_the_hidden_one_goes_away_too(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_file, "open_unnamed", lambda directory: None)
    put_blob(store, b"data")
    with pytest.raises(BlobExistsError):
        put_blob(store, b"data")
    assert files(store.root) == {f"blobs/sha256/{digest_of(b'data')[7:]}"}


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "md5:" + "a" * 32,
        "sha256:../" + "a" * 61,
        "sha256:" + "a" * 64 + "\n",
    ],
)
def test_what_is_no_digest_makes_no_path(digest: str, store: ContentStore) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        split_digest(digest)
    with pytest.raises(ValueError, match="not a digest"):
        store.open_blob(digest)


def test_links_in_the_layout_are_not_followed(store: ContentStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    blobs = store.root / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    digest = digest_of(b"x")
    (blobs / digest[7:]).symlink_to(tmp_path / "secret")
    with pytest.raises(LayoutError, match="symbolic link"):
        store.open_blob(digest)
    (blobs / digest[7:]).unlink()
    os.mkfifo(blobs / digest[7:])
    with pytest.raises(LayoutError, match="is not a file"):
        store.open_blob(digest)
    (blobs / digest[7:]).unlink()
    blobs.rmdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / digest[7:]).write_text("secret")
    blobs.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LayoutError, match="symbolic link"):
        store.open_blob(digest)
    with pytest.raises(OutputError):
        store.writer()


def test_layout_itself_may_be_behind_a_link(store: ContentStore, tmp_path: Path) -> None:
    put_blob(store, b"data")
    (tmp_path / "link").symlink_to(store.root)
    assert ContentStore(tmp_path / "link").info(digest_of(b"data")) is not None


def test_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        ContentStore(tmp_path / "file", writable=True).writer()


# ---- the index


def test_first_entry_makes_the_layout(store: ContentStore) -> None:
    store.put(entry(b"a"), images=["docker.io/library/app:v1"])
    assert json.loads((store.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store.root / "index.json").read_text())
    assert (index["schemaVersion"], index["mediaType"]) == (2, INDEX_TYPE)
    assert names(store) == [(digest_of(b"a")[7:11], "docker.io/library/app:v1", "v1")]
    assert files(store.root) == {"index.json", "oci-layout"}


def test_name_moves_to_the_new_entry_and_other_entries_stay(store: ContentStore) -> None:
    store.put(entry(b"a"), tag="latest")
    store.put(entry(b"b"), images=["r.example.com/app:latest"])
    store.put(entry(b"c"), tag="latest")
    assert names(store) == [
        (digest_of(b"b")[7:11], "r.example.com/app:latest", "latest"),
        (digest_of(b"c")[7:11], "", "latest"),
    ]


def test_entry_of_several_names_is_there_once_for_each(store: ContentStore) -> None:
    store.put(entry(b"a", extra="kept"), images=["a.example.com/x:1", "b.example.com/y@sha256:abc", "c.example.com/z"])
    assert [each[1:] for each in names(store)] == [
        ("a.example.com/x:1", "1"),
        ("b.example.com/y@sha256:abc", "@sha256:abc"),
        ("c.example.com/z", ""),
    ]
    assert all(each.annotations["extra"] == "kept" for each in store.index())


def test_entry_is_found_by_its_image_name_before_its_tag(store: ContentStore) -> None:
    store.put(entry(b"a"), tag="v1")
    store.put(entry(b"b"), images=["v1"])
    found = store.find("v1")
    assert found is not None and found.digest == digest_of(b"b")
    assert store.find("v2") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"manifests": 1}', '{"manifests": [1]}', "[" * 100_000])
def test_index_that_makes_no_sense_is_refused_and_not_overwritten(content: str, store: ContentStore) -> None:
    store.root.mkdir()
    (store.root / "index.json").write_text(content)
    with pytest.raises(LayoutError) as caught:
        store.put(entry(b"a"), tag="latest")
    assert caught.value.where == str(store.root / "index.json")
    assert (store.root / "index.json").read_text() == content
    assert files(store.root) == {"index.json", "oci-layout"}


def test_folder_without_an_index_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"is not an OCI layout: it has no index\.json"):
        ContentStore(tmp_path).index()


def test_further_fields_of_an_index_are_kept(store: ContentStore) -> None:
    store.root.mkdir()
    (store.root / "index.json").write_text('{"schemaVersion": 2, "manifests": null, "annotations": {"a": "b"}}')
    store.put(entry(b"a"), tag="latest")
    assert json.loads((store.root / "index.json").read_text())["annotations"] == {"a": "b"}


def _put_many(root: str, worker: int) -> None:
    for number in range(20):
        ContentStore(Path(root), writable=True).put(entry(b"%d" % number), tag=f"{worker}-{number}")


def test_processes_that_write_one_index_lose_no_entry(store: ContentStore) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_put_many, args=(str(store.root), worker)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert {each[2] for each in names(store)} == {f"{worker}-{number}" for worker in range(3) for number in range(20)}
    assert files(store.root) == {"index.json", "oci-layout"}


def test_lock_of_another_process_is_waited_for_and_not_forever(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content_store, "LOCK_PATIENCE", 0.1)
    store.put(entry(b"a"), tag="latest")
    lock = os.open(store.root / "index.json.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="holds the lock"):
            store.put(entry(b"b"), tag="latest")
    finally:
        os.close(lock)
    store.put(entry(b"b"), tag="latest")
    assert [each[0] for each in names(store)] == [digest_of(b"b")[7:11]]


# ---- what nothing leads to


def test_only_what_the_index_leads_to_stays(store: ContentStore) -> None:
    config, layer = put_blob(store, b"config"), put_blob(store, b"layer")
    manifest = json.dumps({"config": {"digest": config}, "layers": [{"digest": layer}]}).encode()
    put_blob(store, manifest)
    index = json.dumps({"manifests": [entry(manifest).content, entry(b"not here").content]}).encode()
    put_blob(store, index)
    put_blob(store, b"of an earlier build")
    store.put(entry(index, INDEX_TYPE), tag="latest")
    store.remove_unreferenced()
    assert {blob.digest for blob in store.blobs()} == {config, layer, digest_of(manifest), digest_of(index)}


def test_nothing_is_deleted_when_a_manifest_cannot_be_understood(store: ContentStore) -> None:
    put_blob(store, b"no json")
    put_blob(store, b"layer")
    store.put(entry(b"no json"), tag="latest")
    with pytest.raises(LayoutError, match="not the JSON"):
        store.remove_unreferenced()
    assert len(list(store.blobs())) == 2
