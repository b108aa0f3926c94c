"""Which layers an image has, and what of a builder's export can be loaded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cogkit.building.image_loading import LoadError, chain_ids, choose_engine, is_own_engine, read_image
from cogkit.buildkit.connect.address import Address
from cogkit.errors import UsageError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Layout:
    """An OCI layout without layers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs" / "sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, document: Any, media_type: str = MANIFEST, **more: Any) -> dict[str, Any]:
        content = json.dumps(document).encode()
        (self.root / "blobs" / "sha256" / _digest(content)[7:]).write_bytes(content)
        return {"mediaType": media_type, "digest": _digest(content), "size": len(content), **more}

    def image(self, name: str, *, layers: int = 2) -> dict[str, Any]:
        diff_ids = [_digest(f"{name}{number}".encode()) for number in range(layers)]
        config = self.blob({"name": name, "rootfs": {"diff_ids": diff_ids}})
        blobs = [{"digest": _digest(diff_id.encode()), "size": 10 + at} for at, diff_id in enumerate(diff_ids)]
        return self.blob({"config": config, "layers": blobs})

    def publish(self, entry: dict[str, Any]) -> None:
        (self.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def test_chains_are_named_as_the_specification_says() -> None:
    first, second = _digest(b"1"), _digest(b"2")
    assert chain_ids([]) == []
    assert chain_ids([first]) == [first]
    assert chain_ids([first, second]) == [first, _digest(f"{first} {second}".encode())]


def test_an_image_is_read_with_the_chains_of_its_layers(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    entry = layout.image("one", layers=3)
    layout.publish(entry)
    image = read_image(layout.root, ["docker.io/library/one:latest"])
    assert image.digest == entry["digest"]
    assert [layer.size for layer in image.layers] == [10, 11, 12]
    assert [layer.chain_id for layer in image.layers] == chain_ids(_digest(f"one{at}".encode()) for at in range(3))


def test_of_an_image_with_attestations_the_image_is_taken(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    image = layout.image("one")
    attestation = layout.blob({"layers": []}, annotations={"vnd.docker.reference.type": "attestation-manifest"})
    layout.publish(layout.blob({"manifests": [attestation, image]}, INDEX))
    assert read_image(layout.root, []).digest == image["digest"]


@pytest.mark.parametrize("kind", ["two", "none", "more layers", "no config", "nothing", "no JSON", "a list"])
def test_what_cannot_be_loaded_is_an_error(tmp_path: Path, kind: str) -> None:
    layout = Layout(tmp_path / "layout")
    match kind:
        case "two":
            layout.publish(layout.blob({"manifests": [layout.image("one"), layout.image("two")]}, INDEX))
        case "none":
            layout.publish(layout.blob({"manifests": []}, INDEX))
        case "more layers":
            config = layout.blob({"rootfs": {"diff_ids": []}})
            layout.publish(layout.blob({"config": config, "layers": [{"digest": _digest(b""), "size": 1}]}))
        case "no config":
            layout.publish(layout.blob({"config": {"digest": _digest(b"not there")}, "layers": []}))
        case "nothing":
            pass
        case "no JSON":
            content = b"\xff{"
            (layout.root / "blobs" / "sha256" / _digest(content)[7:]).write_bytes(content)
            layout.publish({"mediaType": MANIFEST, "digest": _digest(content), "size": len(content)})
        case "a list":
            layout.publish(layout.blob([1]))
    with pytest.raises(LoadError, match="could be loaded"):
        read_image(layout.root, [])


def test_the_engine_that_is_there_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket, programs = tmp_path / "docker.sock", tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    monkeypatch.setenv("PATH", str(programs))
    for wish in ("auto", "docker", "podman"):
        with pytest.raises(UsageError, match="no container engine to load"):
            choose_engine(wish)
    podman = programs / "podman"
    podman.write_text("#!/bin/sh\n")
    podman.chmod(0o755)
    assert choose_engine("auto") == choose_engine("podman") == "podman"
    socket.touch()
    assert choose_engine("auto") == choose_engine("docker") == "docker"


def test_the_builder_of_the_engine_itself_needs_no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/docker.sock")
    assert is_own_engine(Address("docker"), "docker")
    assert is_own_engine(Address("docker", path="/run/docker.sock"), "docker")
    assert not is_own_engine(Address("docker", path="/other.sock"), "docker")
    assert not is_own_engine(Address("docker"), "podman")
    assert not is_own_engine(Address("unix", path="/run/docker.sock"), "docker")
