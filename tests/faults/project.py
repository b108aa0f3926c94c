"""Small projects to build, and whether what came out of a build is whole.

A project's content is its own: no build of it can be answered from what another one left in the daemon's cache.  This
file knows nothing of faults.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

Shape = Literal["files", "step", "cog"]
"""A Dockerfile that copies; one that also runs a step in a container; a Cog project, with its lock and its gateway."""

BASE = "busybox"

OLD = b"of an earlier build\n"

Content = dict[str, bytes]


@dataclass
class Output:
    """Where one result of a build goes; something of an earlier build is there already."""

    type: Literal["tar", "oci", "docker", "local"]
    path: Path

    def __post_init__(self) -> None:
        if self.type == "local":
            self.path.mkdir(parents=True)
            (self.path / "old").write_bytes(OLD)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(OLD)

    @property
    def flag(self) -> str:
        return f"type={self.type},dest={self.path}"

    def require_whole(self, content: Content) -> None:
        """Fail unless it is the result of a build of ``content``."""
        found = self.files()
        missing = [name for name in content if found.get(name) != content[name]]
        assert not missing, f"{self.path.name} ({self.type}) lacks or differs in {missing[:5]}"

    def require_nothing_torn(self, content: Content) -> None:
        """Fail if it is neither what it was nor the whole result.  A folder may have some files, each of them whole."""
        if self.type != "local":
            if self.path.read_bytes() != OLD:
                self.require_whole(content)
            return
        for name, data in self.files().items():
            wanted = OLD if name == "old" else content.get(name)
            assert data == wanted, f"{self.path.name}/{name} is torn: {len(data)} bytes"

    def files(self) -> Content:
        """All regular files in it; fails if it is torn."""
        match self.type:
            case "local":
                return dict(_files_below(self.path))
            case "tar":
                with tarfile.open(self.path) as tar:
                    return dict(_files_in(tar))
        return dict(_files_of_image(self.path))


@dataclass
class Project:
    """A folder to build.

    Attributes:
        nonce: Text that is in no other project.
        content: Its files, a cog.yaml aside.
        base: The files of `BASE`, which a step runs in.
    """

    path: Path
    shape: Shape
    nonce: str
    content: Content = field(default_factory=dict)
    base: Content = field(default_factory=dict)

    @classmethod
    def make(
        cls, path: Path, shape: Shape, rng: Random, *, size: int, seconds: float = 0.0, base: Content | None = None
    ) -> Project:
        """Write one with about ``size`` bytes of content; a step of it takes ``seconds``, on ``base``."""
        project = cls(path, shape, f"{rng.getrandbits(64):016x}", base=base or {})
        path.mkdir(parents=True)
        for number in range(20):
            folder = rng.choice(["", "a/", "a/b/", "c/"])
            project.write(f"{folder}file{number}", rng.randbytes(rng.randrange(size // 30 + 1)))
        project.write("big", rng.randbytes(2 * size // 3))
        project.write("nonce", project.nonce.encode())
        if shape == "cog":
            (path / "cog.yaml").write_text('run: run.py:run\nbuild:\n  python_version: "3.11"\n')
            project.write("run.py", b"def run() -> str:\n    return ''\n")
        else:
            project.set_seconds(seconds)
        return project

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)
        self.content[name] = data

    def set_seconds(self, seconds: float) -> None:
        """How long its step takes from now on."""
        if self.shape == "step":
            step = f"RUN echo begun {self.nonce} && sleep {seconds:.6f} && echo > /ended\n"
            self.write("Dockerfile", f"FROM {BASE}\nCOPY . /context\n{step}".encode())
        elif self.shape == "files":
            self.write("Dockerfile", b"FROM scratch\nCOPY . /\n")

    @property
    def result(self) -> Content:
        """What a whole result has in it, at least."""
        match self.shape:
            case "files":
                return self.content
            case "step":
                context = {f"context/{name}": data for name, data in self.content.items()}
                return {**self.base, **context, "ended": b"\n"}
        return {f"src/{name}": data for name, data in self.content.items()}

    def reread(self) -> None:
        """Take the regular files that are there now for its content."""
        self.content = {name: data for name, data in _files_below(self.path) if name != "cog.yaml"}

    def require_clean(self, *, killed: bool = False) -> None:
        """Fail if a build left something in ``.cog/``; one that was killed may have, until the next begins."""
        folder = self.path / ".cog"
        if self.shape != "cog" or killed or not folder.exists():
            return
        left = {path.name for path in folder.iterdir()} - {".gitignore", "cog.lock", "openapi_schema.json"}
        assert not left, f"left in .cog: {sorted(left)}"


def _files_below(root: Path) -> Iterator[tuple[str, bytes]]:
    for folder, folders, names in os.walk(root):
        if ".cog" in folders:
            folders.remove(".cog")
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(root)), path.read_bytes()


def _files_in(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for member in tar:
        if member.isreg():
            file = tar.extractfile(member)
            assert file is not None
            yield member.name.removeprefix("./"), file.read()


def _files_of_image(path: Path) -> Iterator[tuple[str, bytes]]:
    """All files of an image's layers; every blob has to be what its name says."""
    with tarfile.open(path) as tar:
        blobs = dict(_files_in(tar))
    for name, data in blobs.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(data).hexdigest() == name.rpartition("/")[2], f"{name} of {path.name} is torn"
    index = json.loads(blobs["index.json"])
    manifest = json.loads(blobs[_blob(index["manifests"][0])])
    while "manifests" in manifest:
        manifest = json.loads(blobs[_blob(manifest["manifests"][0])])
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blobs[_blob(layer)])) as tar:
            yield from _files_in(tar)


def _blob(descriptor: dict[str, str]) -> str:
    return "blobs/" + descriptor["digest"].replace(":", "/")
