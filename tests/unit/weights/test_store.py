"""The store: nothing in it but what is whole, one content once, and only what somebody uses."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cogkit.errors import CogkitError, ConfigError, OutputError
from cogkit.weights.collection import digests_of
from cogkit.weights.store import PARTIAL_LIFE, StoreBusyError, WeightStore, WrongFileError, store_folder
from tests.unit.weights.conftest import Scene


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "store")


def names(store: WeightStore) -> list[str]:
    """All files below the store but notes."""
    return sorted(path.name for path in store.root.rglob("*") if path.is_file() and path.parent.name != "projects")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"COG_CACHE_DIR": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/c/weights"),
        ({"XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/cog/weights"),
        ({"COG_CACHE_DIR": "", "HOME": "/h"}, "/h/.cache/cog/weights"),
    ],
)
def test_the_store_is_where_cogs_is(environ: dict[str, str], folder: str) -> None:
    assert str(store_folder(environ)) == folder


def test_without_any_home_there_is_no_store() -> None:
    with pytest.raises(ConfigError, match="no folder for the weight store"):
        store_folder({"HOME": "relative"})


def test_a_file_is_stored_once_and_read_only(store: WeightStore) -> None:
    for _ in range(2):
        store.put(sha(b"abc"), 3, [b"a", b"bc"])
    path = store.path(sha(b"abc"))
    assert path == store.root / "files" / "sha256" / sha(b"abc")[7:9] / sha(b"abc")[7:]
    assert path.read_bytes() == b"abc"
    assert path.stat().st_mode & 0o777 == 0o444
    assert names(store) == [path.name]


@pytest.mark.parametrize("chunks", [[b"ab"], [b"abcd"], [b"abd"], [b""]])
def test_what_is_not_what_it_should_be_is_not_stored(store: WeightStore, chunks: list[bytes]) -> None:
    with pytest.raises(WrongFileError):
        store.put(sha(b"abc"), 3, chunks)
    assert names(store) == []


def test_what_cannot_be_written_leaves_nothing(store: WeightStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="no space left"):
        store.put(sha(b"abc"), 3, [b"abc"])
    assert names(store) == []


def test_a_killed_writer_leaves_nothing_that_looks_whole(store: WeightStore) -> None:
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from cogkit.weights.store import WeightStore\n"
        "def chunks():\n"
        "    yield b'ab'\n"
        "    os.kill(os.getpid(), 9)\n"
        f"WeightStore(Path(sys.argv[1])).put({sha(b'abc')!r}, 3, chunks())\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(store.root)], timeout=120, check=False)
    assert done.returncode == -9
    assert not store.has(sha(b"abc"), 3)
    assert [name for name in names(store) if len(name) == 64] == []
    store.put(sha(b"abc"), 3, [b"abc"])


def test_a_file_system_without_unnamed_files_will_do(store: WeightStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cogkit.atomic_file.new_unnamed", lambda directory: None)
    store.put(sha(b"abc"), 3, [b"abc"])
    source = store.root.parent / "source"
    source.write_bytes(b"defg")
    assert store.put_copy(source) == (sha(b"defg"), 4)
    assert names(store) == sorted([sha(b"abc")[7:], sha(b"defg")[7:]])


def test_a_part_belongs_to_one_at_a_time(store: WeightStore) -> None:
    with store.partial("x") as first, store.partial("x") as second:
        assert first is not None
        assert second is None
    with store.partial("x") as again:
        assert again is not None


def test_a_link_is_the_same_file_and_needs_no_room(store: WeightStore, tmp_path: Path) -> None:
    store.put(sha(b"abc"), 3, [b"abc"])
    store.link(sha(b"abc"), 3, tmp_path / "linked")
    assert (tmp_path / "linked").samefile(store.path(sha(b"abc")))
    with pytest.raises(CogkitError, match="is not in the weight store") as caught:
        store.link(sha(b"x"), 1, tmp_path / "other")
    assert "cogkit weights pull" in str(caught.value.hint)


def test_another_file_system_is_told_with_what_to_do(
    store: WeightStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    store.put(sha(b"abc"), 3, [b"abc"])
    monkeypatch.setattr(os, "link", elsewhere)
    monkeypatch.setattr("cogkit.weights.store._cloned", lambda source, target: False)
    with pytest.raises(CogkitError, match="different file systems") as caught:
        store.link(sha(b"abc"), 3, tmp_path / "linked")
    assert "COG_CACHE_DIR" in str(caught.value.hint)
    assert not (tmp_path / "linked").exists()


# ---- what nobody uses


def test_only_what_no_project_uses_is_collected(scene: Scene) -> None:
    folder = scene.add("base", {"a": b"a", "b": b"bb"})
    scene.import_all()
    (folder / "b").write_bytes(b"changed")
    scene.import_all()
    store = scene.store
    assert store.has(sha(b"bb"), 2)
    planned = store.collect(lambda project: digests_of(project, print), dry_run=True)
    assert (planned.files, planned.size, planned.projects) == (1, 2, 1)
    assert store.has(sha(b"bb"), 2)
    store.collect(lambda project: digests_of(project, print))
    assert not store.has(sha(b"bb"), 2)
    assert store.has(sha(b"changed"), 7) and store.has(sha(b"a"), 1)
    (scene.project / "weights.lock").unlink()
    assert store.collect(lambda project: digests_of(project, print)).files == 2


def test_a_lock_that_cannot_be_read_lets_nothing_be_removed(scene: Scene) -> None:
    scene.add("base", {"a": b"a"})
    scene.import_all()
    (scene.project / "weights.lock").write_text('{"version": 99}')
    said: list[str] = []
    with pytest.raises(CogkitError, match="nothing was removed"):
        scene.store.collect(lambda project: digests_of(project, said.append))
    assert "unsupported weights.lock version 99" in said[0]
    assert scene.store.has(sha(b"a"), 1)


def test_nothing_is_collected_while_something_comes_in(store: WeightStore, tmp_path: Path) -> None:
    with store.in_use(tmp_path), pytest.raises(StoreBusyError, match="in use by an import or a pull"):
        store.collect(lambda project: set())
    store.collect(lambda project: set())


def test_parts_that_nobody_went_on_with_are_collected(store: WeightStore, tmp_path: Path) -> None:
    for name in ("old", "new"):
        with store.partial(name) as fd:
            assert fd is not None
            store.append_partial(fd, b"x" * 10_000, name)
    old = store.root / "partial" / "old"
    os.utime(old, (old.stat().st_mtime - PARTIAL_LIFE - 10,) * 2)
    with store.in_use(tmp_path):
        pass
    store.collect(lambda project: set())
    assert [path.name for path in (store.root / "partial").iterdir()] == ["new"]


def test_without_a_store_there_is_nothing_to_collect(store: WeightStore) -> None:
    assert store.collect(lambda project: set()).files == 0
    assert not store.root.exists()


def test_notes_that_make_no_sense_are_passed_over(store: WeightStore, tmp_path: Path) -> None:
    store.remember_packed("key", sha(b"x"), 1)
    assert store.packed("key") == (sha(b"x"), 1)
    for content in (b"{", b"[]", b'{"digest": "x", "size": 1}', b""):
        (store.root / "layers" / "key").write_bytes(content)
        assert store.packed("key") is None
    store.remember_upload("k", "http://x/")
    assert store.upload("k") == "http://x/"
    store.forget_upload("k")
    assert store.upload("k") is None
