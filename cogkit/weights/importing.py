"""``cogkit weights import``: from what ``cog.yaml`` declares to artifacts in the registry and a ``weights.lock``.

For each weight: list its sources, put the files into the store, plan layers, push what the registry does not have, then
the manifest, and only then write its entry into the lock.  So a lock never names what is not there, and an import that
was cut off costs what had not arrived.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cogkit.atomic_file import replace_whole
from cogkit.errors import ConfigError, Interrupted
from cogkit.fast_dataclass import dataclass
from cogkit.oci.media_types import OCI_LAYER_GZIP, OCI_LAYER_TAR
from cogkit.output_file import output_error
from cogkit.project.config_model import Config, Weight
from cogkit.project.weights.lockfile import (
    LOCK_FILENAME,
    LockedFile,
    LockedLayer,
    LockedSource,
    LockedWeight,
    WeightsLock,
    read_lock,
)
from cogkit.project.weights.managed import declared_sources, weight_changes
from cogkit.weights import artifact, packing
from cogkit.weights.inventory import FileFilter, Inventory, InventoryFile, by_path, set_digest
from cogkit.weights.packing import LayerPlan
from cogkit.weights.registry import WeightRepository
from cogkit.weights.sources import Intake, Source, open_source
from cogkit.weights.store import WeightStore
from cogkit.weights.transfer import Progress, Silent, in_parallel


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What an import of one weight would do.

    Attributes:
        weight: As declared.
        sources: As they will stand in the lock.
        files: What will be in the weight, sorted by path.
        owners: The source of each file, by its path.
        excluded: Files of the sources that are left out.
        status: ``new``, ``unchanged``, ``config-changed`` or ``upstream-changed``.
        changes: What is otherwise than at the last import.
    """

    weight: Weight
    sources: tuple[LockedSource, ...]
    files: tuple[InventoryFile, ...]
    owners: dict[str, Source]
    excluded: tuple[InventoryFile, ...]
    status: str
    changes: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Imported:
    """A weight that was imported.

    Attributes:
        entry: Its entry in the lock.
        reference: The name of its manifest.
        sent: Bytes of layers that were uploaded.
    """

    entry: LockedWeight
    reference: str
    sent: int


def chosen_weights(config: Config, names: Sequence[str]) -> tuple[Weight, ...]:
    """The weights of a configuration, all if ``names`` is empty.

    Raises:
        ConfigError: there are none, or not those.
    """
    if not config.weights:
        raise ConfigError(f"no weights defined in {config.filename}", hint="add a weights: section")
    unknown = [name for name in dict.fromkeys(names) if name not in {weight.name for weight in config.weights}]
    if unknown:
        quoted = ", ".join(f'"{name}"' for name in unknown)
        raise ConfigError(
            f"weight {quoted} not found in {config.filename}",
            hint=f"it has {', '.join(weight.name for weight in config.weights)}",
        )
    return tuple(weight for weight in config.weights if not names or weight.name in names)


def plan_import(weight: Weight, config: Config, lock: WeightsLock, intake: Intake) -> ImportPlan:
    """List the sources of a weight and compare them with the last import.

    Args:
        weight: Which.
        config: Where it is declared.
        lock: The last import.
        intake: Its store gets the files that are read anyway, if there is one.

    Raises:
        CogkitError: a source cannot be read, or has what may not be imported.
    """
    existing = lock.find(weight.name)
    known = {(file.path, file.size): file.digest for file in existing.files} if existing else {}
    merged: dict[str, InventoryFile] = {}
    owners: dict[str, Source] = {}
    excluded: dict[str, InventoryFile] = {}
    sources: list[LockedSource] = []
    for declared in declared_sources(weight):
        source = open_source(declared.uri, config.project_dir)
        wanted = FileFilter(declared.include, declared.exclude)
        inventory = source.inventory(replace(intake, wanted=wanted, known=known))
        taken = wanted.require([file.path for file in inventory.files])
        for file in inventory.files:
            if file.path in taken:
                if file.path in merged:
                    intake.progress.say(f'weight "{weight.name}": {declared.uri} overrides {file.path}')
                merged[file.path], owners[file.path] = file, source
            else:
                excluded[file.path] = file
        sources.append(replace(declared, fingerprint=inventory.fingerprint))
    files = by_path(merged.values())
    _refuse_twisted(files, weight)
    status, changes = _status(weight, tuple(sources), existing)
    left_out = by_path(file for path, file in excluded.items() if path not in merged)
    return ImportPlan(weight, tuple(sources), files, owners, left_out, status, changes)


