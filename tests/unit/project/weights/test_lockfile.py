"""``weights.lock``: read what Cog writes, write it back to the byte, and trust none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cogkit.errors import ConfigError
from cogkit.project.weights.lockfile import WeightsLock, check_path, parse_lock, read_lock

DIGEST = "sha256:" + "ab" * 32
FILE = {"path": "a/<b>.bin", "size": 3, "digest": DIGEST, "layer": DIGEST}
LAYER = {"digest": DIGEST, "mediaType": "t", "size": 5, "sizeUncompressed": 3}
ENTRY: dict[str, Any] = {
    "name": "base",
    "target": "/src/w",
    "sources": [{"uri": "file://./w", "fingerprint": DIGEST, "include": [], "exclude": ["*.md"]}],
    "importedAt": "2026-04-16T17:27:07.123456789Z",
    "digest": DIGEST,
    "setDigest": DIGEST,
    "size": 3,
    "sizeCompressed": 5,
    "files": [FILE],
    "layers": [LAYER],
}


def text(*entries: dict[str, Any], **top: Any) -> bytes:
    """As Go writes it."""
    lock = {"version": 1, "envelopeFormat": DIGEST, "weights": list(entries)} | top
    return json.dumps(lock, indent=2).replace("<", "\\u003c").replace(">", "\\u003e").encode()


def test_a_lock_is_written_back_to_the_byte() -> None:
    content = text(ENTRY, ENTRY | {"name": "more", "target": "/src/more"})
    assert parse_lock(content).serialize() == content


def test_there_may_be_no_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "weights.lock") is None
    (tmp_path / "weights.lock").mkdir()
    with pytest.raises(ConfigError, match="cannot read it"):
        read_lock(tmp_path / "weights.lock")


def test_entries_are_found_replaced_and_left_out() -> None:
    lock = parse_lock(text(ENTRY))
    entry = lock.find("base")
    assert entry is not None
    assert lock.with_weight(entry) == lock
    assert WeightsLock().with_weight(entry).weights == (entry,)
    assert lock.only([]).weights == ()
    assert lock.find("other") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "unsupported weights.lock version None"),
        (text(version=2), "unsupported weights.lock version 2"),
        (text(version="v1"), "unsupported weights.lock version v1"),
        (text({"name": "x"}), "an entry lacks"),
        (text(ENTRY, ENTRY), 'duplicate weight name "base"'),
        (text(ENTRY, ENTRY | {"name": "x", "target": "/src/./w"}), "duplicate weight target"),
        (text(ENTRY | {"name": "../x"}), "is not a weight's name"),
        (text(ENTRY | {"digest": "sha256:x"}), "is not a digest"),
        (text(ENTRY | {"files": [FILE | {"digest": "md5:x"}]}), "is not a digest"),
        (text(ENTRY | {"files": [FILE | {"size": -1}]}), "is not a size"),
        (text(ENTRY | {"files": [FILE | {"size": True}]}), "is not a size"),
        (text(ENTRY | {"files": [FILE | {"path": "../x"}]}), "not a path below"),
        (text(ENTRY | {"files": [FILE | {"path": "/x"}]}), "not a path below"),
        (text(ENTRY | {"files": [FILE | {"path": "a\\b"}]}), "backslash"),
        (text(ENTRY | {"files": "x"}), "an entry lacks|changed by hand"),
        (text(weights=7), "an entry lacks"),
    ],
)
def test_a_lock_that_was_changed_by_hand_is_refused(content: bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_lock(content)
    assert caught.value.where == "weights.lock"
    assert caught.value.hint


@pytest.mark.parametrize("path", ["a", "a/b", "a b/ü", ".hidden", "a..b"])
def test_usual_paths_are_allowed(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize("path", ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b", "a\tb", "\udcff"])
def test_paths_that_could_lead_elsewhere_are_not(path: str) -> None:
    with pytest.raises(ValueError):
        check_path(path)
