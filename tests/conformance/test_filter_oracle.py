"""What is sent of random trees, against fsutil's ``NewFilterFS`` with hard links reset, also as BuildKit nests it."""

from __future__ import annotations

import base64
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cogkit.buildkit.fsutil.batch import WITHHELD
from cogkit.buildkit.fsutil.filter import TreeFilter, include_patterns
from cogkit.buildkit.fsutil.follow import follow_links
from cogkit.buildkit.fsutil.gopath import to_bytes, to_str
from cogkit.buildkit.fsutil.patternmatcher.patterns import PatternError
from cogkit.buildkit.fsutil.walk import ContentReader, Tree
from cogkit.buildkit.mounts import LocalMount
from tests.conformance import generate
from tests.described import entries_of
from tests.oracle.oracle import Oracle

BLOCKS = 8
TREES = 45  # per block
FILTERS = 12  # per tree


class Sent(NamedTuple):
    """All that the protocol says of an entry, and the content that would be sent."""

    path: bytes
    mode: int
    owner: tuple[int, int]
    size: int
    mod_time: int
    linkname: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes]
    content: bytes | None


class Options(NamedTuple):
    include: list[bytes] | None
    exclude: list[bytes] | None
    follow: list[bytes] | None
    layered: bool


def _texts(paths: Sequence[bytes] | None) -> list[str] | None:
    return None if paths is None else [to_str(path) for path in paths]


def _upstream(oracle: Oracle, root: Path, options: Options) -> tuple[list[Sent], str | None]:
    answer = oracle.walk(os.fsencode(root), **options._asdict())
    return [_sent(stat) for stat in answer["stats"] or ()], answer.get("error")


def _sent(stat: dict[str, Any]) -> Sent:
    def decode(text: str | None) -> bytes:
        return base64.b64decode(text or "")

    return Sent(
        decode(stat["path"]),
        stat["mode"],
        (stat["uid"], stat["gid"]),
        stat["size"],
        stat["mtime"],
        decode(stat["linkname"]),
        (stat["devmajor"], stat["devminor"]),
        {name: decode(value) for name, value in (stat.get("xattrs") or {}).items()},
        None if stat["content"] is None else decode(stat["content"]),
    )


def _ours(root: Path, options: Options) -> tuple[list[Sent], str | None]:
    sent: list[Sent] = []
    with Tree(LocalMount("context", root)) as tree:
        reader = ContentReader(tree)
        try:
            targets = follow_links(tree, _texts(options.follow) or ()) if options.follow is not None else None
            filter = TreeFilter(include_patterns(_texts(options.include), targets), _texts(options.exclude) or ())
            for batch in tree.walk(filter):
                for stat, kind in zip(entries_of([batch]), batch.content, strict=True):
                    content = None
                    if stat.has_content:
                        content = b"" if kind == WITHHELD else b"".join(reader.read(stat.path, 1000))
                    sent.append(
                        Sent(
                            stat.path,
                            stat.mode,
                            (stat.uid, stat.gid),
                            stat.size,
                            stat.mod_time,
                            stat.linkname,
                            (stat.devmajor, stat.devminor),
                            dict(stat.xattrs or {}),
                            content,
                        )
                    )
        except PatternError as error:
            return sent, error.message
        finally:
            reader.close()
    return sent, None


def _difference(oracle: Oracle, root: Path, options: Options) -> str | None:
    expected, found = _upstream(oracle, root, options), _ours(root, options)
    if expected == found:
        return None
    missing = [entry for entry in expected[0] if entry not in found[0]]
    extra = [entry for entry in found[0] if entry not in expected[0]]
    return f"{options}: errors {found[1]!r}, upstream {expected[1]!r}; missing {missing[:3]}; extra {extra[:3]}"


def _follow_path(rng: random.Random, paths: Sequence[bytes]) -> bytes:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice([b"", b"/", b"./"]) + rng.choice(paths)
    if kind < 0.7:
        return generate.pattern(rng, paths).replace(b"\0", b"").lstrip(b"!")
    # Upstream looks up what is outside of the tree; we never do, so such paths must have nothing to find.
    return generate.odd_path(rng).replace(b"..", b"a/..").replace(b"a/...", b"...")


def _options(rng: random.Random, paths: Sequence[bytes]) -> Options:
    make = generate.readable_patterns if rng.random() < 0.8 else generate.patterns
    return Options(
        include=make(rng, paths) if rng.random() < 0.5 else None,
        exclude=make(rng, paths) if rng.random() < 0.6 else None,
        follow=[_follow_path(rng, paths) for _ in range(rng.randint(0, 3))] if rng.random() < 0.4 else None,
        layered=rng.random() < 0.5,
    )


@pytest.mark.parametrize("block", range(BLOCKS))
def test_random_trees_are_sent_as_upstream_sends_them(oracle: Oracle, cases: float, tmp_path: Path, block: int) -> None:
    wrong = []
    count = int(TREES * cases)
    for seed in range(block * count, (block + 1) * count):
        rng = random.Random(seed)
        root = tmp_path / str(seed)
        entries = rng.choice([5, 30, 80])
        paths = generate.make_tree(root, rng, entries=entries, plain=rng.random() < 0.5) or [b"a"]
        for number in range(FILTERS):
            difference = _difference(oracle, root, _options(rng, paths))
            if difference is not None:
                wrong.append(f"seed {seed}, filter {number}: {difference}")
    assert not wrong, "\n".join(wrong[:10])


def test_follow_paths_resolve_to_the_same_paths(oracle: Oracle, cases: float, tmp_path: Path) -> None:
    for seed in range(int(150 * cases)):
        rng = random.Random(seed)
        root = tmp_path / str(seed)
        paths = generate.make_tree(root, rng, entries=25, plain=True) or [b"a"]
        for _ in range(8):
            asked = [_follow_path(rng, paths) for _ in range(rng.randint(1, 4))]
            with Tree(LocalMount("context", root)) as tree:
                found = follow_links(tree, [to_str(path) for path in asked])
            expected = oracle.follow(os.fsencode(root), asked)
            assert (None if found is None else [to_bytes(path) for path in found]) == expected, (seed, asked)


def test_a_tree_deeper_than_the_walk_keeps_open_is_sent_in_order(oracle: Oracle, tmp_path: Path) -> None:
    where = tmp_path
    for depth in range(150):
        (where / f"file-{depth}").write_text(str(depth))
        (where / "z").write_text("after")
        where = where / "d"
        where.mkdir()
    assert _difference(oracle, tmp_path, Options(None, [b"**/file-1*"], None, False)) is None
    assert _difference(oracle, tmp_path, Options([b"**/z"], None, None, False)) is None