def _refuse_twisted(files: Sequence[InventoryFile], weight: Weight) -> None:
    """Refuse a file that is a folder of another one, which only sources together can bring about."""
    paths = {file.path for file in files}
    for path in paths:
        parts = path.split("/")
        for count in range(1, len(parts)):
            if (above := "/".join(parts[:count])) in paths:
                raise ConfigError(
                    f'weight "{weight.name}": {above} is a file in one source and a folder in another',
                    hint="exclude one of them",
                )


def _status(
    weight: Weight, sources: tuple[LockedSource, ...], existing: LockedWeight | None
) -> tuple[str, tuple[str, ...]]:
    if existing is None:
        return "new", ()
    if changes := weight_changes(weight, existing):
        return "config-changed", tuple(changes)
    upstream = tuple(
        f"{f'source[{index}] ' if len(sources) > 1 else ''}fingerprint: {old.fingerprint} → {new.fingerprint}"
        for index, (old, new) in enumerate(zip(existing.sources, sources, strict=True))
        if old.fingerprint != new.fingerprint
    )
    return ("upstream-changed", upstream) if upstream else ("unchanged", ())


class Importer:
    """Imports weights of one project into one repository.

    Args:
        config: Of the project; its lock of ``.cog/`` is held by the caller.
        repository: Where they go.
        store: Keeps their files.
        progress: Hears what moves.
        stop: Ends everything.
        workers: How many transfers at once.
    """

    def __init__(
        self,
        config: Config,
        repository: WeightRepository,
        store: WeightStore,
        *,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
        workers: int = 4,
    ):
        self._config = config
        self._repository = repository
        self._store = store
        self._progress = progress or Silent()
        self._stop = stop or threading.Event()
        self._workers = workers
        self._lock_path = config.project_dir / LOCK_FILENAME

    def intake(self, *, store: bool = True) -> Intake:
        """What sources are asked for."""
        return Intake(
            store=self._store if store else None, progress=self._progress, stop=self._stop, workers=self._workers
        )

    def fetch(self, plan: ImportPlan) -> None:
        """Put all files of a plan into the store."""
        missing = {file.digest: file for file in plan.files if not self._store.has(file.digest, file.size)}
        total = sum(file.size for file in missing.values())
        if total:
            self._progress.start(f"{plan.weight.name}: Downloading", total)
        for source in set(plan.owners.values()):
            files = [file for file in missing.values() if plan.owners[file.path] is source]
            if files:
                source.fetch(files, self.intake())
        self._progress.finish()
        self._progress.say(f"{plan.weight.name}: Download complete")

    def run(self, plan: ImportPlan) -> Imported:
        """Pack and push a weight whose files are in the store, and write its entry into the lock.

        Raises:
            CogkitError: the registry does not take it, the disk is full, …; the lock is as before.
        """
        existing = (read_lock(self._lock_path) or WeightsLock()).find(plan.weight.name)
        open_file = packing.opener(lambda file: self._store.path(file.digest))
        layers = self._pushed_as_before(plan, existing, open_file) if existing else None
        if layers is None:
            layers = self._push_layers(packing.plan_layers(plan.files, open_file), open_file)
        entry = self._entry(plan, layers)
        if entry.same_content(existing) and existing is not None:
            entry = existing
        reference = self._repository.push_manifest(entry)
        self._write(entry)
        return Imported(entry, reference, sum(layer.sent for layer in layers))

    # ---------------------------------------------------------------- layers

    def _pushed_as_before(
        self, plan: ImportPlan, existing: LockedWeight, open_file: packing.Open
    ) -> list[_PushedLayer] | None:
        """The layers of the last import, whoever packed them, if the same files can be had in them."""
        if set_digest(plan.files) != existing.set_digest:
            return None
        in_layer: dict[str, list[InventoryFile]] = {}
        for file in existing.files:
            in_layer.setdefault(file.layer, []).append(InventoryFile(file.path, file.size, file.digest))
        plans = [
            (layer, LayerPlan(by_path(in_layer.get(layer.digest, ())), layer.media_type)) for layer in existing.layers
        ]
        covered = by_path(file for _, one in plans for file in one.files)
        known = {OCI_LAYER_TAR, OCI_LAYER_GZIP}
        if covered != plan.files or not all(one.files and layer.media_type in known for layer, one in plans):
            return None
        there = in_parallel(lambda one: self._repository.has_layer(one[0].digest), plans, self._stop, self._workers)
        for (layer, one), found in zip(plans, there, strict=True):
            if not found and one.is_compressed and self._store.packed(one.key) != (layer.digest, layer.size):
                return None  # Cog's compression is not ours
        found_layers = [
            _PushedLayer(one, layer.digest, layer.size, 0)
            for (layer, one), found in zip(plans, there, strict=True)
            if found
        ]
        missing = [one for (_, one), found in zip(plans, there, strict=True) if not found]
        pushed = self._push_layers(missing, open_file)
        recorded = {layer.digest for layer in existing.layers}
        if any(layer.digest not in recorded for layer in pushed):
            return None
        return [*found_layers, *pushed]

    def _push_layers(self, plans: Sequence[LayerPlan], open_file: packing.Open) -> list[_PushedLayer]:
        if not plans:
            return []
        self._progress.start("Pushing", sum(plan.size_uncompressed for plan in plans))
        pushed = in_parallel(lambda plan: self._push_layer(plan, open_file), plans, self._stop, self._workers)
        self._progress.finish()
        return pushed

    def _push_layer(self, plan: LayerPlan, open_file: packing.Open) -> _PushedLayer:
        total = plan.size_uncompressed
        told = 0

        def tell(done: float) -> None:
            # In bytes of the files, so that one progress fits layers that are compressed and those that are not.
            nonlocal told
            now = int(min(max(done, 0.0), 1.0) * total)
            self._progress.moved(now - told)
            told = now

        key = plan.key
        known = self._store.packed(key)
        if known is not None and self._repository.has_layer(known[0]):
            tell(1)
            self._store.remember_place(known[0], str(self._repository))
            return _PushedLayer(plan, *known, 0)
        with contextlib.ExitStack() as stack:
            source = self._layer_source(plan, open_file, stack)
            self._store.remember_packed(key, source.digest, source.size)
            sent = 0

            def moved(count: int) -> None:
                nonlocal sent
                sent += count
                tell(sent / source.size)

            how = self._repository.push_layer(source, self._store.places(source.digest), moved)
            tell(1)
        self._store.remember_place(source.digest, str(self._repository))
        return _PushedLayer(plan, source.digest, source.size, source.size if how == "uploaded" else 0)

    def _layer_source(self, plan: LayerPlan, open_file: packing.Open, stack: contextlib.ExitStack) -> Any:
        """The bytes of a layer, to be read as often as is wanted."""
        if not plan.is_compressed:
            hashed = hashlib.sha256()
            for data in self._stoppable(packing.tar_stream(plan, open_file)):
                hashed.update(data)
            return _TarSource(plan, open_file, f"sha256:{hashed.hexdigest()}", packing.tar_size(plan))
        # Compressed once, into a file without a name: it is read for each attempt to send it.
        folder = self._store.root / "partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            spool = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            stack.enter_context(spool)
            hashed = hashlib.sha256()
            size = 0
            for data in packing.compressed(self._stoppable(packing.tar_stream(plan, open_file))):
                hashed.update(data)
                size += len(data)
                view = memoryview(data)
                while view:
                    view = view[spool.write(view) or 0 :]
        except OSError as error:
            raise output_error(error, str(folder)) from error
        return _SpooledSource(spool.fileno(), f"sha256:{hashed.hexdigest()}", size)

    def _stoppable(self, stream: Iterator[bytes]) -> Iterator[bytes]:
        for data in stream:
            if self._stop.is_set():
                raise Interrupted("interrupted")
            yield data

    # ---------------------------------------------------------------- the lock

    def _entry(self, plan: ImportPlan, layers: Sequence[_PushedLayer]) -> LockedWeight:
        locked_layers = tuple(
            LockedLayer(layer.digest, layer.plan.media_type, layer.size, layer.plan.size_uncompressed)
            for layer in sorted(layers, key=lambda layer: layer.digest)
        )
        layer_of = {file.path: layer.digest for layer in layers for file in layer.plan.files}
        files = tuple(LockedFile(file.path, file.size, file.digest, layer_of[file.path]) for file in plan.files)
        entry = LockedWeight(
            name=plan.weight.name,
            target=plan.weight.target,
            set_digest=set_digest(plan.files),
            sources=plan.sources,
            imported_at=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            size=sum(layer.size_uncompressed for layer in locked_layers),
            size_compressed=sum(layer.size for layer in locked_layers),
            files=files,
            layers=locked_layers,
        )
        config = artifact.config_blob(entry)
        content = artifact.manifest(entry, f"sha256:{hashlib.sha256(config).hexdigest()}", len(config))
        return replace(entry, digest=f"sha256:{hashlib.sha256(content).hexdigest()}")

    def prune(self) -> None:
        """Take entries out of the lock that ``cog.yaml`` does not declare."""
        lock = read_lock(self._lock_path)
        declared = [weight.name for weight in self._config.weights]
        if lock is not None and (kept := lock.only(declared)) != lock:
            write_lock(self._lock_path, kept)

    def _write(self, entry: LockedWeight) -> None:
        before = read_lock(self._lock_path)
        lock = (before or WeightsLock()).with_weight(entry)
        declared = [weight.name for weight in self._config.weights]
        order = {name: index for index, name in enumerate(declared)}
        last = len(order)
        lock = replace(lock, weights=tuple(sorted(lock.weights, key=lambda one: order.get(one.name, last))))
        if before is not None and lock == before:
            return
        # Who packed the layers matters only for who would pack them again.
        envelope = before.envelope if before is not None and not _repacked(before, lock) else packing.envelope()
        write_lock(self._lock_path, replace(lock, envelope=envelope))


