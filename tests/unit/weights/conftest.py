"""A registry in memory, a store, a project with weights, and the two programs on them without a command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cogkit.project.config import Config, Weight, WeightSource
from cogkit.project.weights.lockfile import WeightsLock, read_lock
from cogkit.registry.backoff import Backoff
from cogkit.weights.importing import Imported, Importer, plan_import
from cogkit.weights.pulling import Pulled, Puller
from cogkit.weights.registry import WeightRepository
from cogkit.weights.store import StoredUploads, WeightStore
from tests.fake_registry import FakeRegistry

HASTY = Backoff(first=0.001, ceiling=0.002, patience=0.5)
Files = Mapping[str, bytes]


class Scene:
    """A project ``project`` with weights, and what can be done with it."""

    def __init__(self, folder: Path, registry: FakeRegistry):
        self.folder = folder
        self.project = folder / "project"
        self.project.mkdir()
        self.registry = registry
        self.store = WeightStore(folder / "store")
        self.weights: tuple[Weight, ...] = ()

    def add(self, name: str, files: Files, **source: tuple[str, ...]) -> Path:
        """Declare a weight from a folder with these files."""
        folder = self.project / name
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        self.declare(name, WeightSource(f"./{name}", **source))
        return folder

    def declare(self, name: str, *sources: WeightSource) -> None:
        self.weights = (*self.weights, Weight(name, f"/src/{name}", sources))

    @property
    def config(self) -> Config:
        return Config(model="r/model", weights=self.weights, project_dir=self.project)

    @property
    def lock(self) -> WeightsLock:
        lock = read_lock(self.project / "weights.lock")
        assert lock is not None
        return lock

    def repository(self, name: str = "test/model") -> WeightRepository:
        sessions = StoredUploads(self.store)
        return WeightRepository(f"{self.registry.host}/{name}", sessions=sessions, backoff=HASTY)

    def import_all(self, repository: str = "test/model") -> list[Imported]:
        """``cogkit weights import``."""
        importer = Importer(self.config, self.repository(repository), self.store)
        lock = read_lock(self.project / "weights.lock") or WeightsLock()
        done = []
        with self.store.in_use(self.project):
            for weight in self.weights:
                plan = plan_import(weight, self.config, lock, importer.intake())
                importer.fetch(plan)
                done.append(importer.run(plan))
            importer.prune()
        return done

    def pull_all(self, store: WeightStore, repository: str = "test/model") -> list[Pulled]:
        """``cogkit weights pull`` into another store."""
        puller = Puller(self.repository(repository), store)
        with store.in_use(self.project):
            return [puller.pull(entry) for entry in self.lock.weights]

    def other_store(self, name: str = "other") -> WeightStore:
        return WeightStore(self.folder / name)


@pytest.fixture
def fake_registry() -> Iterator[FakeRegistry]:
    started = FakeRegistry()
    yield started
    started.stop()


@pytest.fixture
def scene(tmp_path: Path, fake_registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker-config"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return Scene(tmp_path, fake_registry)


@pytest.fixture
def stored(scene: Scene) -> Callable[[WeightStore], dict[str, bytes]]:
    """The files of the lock as a store has them, by path; those that are missing are not in it."""

    def read(store: WeightStore) -> dict[str, bytes]:
        files = [file for weight in scene.lock.weights for file in weight.files]
        return {file.path: store.path(file.digest).read_bytes() for file in files if store.has(file.digest, file.size)}

    return read
