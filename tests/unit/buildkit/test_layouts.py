"""The OCI layouts of a solve: under which names they are served, and what their indexes name afterwards."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from cogkit.buildkit.exports import Export
from cogkit.buildkit.layouts import open_layouts, resolve_image
from cogkit.buildkit.request import CacheEntry, SolveRequest
from cogkit.errors import CogkitError, UsageError
from cogkit.oci.content_store import ContentStore, Descriptor, LayoutError

DIGEST = f"sha256:{'a' * 64}"
DESCRIBED = json.dumps({"mediaType": "m", "digest": DIGEST, "size": 1})


def tags(folder: Path) -> list[tuple[str, str]]:
    entries = ContentStore(folder).index()
    return [(each.digest, each.annotations["org.opencontainers.image.ref.name"]) for each in entries]


def layout(folder: Path, **tagged: bytes) -> dict[str, str]:
    store = ContentStore(folder, writable=True)
    digests = {}
    for tag, data in tagged.items():
        writer = store.writer()
        writer.write(data)
        digests[tag] = writer.commit()
        writer.close()
        store.put(Descriptor({"digest": digests[tag]}), tag=tag)
    return digests


def test_layouts_have_the_names_that_buildkits_own_client_gives_them(tmp_path: Path) -> None:
    layout(tmp_path / "from", latest=b"cache")
    request = SolveRequest(
        oci_layouts={"some-id": tmp_path / "image"},
        cache_imports=(CacheEntry("local", {"src": f"{tmp_path}/from"}), CacheEntry("inline")),
        cache_exports=(CacheEntry("local", {"dest": f"{tmp_path}/to"}), CacheEntry("registry", {"ref": "a"})),
        exports=(Export("oci", {"tar": "false"}, directory=tmp_path / "out"), Export("local", directory=tmp_path)),
    )
    stores = open_layouts(request).stores
    assert {name: store.writable for name, store in stores.items()} == {
        "oci:some-id": False,
        f"local:{tmp_path}/from": False,
        f"local:{tmp_path}/to": True,
        "export": True,
    }


def test_folder_that_is_read_and_written_can_be_written(tmp_path: Path) -> None:
    layout(tmp_path, latest=b"cache")
    request = SolveRequest(
        cache_imports=(CacheEntry("local", {"src": str(tmp_path)}),),
        cache_exports=(CacheEntry("local", {"dest": str(tmp_path)}),),
    )
    assert open_layouts(request).stores[f"local:{tmp_path}"].writable


def test_builder_is_told_the_digest_of_a_cache(tmp_path: Path) -> None:
    digests = layout(tmp_path, latest=b"new", v1=b"old")
    for attrs, expected in (
        ({}, digests["latest"]),
        ({"tag": "v1"}, digests["v1"]),
        ({"digest": digests["v1"]}, digests["v1"]),
    ):
        entry = CacheEntry("local", {"src": str(tmp_path), **attrs})
        (found,) = open_layouts(SolveRequest(cache_imports=(entry,))).request.cache_imports
        assert found.attrs["digest"] == expected


def test_caches_that_are_not_there_or_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError):
        open_layouts(SolveRequest(cache_imports=(CacheEntry("local", {"src": str(tmp_path)}),)))
    with pytest.raises(UsageError):
        open_layouts(SolveRequest(cache_imports=(CacheEntry("local"),)))
    with pytest.raises(UsageError):
        open_layouts(SolveRequest(cache_exports=(CacheEntry("local"),)))
    with pytest.raises(UsageError, match="reset=maybe"):
        open_layouts(SolveRequest(cache_exports=(CacheEntry("local", {"dest": "x", "reset": "maybe"}),)))


def test_cache_and_result_are_named_when_the_build_has_succeeded(tmp_path: Path) -> None:
    request = SolveRequest(
        cache_exports=(CacheEntry("local", {"dest": f"{tmp_path}/cache", "tag": "v1"}),),
        exports=(Export("oci", {"tar": "false"}, directory=tmp_path / "out"),),
    )
    layouts = open_layouts(request)
    assert not list(tmp_path.iterdir())
    layouts.publish(
        {
            "cache.manifest": DESCRIBED,
            "containerimage.descriptor": b64encode(DESCRIBED.encode()).decode(),
            "image.name": "docker.io/library/a:1,r.example.com/b:2",
        }
    )
    assert tags(tmp_path / "cache") == [(DIGEST, "v1")]
    assert tags(tmp_path / "out") == [(DIGEST, "1"), (DIGEST, "2")]


def test_result_without_a_name_is_the_latest(tmp_path: Path) -> None:
    request = SolveRequest(exports=(Export("oci", {"tar": "false"}, directory=tmp_path / "out"),))
    open_layouts(request).publish({"containerimage.descriptor": b64encode(DESCRIBED.encode()).decode()})
    assert tags(tmp_path / "out") == [(DIGEST, "latest")]


def test_reset_deletes_what_is_of_no_cache_any_more(tmp_path: Path) -> None:
    digests = layout(tmp_path, latest=b"old", v1=b"kept")
    store = ContentStore(tmp_path, writable=True)
    writer = store.writer()
    writer.write(b"new")
    new = writer.commit()
    writer.close()
    request = SolveRequest(cache_exports=(CacheEntry("local", {"dest": str(tmp_path), "reset": "true"}),))
    open_layouts(request).publish({"cache.manifest": json.dumps({"digest": new})})
    assert {blob.digest for blob in store.blobs()} == {new, digests["v1"]}


@pytest.mark.parametrize("word", ["{", "[]", "null", json.dumps({"digest": "../x"}), ""])
def test_descriptions_that_make_no_sense_are_refused(word: str, tmp_path: Path) -> None:
    request = SolveRequest(exports=(Export("oci", {"tar": "false"}, directory=tmp_path / "out"),))
    with pytest.raises(CogkitError):
        open_layouts(request).publish({"containerimage.descriptor": b64encode(word.encode()).decode() or "%"})


def test_image_is_found_by_digest_by_tag_or_because_it_is_the_only_one(tmp_path: Path) -> None:
    digests = layout(tmp_path / "one", v1=b"image")
    assert resolve_image(tmp_path / "one", tag="latest") == digests["v1"]
    more = layout(tmp_path / "one", v2=b"other")
    assert resolve_image(tmp_path / "one", tag="v2") == more["v2"]
    assert resolve_image(tmp_path / "one", tag="", digest=digests["v1"]) == digests["v1"]
    with pytest.raises(LayoutError, match="has 2 images and none with the tag 'latest'"):
        resolve_image(tmp_path / "one", tag="latest")
    with pytest.raises(LayoutError, match="does not hold"):
        resolve_image(tmp_path / "one", tag="", digest=DIGEST)
