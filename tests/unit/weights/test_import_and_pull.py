"""Importing and pulling against a registry in memory: what is sent, what is not sent again, what is refused."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cogkit.errors import CogkitError, ConfigError
from cogkit.project.config import WeightSource
from cogkit.registry.client import RegistryError
from cogkit.weights import pulling
from cogkit.weights.store import WeightStore
from tests.unit.weights.conftest import Scene

Stored = Callable[[WeightStore], dict[str, bytes]]

SMALL = {"config.json": b"{}" * 100, "sub/tokenizer.json": b"[1]" * 500, "sub/deep/ü.txt": b"x"}


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file that is large here: it has a layer of its own, and what arrives of it is kept."""
    monkeypatch.setattr("cogkit.weights.packing.BUNDLE_FILE_MAX", 1 << 20)
    monkeypatch.setattr(pulling, "PARTIAL_MIN", 1 << 16)
    return random.Random(7).randbytes(3 << 20)


def test_what_was_imported_can_be_pulled(scene: Scene, stored: Stored, large: bytes) -> None:
    files = {**SMALL, "model.safetensors": large}
    scene.add("base", files)
    (done,) = scene.import_all()
    assert [layer.media_type.rpartition(".")[2] for layer in done.entry.layers].count("tar") == 1
    other = scene.other_store()
    (pulled,) = scene.pull_all(other)
    assert (pulled.files, pulled.layers) == (4, 2)
    assert stored(other) == files
    assert stored(scene.store) == files
    assert scene.pull_all(other)[0].was_cached


def test_an_import_of_the_same_sends_nothing_and_changes_nothing(scene: Scene, large: bytes) -> None:
    scene.add("base", {**SMALL, "model.bin": large})
    scene.import_all()
    before, received = (scene.project / "weights.lock").read_bytes(), scene.registry.received
    scene.import_all()
    assert (scene.project / "weights.lock").read_bytes() == before
    assert scene.registry.received == received


def test_an_edit_of_a_small_file_does_not_send_the_large_one(scene: Scene, large: bytes) -> None:
    folder = scene.add("base", {**SMALL, "model.bin": large})
    scene.import_all()
    received = scene.registry.received
    (folder / "config.json").write_bytes(b"other")
    scene.import_all()
    assert 0 < scene.registry.received - received < 100_000


def test_the_layers_of_another_packer_are_kept_while_the_files_are_the_same(scene: Scene) -> None:
    scene.add("base", SMALL)
    scene.import_all()
    lock = scene.lock
    # As if other software had compressed it: another digest, and the registry has it.
    (layer,) = lock.weights[0].layers
    other = scene.registry.put_blob("test/model", b"packed otherwise")
    entry = replace(
        lock.weights[0],
        layers=(replace(layer, digest=other, size=16),),
        files=tuple(replace(file, layer=other) for file in lock.weights[0].files),
    )
    foreign = replace(lock, envelope="sha256:" + "0" * 64, weights=(entry,))
    (scene.project / "weights.lock").write_bytes(foreign.serialize())
    scene.import_all()
    assert scene.lock.weights[0].layers == entry.layers
    assert scene.lock.envelope == foreign.envelope


def test_what_only_the_lock_has_is_taken_out(scene: Scene) -> None:
    scene.add("base", SMALL)
    scene.add("more", SMALL)
    scene.import_all()
    scene.weights = scene.weights[:1]
    scene.import_all()
    assert [weight.name for weight in scene.lock.weights] == ["base"]


def test_a_layer_that_another_repository_has_is_mounted(scene: Scene, large: bytes) -> None:
    scene.add("base", {"model.bin": large})
    scene.import_all("team/first")
    received = scene.registry.received
    (scene.project / "weights.lock").unlink()
    scene.import_all("team/second")
    assert scene.registry.received - received < 10_000


def test_later_sources_win_and_patterns_choose(scene: Scene, stored: Stored) -> None:
    for name, files in {"a": {"x.txt": b"a", "y.txt": b"a"}, "b": {"x.txt": b"b", "z.md": b"b"}}.items():
        (scene.project / name).mkdir()
        for path, content in files.items():
            (scene.project / name / path).write_bytes(content)
    scene.declare("base", WeightSource("./a"), WeightSource("./b", include=("*.txt",)))
    scene.import_all()
    assert stored(scene.store) == {"x.txt": b"b", "y.txt": b"a"}
    assert not any(file.path == "z.md" for file in scene.lock.weights[0].files)


def test_patterns_that_match_nothing_are_an_error(scene: Scene) -> None:
    scene.add("base", SMALL, include=("*.nothing",))
    with pytest.raises(ConfigError, match="matched zero files out of 3"):
        scene.import_all()


def test_a_file_in_one_source_cannot_be_a_folder_in_another(scene: Scene) -> None:
    (scene.project / "a").mkdir()
    (scene.project / "a" / "x").write_bytes(b"file")
    (scene.project / "b" / "x").mkdir(parents=True)
    (scene.project / "b" / "x" / "y").write_bytes(b"below")
    scene.declare("base", WeightSource("./a"), WeightSource("./b"))
    with pytest.raises(ConfigError, match="x is a file in one source and a folder in another"):
        scene.import_all()


# ---- faults


