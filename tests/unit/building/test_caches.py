"""``--cache-from`` and ``--cache-to`` as buildx reads them, and the credentials that go with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogkit.building.caches import (
    CACHE_FROM,
    CACHE_TO,
    available_imports,
    parse_caches,
    with_credentials,
    with_inline_cache,
)
from cogkit.buildkit.request import CacheEntry
from cogkit.errors import UsageError
from cogkit.oci.content_store import ContentStore, Descriptor

GITHUB = {"ACTIONS_RUNTIME_TOKEN": "tok", "ACTIONS_CACHE_URL": "https://v1", "ACTIONS_RESULTS_URL": "https://v2"}


def one(value: str, flag: str = CACHE_TO) -> CacheEntry:
    (entry,) = parse_caches([value], flag=flag)
    return entry


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("type=inline", CacheEntry("inline", {})),
        ("type=registry,ref=r/a:b,mode=max", CacheEntry("registry", {"ref": "r/a:b", "mode": "max"})),
        ("TYPE=local,Dest=dir,tag=x", CacheEntry("local", {"dest": "dir", "tag": "x"})),
        ("type=gha,scope=a", CacheEntry("gha", {"scope": "a"})),
        ("type=s3,region=eu,bucket=b", CacheEntry("s3", {"region": "eu", "bucket": "b"})),
        ("type=azblob,account_url=u", CacheEntry("azblob", {"account_url": "u"})),
        ('type=s3,"name=a,b"', CacheEntry("s3", {"name": "a,b"})),
        ("type=made.by.the/builder,a=b=c", CacheEntry("made.by.the/builder", {"a": "b=c"})),
    ],
)
def test_cache_is_a_type_with_attributes_that_are_passed_on(value: str, expected: CacheEntry) -> None:
    assert one(value) == expected


def test_images_alone_are_caches_in_registries() -> None:
    assert parse_caches(["r/a:b,r/c", "", "user/app:cache"], flag=CACHE_FROM) == tuple(
        CacheEntry("registry", {"ref": ref}) for ref in ("r/a:b", "r/c", "user/app:cache")
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ref=a", "the type is missing"),
        ("type=registry", "type=registry needs ref="),
        ("type=local,src=a", "type=local needs dest="),
        ("type=s3,secret", "a field is not KEY=VALUE"),
    ],
)
def test_cache_that_makes_no_sense_is_refused(value: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        one(value)
    with pytest.raises(UsageError, match="needs src="):
        one("type=local,dest=a", flag=CACHE_FROM)


def test_inline_cache_has_an_old_build_argument() -> None:
    assert with_inline_cache((), {"BUILDKIT_INLINE_CACHE": "1"}) == (CacheEntry("inline"),)
    assert with_inline_cache((), {"BUILDKIT_INLINE_CACHE": "0"}) == ()


def test_github_cache_takes_its_token_from_the_workflow() -> None:
    (entry,) = with_credentials([one("type=gha,scope=a")], GITHUB)
    assert entry.attrs == {"scope": "a", "token": "tok", "url": "https://v1"}
    (entry,) = with_credentials([one("type=gha")], {**GITHUB, "ACTIONS_CACHE_SERVICE_V2": "true"})
    assert entry.attrs == {"token": "tok", "url": "https://v1", "url_v2": "https://v2"}
    (entry,) = with_credentials([one("type=gha,token=own,url=https://own")], GITHUB)
    assert entry.attrs == {"token": "own", "url": "https://own"}


def test_github_cache_is_left_out_where_there_is_no_github() -> None:
    assert with_credentials([one("type=gha"), one("type=inline")], {}) == (one("type=inline"),)


def test_s3_cache_takes_its_keys_from_the_environment_else_from_the_users_file(tmp_path: Path) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_SESSION_TOKEN": "session"}
    (entry,) = with_credentials([one("type=s3,bucket=b")], environment)
    assert entry.attrs == {
        "bucket": "b",
        "access_key_id": "id",
        "secret_access_key": "key",
        "session_token": "session",
    }
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = %b\n[other]\naws_access_key_id = c\n"
    )
    (entry,) = with_credentials([one("type=s3,bucket=b")], {"HOME": str(tmp_path)})
    assert entry.attrs == {"bucket": "b", "access_key_id": "a", "secret_access_key": "%b"}
    (entry,) = with_credentials([one("type=s3,bucket=b")], {"HOME": str(tmp_path), "AWS_PROFILE": "other"})
    assert entry.attrs == {"bucket": "b", "access_key_id": "c"}


def test_keys_that_the_user_gives_get_no_session_token_of_others() -> None:
    given = one("type=s3,access_key_id=a,secret_access_key=b")
    assert with_credentials([given], {"AWS_SESSION_TOKEN": "session"}) == (given,)


@pytest.mark.parametrize("content", ["no section", "[default\n", "[other]\n"])
def test_file_of_keys_that_makes_no_sense_is_no_keys(content: str, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(content)
    entry = one("type=s3,bucket=b")
    assert with_credentials([entry], {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}) == (entry,)


def test_local_cache_that_is_not_there_yet_is_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    entries = [one(f"type=local,src={tmp_path}/gone", CACHE_FROM), one("type=registry,ref=a", CACHE_FROM)]
    assert available_imports(entries, warnings.append) == (entries[1],)
    (warning,) = warnings
    assert warning.startswith(
        f"--cache-from type=local,src={tmp_path}/gone is not used: {tmp_path}/gone is not an OCI layout"
    )


def test_local_cache_gets_the_digest_of_its_tag(tmp_path: Path) -> None:
    store = ContentStore(tmp_path, writable=True)
    writer = store.writer()
    writer.write(b"cache")
    digest = writer.commit()
    writer.close()
    store.put(Descriptor({"digest": digest}), tag="v1")
    warnings: list[str] = []
    found = available_imports([one(f"type=local,src={tmp_path},tag=v1", CACHE_FROM)], warnings.append)
    assert [entry.attrs["digest"] for entry in found] == [digest]
    assert available_imports([one(f"type=local,src={tmp_path}", CACHE_FROM)], warnings.append) == ()
    assert "has nothing with the tag 'latest'" in warnings[0]
    gone = f"sha256:{'0' * 64}"
    for wrong in (gone, "../x"):
        assert available_imports([one(f"type=local,src={tmp_path},digest={wrong}", CACHE_FROM)], warnings.append) == ()
    assert f"does not hold {gone}" in warnings[1]
