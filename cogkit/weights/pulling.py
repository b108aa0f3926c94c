"""``cogkit weights pull``: the files of ``weights.lock`` from the registry into the store.

A layer is read once, from its start or from where a former pull broke, and its files are stored as they pass.  What
arrived of a large file, or of a compressed layer, is kept when the rest does not come.  Every file is compared with
the digest in the lock; nothing else that a layer holds is believed.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cogkit.errors import CogkitError, ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.media_types import OCI_LAYER_GZIP, OCI_LAYER_TAR, OCI_LAYER_ZSTD
from cogkit.project.weights.lockfile import LockedFile, LockedLayer, LockedWeight, WeightsLock
from cogkit.weights.registry import WeightRepository
from cogkit.weights.store import PARTIAL_MIN, WeightStore, WrongFileError
from cogkit.weights.tar_reader import TarEntry, TarError, TarReader
from cogkit.weights.transfer import Progress, Silent, ahead, in_parallel

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was pulled of one weight.

    Attributes:
        name: Of the weight.
        files: How many files were missing.
        size: Their bytes.
        layers: How many layers they were in.
    """

    name: str
    files: int = 0
    size: int = 0
    layers: int = 0

    @property
    def was_cached(self) -> bool:
        return not self.files


def chosen_entries(lock: WeightsLock, names: Sequence[str]) -> tuple[LockedWeight, ...]:
    """The entries of a lock, all if ``names`` is empty.

    Raises:
        ConfigError: there are no such weights; the message names them all.
    """
    unknown = [name for name in dict.fromkeys(names) if lock.find(name) is None]
    if unknown:
        raise ConfigError(f"unknown weight(s): {', '.join(unknown)}", hint="see 'cogkit weights status'")
    return tuple(weight for weight in lock.weights if not names or weight.name in names)


def missing_files(weight: LockedWeight, store: WeightStore) -> tuple[LockedFile, ...]:
    """The files of a weight that are not in the store."""
    return tuple(file for file in weight.files if not store.has(file.digest, file.size))


class Puller:
    """Pulls weights from one repository; arguments as of `cogkit.weights.importing.Importer`."""

    def __init__(
        self,
        repository: WeightRepository,
        store: WeightStore,
        *,
        progress: Progress | None = None,
        detail: Callable[[str], None] = lambda line: None,
        stop: threading.Event | None = None,
        workers: int = 4,
    ):
        self._repository = repository
        self._store = store
        self._progress = progress or Silent()
        self._detail = detail
        self._stop = stop or threading.Event()
        self._workers = workers

    def pull(self, weight: LockedWeight) -> Pulled:
        """Pull what is missing of a weight.

        Raises:
            CogkitError: the registry does not have it, what it has is not what the lock says, the disk is full, …
        """
        progress = self._progress
        missing = missing_files(weight, self._store)
        total = len(weight.files)
        if not missing:
            progress.say(f"Pulling {weight.name}... cached ({total}/{total} files)")
            return Pulled(weight.name)
        progress.say(f"Pulling {weight.name}... ({len(missing)} file(s))")
        self._detail(f"  manifest: {self._repository}@{weight.digest}")
        self._detail(f"  files:    {len(missing)} missing / {total} total")
        layers = self._repository.manifest_layers(weight)
        wanted = {file.layer for file in missing}
        for digest in wanted - layers.keys():
            raise CogkitError(
                f'weight "{weight.name}": its manifest has no layer {digest}',
                hint="weights.lock was changed by hand; run 'cogkit weights import'",
            )
        size = sum({file.digest: file.size for file in missing}.values())
        progress.start(f"{weight.name}: Downloading", size)
        in_parallel(
            lambda digest: _LayerPull(self, weight, layers[digest]).run(), sorted(wanted), self._stop, self._workers
        )
        progress.finish()
        progress.say(f"{weight.name}: Download complete")
        shown = f"{len(missing)} file(s), {len(wanted)} layer(s)"
        progress.say(f"Pulling {weight.name}... done ({format_size(size)}, {shown})")
        return Pulled(weight.name, len(missing), size, len(wanted))