@pytest.mark.parametrize("seed", range(4))
def test_an_import_whose_connections_break_sends_only_what_is_missing(
    scene: Scene, stored: Stored, large: bytes, seed: int
) -> None:
    scene.add("base", {**SMALL, "model.safetensors": large})
    dice = random.Random(seed)
    scene.registry.faults.cut_uploads = [dice.randrange(1, len(large) // 2) for _ in range(5)]
    (done,) = scene.import_all()
    config = len(scene.registry.blobs) and scene.registry.received - done.entry.size_compressed
    assert 0 < config < 10_000, "more than the layers and the config was sent"
    scene.pull_all(scene.other_store())


@pytest.mark.parametrize("seed", range(4))
def test_a_pull_whose_connections_break_reads_only_what_is_missing(
    scene: Scene, stored: Stored, large: bytes, seed: int
) -> None:
    scene.add("base", {**SMALL, "model.safetensors": large})
    (done,) = scene.import_all()
    dice = random.Random(seed)
    scene.registry.faults.cut_downloads = [dice.randrange(len(large) // 2) for _ in range(5)]
    other = scene.other_store()
    scene.pull_all(other)
    assert stored(other) == {**SMALL, "model.safetensors": large}
    assert scene.registry.served == done.entry.size_compressed


@pytest.mark.parametrize("kind", ["model.safetensors", "model.txt"])
@pytest.mark.parametrize("seed", range(3))
def test_a_pull_that_was_given_up_costs_a_later_one_only_what_is_missing(
    scene: Scene, stored: Stored, large: bytes, seed: int, kind: str
) -> None:
    content = large if kind.endswith("safetensors") else large.hex().encode()
    scene.add("base", {kind: content, "z.bin": large[::-1]})
    (done,) = scene.import_all()
    dice = random.Random(seed)
    other = scene.other_store()
    # More cuts than a pull is patient for: it ends in the middle.
    scene.registry.faults.cut_downloads = [dice.randrange(1000, len(large) // 2), *([0] * 10_000)]
    with pytest.raises(RegistryError):
        scene.pull_all(other)
    assert not stored(other).keys() & {kind} or stored(other)[kind] == content
    scene.registry.faults.cut_downloads = []
    scene.pull_all(other)
    assert stored(other) == {kind: content, "z.bin": large[::-1]}
    # Both layers are read at once, so what the other one had read of a small piece may come twice.
    assert scene.registry.served <= done.entry.size_compressed + (1 << 18)
    assert not list((other.root / "partial").iterdir())
    assert not list((other.root / "resume").glob("*"))


def test_429_is_waited_for(scene: Scene, stored: Stored) -> None:
    scene.add("base", SMALL)
    scene.registry.faults.refusals = [(429, {"Retry-After": "0"}), (503, {}), (429, {})]
    scene.import_all()
    scene.registry.faults.refusals = [(429, {}), (500, {})]
    other = scene.other_store()
    scene.pull_all(other)
    assert stored(other) == SMALL


def test_a_failed_import_leaves_the_lock_as_it_was(scene: Scene) -> None:
    folder = scene.add("base", SMALL)
    scene.import_all()
    before = (scene.project / "weights.lock").read_bytes()
    (folder / "config.json").write_bytes(b"other")
    scene.registry.authorize = lambda path, shown: "Basic" if path.endswith("/uploads/") else None
    with pytest.raises(RegistryError, match="answers 401"):
        scene.import_all()
    assert (scene.project / "weights.lock").read_bytes() == before


@pytest.mark.parametrize("what", ["file", "layer"])
def test_what_does_not_have_its_digest_is_not_stored(scene: Scene, stored: Stored, large: bytes, what: str) -> None:
    scene.add("base", {"model.safetensors": large} if what == "file" else SMALL)
    (done,) = scene.import_all()
    digest = done.entry.layers[0].digest
    content = bytearray(scene.registry.blobs["test/model", digest])
    content[-1500 if what == "file" else len(content) // 2] ^= 1
    scene.registry.blobs["test/model", digest] = bytes(content)
    other = scene.other_store()
    for _ in range(2):  # and what was kept of it does not spoil the next pull
        with pytest.raises(CogkitError, match=r"digest mismatch|not what gzip writes|damaged|makes no sense"):
            scene.pull_all(other)
    assert "model.safetensors" not in stored(other)
    scene.import_all()


def test_a_manifest_that_is_gone_says_what_to_do(scene: Scene) -> None:
    scene.add("base", SMALL)
    scene.import_all()
    scene.registry.manifests.clear()
    with pytest.raises(CogkitError, match="not found in registry") as caught:
        scene.pull_all(scene.other_store())
    assert "cogkit weights import" in str(caught.value.hint)


def test_a_lock_edited_by_hand_is_found_out(scene: Scene) -> None:
    scene.add("base", SMALL)
    scene.import_all()
    path = scene.project / "weights.lock"
    lock = json.loads(path.read_bytes())
    lock["weights"][0]["files"][0]["digest"] = "sha256:" + "0" * 64
    path.write_text(json.dumps(lock))
    with pytest.raises(CogkitError, match="digest mismatch"):
        scene.pull_all(scene.other_store())


def test_two_imports_at_once_do_not_disturb_each_other(scene: Scene, stored: Stored) -> None:
    import threading

    scene.add("base", {f"{index}.bin": os.urandom(1000) for index in range(50)})
    scene.import_all()
    other = scene.other_store()
    failures: list[BaseException] = []

    def pull() -> None:
        try:
            scene.pull_all(other)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(stored(other)) == 50


def test_a_crash_that_left_a_short_file_is_repaired(scene: Scene, stored: Stored, tmp_path: Path) -> None:
    scene.add("base", SMALL)
    scene.import_all()
    file = scene.lock.weights[0].files[0]
    short = scene.store.path(file.digest)
    short.chmod(0o644)
    short.write_bytes(b"")
    scene.pull_all(scene.store)
    assert stored(scene.store) == SMALL