def _repacked(before: WeightsLock, after: WeightsLock) -> bool:
    return any((old := before.find(weight.name)) is None or old.layers != weight.layers for weight in after.weights)


def write_lock(path: Path, lock: WeightsLock) -> None:
    """Write a lock; the file appears whole or stays as it was.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        replace_whole(path, lock.serialize(), 0o644)
    except OSError as error:
        raise output_error(error, str(path)) from error


@dataclass(frozen=True, slots=True)
class _PushedLayer:
    plan: LayerPlan
    digest: str
    size: int
    sent: int


@dataclass(frozen=True, slots=True)
class _TarSource:
    """A layer that is not compressed: its bytes are made from the files each time."""

    plan: LayerPlan
    open_file: Callable[[InventoryFile], Any]
    digest: str
    size: int

    def read_from(self, offset: int) -> Iterator[bytes]:
        return packing.tar_stream(self.plan, self.open_file, offset)


@dataclass(frozen=True, slots=True)
class _SpooledSource:
    """A layer in an open file."""

    fd: int
    digest: str
    size: int

    def read_from(self, offset: int) -> Iterator[bytes]:
        while data := os.pread(self.fd, 1 << 20, offset):
            offset += len(data)
            yield data


__all__ = ["ImportPlan", "Imported", "Importer", "Inventory", "chosen_weights", "plan_import", "write_lock"]