class _LayerPull:
    """One layer on its way into the store."""

    def __init__(self, puller: Puller, weight: LockedWeight, layer: LockedLayer):
        self._puller = puller
        self._store = puller._store
        self._repository = puller._repository
        self._layer = layer
        self._files = {file.path: file for file in weight.files}
        self._needed = {file.path for file in missing_files(weight, self._store) if file.layer == layer.digest}
        self._name = layer.digest.partition(":")[2]

    def run(self) -> None:
        self._puller._detail(f"  layer {self._name[:12]} ({format_size(self._layer.size)})")
        kind = self._layer.media_type
        if kind == OCI_LAYER_TAR:
            self._pull_plain()
        elif kind in (OCI_LAYER_GZIP, OCI_LAYER_ZSTD):
            self._pull_compressed(_gunzip if kind == OCI_LAYER_GZIP else _unzstd)
        else:
            raise CogkitError(f"layer {self._layer.digest} is of a type that is not known here: {kind}")
        if self._needed:
            raise self._fault(f"missing expected file {sorted(self._needed)[0]!r}")
        self._store.remember_place(self._layer.digest, str(self._repository))

    # ---------------------------------------------------------------- a layer that is not compressed

    def _pull_plain(self) -> None:
        """From where a former pull broke in a large file, else from the start."""
        place = self._store.resume_point(self._name)
        if place is not None and (file := self._files.get(place.path)) and file.path in self._needed:
            with self._store.partial(self._part_of(file)) as fd:
                if fd is not None and (have := os.fstat(fd).st_size) <= file.size:
                    self._resume(file, fd, place.offset, have)
                    return
        self._read(0, TarReader())

    def _resume(self, file: LockedFile, fd: int, begin: int, have: int) -> None:
        hashed = hashlib.sha256()
        offset = 0
        while data := os.pread(fd, _CHUNK, offset):
            hashed.update(data)
            offset += len(data)
        os.lseek(fd, offset, os.SEEK_SET)
        self._puller._progress.moved(offset)
        stream = self._blob(begin + have)
        rest = self._finish_file(file, fd, hashed, have, stream)
        # Behind the file and its padding the next entry begins.
        after = begin + file.size
        self._read(after + -after % 512, TarReader(), stream, rest, skip=-after % 512)

    def _finish_file(self, file: LockedFile, fd: int, hashed: Any, have: int, stream: Iterator[bytes]) -> bytes:
        rest = b""
        while have < file.size:
            data = next(stream, b"")
            if not data:
                raise self._fault("it ended too early")
            data, rest = data[: file.size - have], data[file.size - have :]
            self._store.append_partial(fd, data, self._part_of(file))
            hashed.update(data)
            have += len(data)
            self._puller._progress.moved(len(data))
        self._keep(file, fd, hashed)
        return rest

    def _keep(self, file: LockedFile, fd: int, hashed: Any) -> None:
        try:
            self._store.keep_partial(self._part_of(file), fd, file.digest, file.size, hashed)
        finally:
            self._store.forget_resume_point(self._name)
        self._stored(file)

    def _stored(self, file: LockedFile) -> None:
        self._needed.discard(file.path)
        self._puller._detail(f"    {file.path} ({format_size(file.size)}) {file.digest.partition(':')[2][:12]}")

    def _part_of(self, file: LockedFile) -> str:
        return file.digest.partition(":")[2]

    def _blob(self, start: int) -> Iterator[bytes]:
        # The files are compared with their digests, so the blob need not be.
        stream = self._repository.client.read_blob(
            self._repository.path, self._layer.digest, self._layer.size, start=start, verify=False
        )
        return ahead(stream)

    def _read(
        self,
        offset: int,
        reader: TarReader,
        stream: Iterator[bytes] | None = None,
        first: bytes = b"",
        skip: int = 0,
    ) -> None:
        """Store the files of a tar stream that begins at ``offset`` of the layer."""
        stream = self._blob(offset) if stream is None else _from(first, stream, skip)
        self._unpack(stream, reader, offset, resumable=True)

    # ---------------------------------------------------------------- a compressed layer

    def _pull_compressed(self, unpacked: Callable[[Iterator[bytes]], Iterator[bytes]]) -> None:
        """What arrives is kept as it is and unpacked as it comes; a later pull unpacks what is here first."""
        name = self._name
        with self._store.partial(name) as fd:
            if fd is None:
                # Another process pulls the same layer: then this one reads it without keeping it.
                self._unpack(unpacked(self._blob(0)), TarReader(), 0, resumable=False)
                return
            self._unpack(unpacked(self._spooled(fd, name)), TarReader(), 0, resumable=False)
            self._store.drop_partial(name)

    def _spooled(self, fd: int, name: str) -> Iterator[bytes]:
        offset = 0
        while data := os.pread(fd, _CHUNK, offset):
            offset += len(data)
            yield data
        os.lseek(fd, offset, os.SEEK_SET)
        for data in self._blob(offset) if offset < self._layer.size else ():
            self._store.append_partial(fd, data, name)
            yield data

    # ---------------------------------------------------------------- tar streams

    def _unpack(self, stream: Iterator[bytes], reader: TarReader, offset: int, *, resumable: bool) -> None:
        try:
            for entry in reader.entries(stream):
                if entry.is_file:
                    self._store_entry(entry, offset, resumable=resumable)
                elif not entry.is_folder:
                    raise self._fault(f"unexpected entry {entry.name!r} of type {entry.kind!r}")
        except TarError as error:
            self._store.drop_partial(self._name)
            raise self._fault(str(error)) from None
        except WrongFileError as error:
            self._store.drop_partial(self._name)
            raise self._fault(error.message) from error

    def _store_entry(self, entry: TarEntry, offset: int, *, resumable: bool) -> None:
        file = self._files.get(entry.name)
        if file is None:
            raise self._fault(f"unexpected file {entry.name!r} not in lockfile")
        if entry.size != file.size:
            raise self._fault(f"{entry.name!r} has {entry.size} bytes, weights.lock says {file.size}")
        if self._store.has(file.digest, file.size):
            entry.skip()
            self._needed.discard(file.path)
            return
        if resumable and file.size >= PARTIAL_MIN:
            with self._store.partial(self._part_of(file)) as fd:
                if fd is not None:
                    os.ftruncate(fd, 0)
                    self._store.remember_resume_point(self._name, file.path, offset + entry.offset)
                    self._finish_file(file, fd, hashlib.sha256(), 0, entry.chunks())
                    return
        self._store.put(file.digest, file.size, self._counted(entry.chunks()))
        self._stored(file)

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for data in chunks:
            self._puller._progress.moved(len(data))
            yield data

    def _fault(self, what: str) -> CogkitError:
        return CogkitError(
            f"layer {self._layer.digest} of {self._repository}: {what}",
            hint="weights.lock and the registry do not agree; run 'cogkit weights import'",
        )


def _from(first: bytes, stream: Iterator[bytes], skip: int) -> Iterator[bytes]:
    """``first`` and then the stream, without the first ``skip`` bytes."""
    for data in (first, *()):
        if data[skip:]:
            yield data[skip:]
        skip = max(skip - len(data), 0)
    for data in stream:
        if data[skip:]:
            yield data[skip:]
        skip = max(skip - len(data), 0)


def _gunzip(stream: Iterator[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        for data in stream:
            while data:
                unpacked = unpacker.decompress(data, _CHUNK)
                if unpacked:
                    yield unpacked
                data = unpacker.unconsumed_tail
                if unpacker.eof:
                    data = unpacker.unused_data
                    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    except zlib.error as error:
        raise TarError(f"it is not what gzip writes: {error}") from None


def _unzstd(stream: Iterator[bytes]) -> Iterator[bytes]:
    # Nobody here writes such layers, so it is imported for those of others only.
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    unpacker = zstd.ZstdDecompressor()
    try:
        for data in stream:
            while data:
                if unpacked := unpacker.decompress(data, _CHUNK):
                    yield unpacked
                data = b""
                while not unpacker.eof and not unpacker.needs_input:
                    if unpacked := unpacker.decompress(b"", _CHUNK):
                        yield unpacked
                if unpacker.eof:
                    data = unpacker.unused_data
                    unpacker = zstd.ZstdDecompressor()
    except zstd.ZstdError as error:
        raise TarError(f"it is not what zstd writes: {error}") from None


def format_size(size: int) -> str:
    """A size as Cog writes it."""
    for limit, unit in ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")):
        if size >= limit:
            return f"{size / limit:.1f}{unit}"
    return f"{size}B"


__all__ = ["Pulled", "Puller", "chosen_entries", "format_size", "missing_files"]
