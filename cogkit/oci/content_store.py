"""An OCI image layout on disk: blobs under their digests, and the index that names some of them.

The layout is that of the OCI image specification (``oci-layout``, ``index.json``, ``blobs/ALGORITHM/HEX``), as
containerd's local content store and BuildKit's ``client/ociindex`` read and write it:

- A blob gets its name when all of it is there, synced, and has the digest that the name says; a process that is killed
  leaves nothing half-written.
- The index is replaced as a whole, under the lock that BuildKit's own client takes (``index.json.lock``).
- Only digests make paths, and links inside the layout are not followed, so nobody is led out of it.

Everything blocks; call it in a thread.  This file must not know the session or who asks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Self

from cogkit.atomic_file import NewFile, replace_whole, usual_mode
from cogkit.errors import ConfigError, OutputError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.digest import HEX_LENGTHS, split_digest
from cogkit.oci.media_types import INDEX_TYPES, MANIFEST_TYPES, OCI_INDEX
from cogkit.output_file import output_error, write_all

INDEX = "index.json"
LAYOUT = "oci-layout"
BLOBS = "blobs"
LAYOUT_VERSION = "1.0.0"

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"

MAX_DOCUMENT = 64 << 20
"""Bytes of an index or manifest that are read at most."""

LOCK_PATIENCE = 10.0
"""Seconds to wait for another process that changes the index."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class LayoutError(ConfigError):
    """A folder that is not an OCI layout, or does not hold what is wanted of it."""


class BlobExistsError(Exception):
    """The blob that was to be written is there already."""


class WrongBlobError(Exception):
    """What was written does not have the size or the digest that it should have."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What an index says of a blob (OCI image specification, ``descriptor.md``).

    Attributes:
        content: The whole JSON object.
    """

    content: Mapping[str, Any]

    @property
    def digest(self) -> str:
        return str(self.content.get("digest", ""))

    @property
    def media_type(self) -> str:
        return str(self.content.get("mediaType", ""))

    @property
    def annotations(self) -> Mapping[str, str]:
        found = self.content.get("annotations")
        return found if isinstance(found, dict) else {}

    def named(self, *, image: str | None = None, tag: str) -> Self:
        """The same with a name: a whole image name and its tag, or a tag alone."""
        names = {REF_NAME: tag} if image is None else {IMAGE_NAME: image, REF_NAME: tag}
        return replace(self, content={**self.content, "annotations": {**self.annotations, **names}})


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob that is there.

    Attributes:
        digest: Its name.
        size: Bytes.
        modified: When it was written, in nanoseconds since the epoch.
    """

    digest: str
    size: int
    modified: int


class ContentStore:
    """A layout in a folder.

    Args:
        root: The folder.
        writable: Whether blobs may be added; a folder that is not there is then made by the first one.
    """

    def __init__(self, root: Path, *, writable: bool = False):
        self.root = root
        self.writable = writable

    def __repr__(self) -> str:
        return f"ContentStore({str(self.root)!r}, writable={self.writable})"

    # ---------------------------------------------------------------- blobs

    def info(self, digest: str) -> BlobInfo | None:
        """What there is under a digest; None if nothing.

        Raises:
            ValueError: no digest.
            LayoutError: what is there is no file.
        """
        fd = self.open_blob(digest)
        if fd is None:
            return None
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return BlobInfo(digest, status.st_size, status.st_mtime_ns)

    def open_blob(self, digest: str) -> int | None:
        """A descriptor to read the blob with; None if there is none.  For errors see `info`."""
        algorithm, name = split_digest(digest)
        try:
            with self._folder(algorithm) as folder:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise LayoutError(
                    f"blob {digest} of the OCI layout {self.root} is, or lies behind, a symbolic link",
                    hint="copy the layout with its links followed: cp -rL",
                ) from None
            raise LayoutError(f"cannot read blob {digest} of the OCI layout {self.root}: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise LayoutError(f"blob {digest} of the OCI layout {self.root} is not a file")
        return fd

    def blobs(self) -> Iterator[BlobInfo]:
        """All blobs, in no order; what has no digest for a name is passed over."""
        for algorithm in HEX_LENGTHS:
            try:
                with self._folder(algorithm) as folder:
                    names = os.listdir(folder)
            except OSError:
                continue
            for name in names:
                digest = f"{algorithm}:{name}"
                with contextlib.suppress(ValueError, LayoutError):
                    if (info := self.info(digest)) is not None:
                        yield info

    def writer(self, *, algorithm: str = "sha256") -> BlobWriter:
        """Start to write a blob.

        Raises:
            OutputError: the folder cannot be written.
        """
        folder = self.root / BLOBS / algorithm
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._folder(algorithm) as fd:
                return BlobWriter(os.dup(fd), folder, algorithm)
        except OSError as error:
            raise output_error(error, str(folder)) from error

    @contextlib.contextmanager
    def _folder(self, algorithm: str) -> Iterator[int]:
        """The folder of an algorithm's blobs, open; links in the way to the layout are followed, in it they are not."""
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            blobs = os.open(BLOBS, _DIRECTORY, dir_fd=root)
        finally:
            os.close(root)
        try:
            folder = os.open(algorithm, _DIRECTORY, dir_fd=blobs)
        finally:
            os.close(blobs)
        try:
            yield folder
        finally:
            os.close(folder)

    # ---------------------------------------------------------------- the index

    def index(self) -> tuple[Descriptor, ...]:
        """What the index names.

        Raises:
            LayoutError: there is no index, or it makes no sense.
        """
        return _descriptors(self._index_document(), str(self.root / INDEX))

    def find(self, tag: str) -> Descriptor | None:
        """The entry with this image name, else the one with this tag (``ociindex.StoreIndex.Get``)."""
        entries = self.index()
        for key in (IMAGE_NAME, REF_NAME):
            for entry in entries:
                if entry.annotations.get(key) == tag:
                    return entry
        return None

    def put(self, entry: Descriptor, *, images: Sequence[str] = (), tag: str | None = None) -> None:
        """Name a blob in the index, in place of what had the same name (``ociindex.StoreIndex.Put``).

        Args:
            entry: The blob.
            images: Whole names of images; the tag of each is its reference name.
            tag: A reference name alone.

        Raises:
            OutputError: the index cannot be written, or stays locked by another process.
            LayoutError: there is an index that makes no sense.
        """
        named = [entry.named(image=image, tag=_tag_of(image)) for image in images]
        if tag is not None:
            named.append(entry.named(tag=tag))
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with _locked(self.root / f"{INDEX}.lock"):
                self._write(LAYOUT, {"imageLayoutVersion": LAYOUT_VERSION})
                self._write(INDEX, self._with_entries(named or [entry]))
        except OSError as error:
            raise output_error(error, str(self.root / INDEX)) from error

    def _with_entries(self, named: Sequence[Descriptor]) -> dict[str, Any]:
        document = self._index_document() if (self.root / INDEX).exists() else {}
        entries = list(_descriptors(document, str(self.root / INDEX)))
        for new in named:
            if REF_NAME in new.annotations:
                entries = [old for old in entries if _names(old) != _names(new)]
            entries.append(new)
        defaults = {"schemaVersion": 2, "mediaType": OCI_INDEX}
        kept = {key: value for key, value in document.items() if value}
        return {**defaults, **kept, "manifests": [entry.content for entry in entries]}

    def _index_document(self) -> dict[str, Any]:
        path = self.root / INDEX
        try:
            with path.open("rb") as file:
                return _parse(file.read(MAX_DOCUMENT), str(path))
        except FileNotFoundError:
            raise LayoutError(f"{self.root} is not an OCI layout: it has no {INDEX}") from None
        except OSError as error:
            raise LayoutError(f"cannot read {path}: {error.strerror}") from error

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        """Replace a file of the layout as a whole."""
        replace_whole(self.root / name, json.dumps(document, separators=(",", ":")).encode())

    def remove_unreferenced(self) -> None:
        """Delete the blobs that nothing in the index leads to.

        Raises:
            LayoutError: an index or manifest that makes no sense; nothing is deleted then.
            OutputError: a blob cannot be deleted.
        """
        wanted: set[str] = set()
        pending = list(self.index())
        while pending:
            entry = pending.pop()
            if entry.digest not in wanted:
                wanted.add(entry.digest)
                pending += self._children(entry)
        for blob in list(self.blobs()):
            if blob.digest not in wanted:
                algorithm, name = split_digest(blob.digest)
                try:
                    with self._folder(algorithm) as folder:
                        os.unlink(name, dir_fd=folder)
                except OSError as error:
                    raise output_error(error, str(self.root / BLOBS / algorithm / name)) from error

    def _children(self, entry: Descriptor) -> list[Descriptor]:
        if entry.media_type not in INDEX_TYPES | MANIFEST_TYPES:
            return []
        where = f"{entry.digest} of {self.root}"
        try:
            fd = self.open_blob(entry.digest)
        except ValueError as error:
            raise LayoutError(f"{self.root / INDEX}: {error}") from None
        if fd is None:
            return []  # a layout may lack some of its images
        with os.fdopen(fd, "rb") as file:
            document = _parse(file.read(MAX_DOCUMENT), where)
        if entry.media_type in INDEX_TYPES:
            return list(_descriptors(document, where))
        config = document.get("config")
        parts = [config] if isinstance(config, dict) else []
        return [Descriptor(part) for part in parts] + list(_descriptors(document, where, key="layers"))


@dataclass(slots=True)
class BlobWriter:
    """A blob on its way into a layout; has no name before `commit`.  One thread at a time.

    Attributes:
        offset: Bytes written so far.
    """

    _folder: int
    _shown: Path
    _algorithm: str
    offset: int = 0
    _file: NewFile = field(init=False)
    _hash: hashlib._Hash = field(init=False)

    def __post_init__(self) -> None:
        self._hash = hashlib.new(self._algorithm)
        self._file = NewFile(self._folder)

    @property
    def digest(self) -> str:
        """The digest of what was written so far."""
        return f"{self._algorithm}:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            OutputError: the disk is full, …
        """
        try:
            for done in write_all(self._file.fd, [data]):
                self.offset += done
        except OSError as error:
            raise output_error(error, str(self._shown), written=self.offset) from error
        self._hash.update(data)

    def restart(self) -> None:
        """Forget what was written."""
        try:
            os.ftruncate(self._file.fd, 0)
            os.lseek(self._file.fd, 0, os.SEEK_SET)
        except OSError as error:
            raise output_error(error, str(self._shown)) from error
        self._hash = hashlib.new(self._algorithm)
        self.offset = 0

    def commit(self, *, size: int = 0, expected: str = "") -> str:
        """The blob is complete: let it appear.  Returns its digest.

        Args:
            size: How many bytes it should have; 0 for any number.
            expected: The digest that it should have; empty for any.

        Raises:
            WrongBlobError: it has another size or digest.
            BlobExistsError: it is there already.
            OutputError: the disk is full, …
        """
        if size > 0 and size != self.offset:
            raise WrongBlobError(f"unexpected commit size {self.offset}, expected {size}")
        if expected and expected != self.digest:
            raise WrongBlobError(f"unexpected commit digest {self.digest}, expected {expected}")
        _, name = split_digest(self.digest)
        try:
            os.fchmod(self._file.fd, usual_mode())
            os.fsync(self._file.fd)
            self._file.create(name)
        except FileExistsError:
            raise BlobExistsError(self.digest) from None
        except OSError as error:
            raise output_error(error, str(self._shown), written=self.offset) from error
        return self.digest

    def close(self) -> None:
        """Let go of what was not committed.  Idempotent."""
        self._file.close()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that BuildKit's client takes too: ``flock`` on a file that its last holder removes."""
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have removed it between our open and our lock.
            if _is_still_there(fd, path):
                break
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise OutputError(
                    f"another process holds the lock of the OCI layout ({path})", hint="wait for it, or end it"
                ) from None
            time.sleep(0.02)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(fd)


def _is_still_there(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _parse(content: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise LayoutError("not the JSON of an OCI layout", where=where)
    return document


def _descriptors(document: Mapping[str, Any], where: str, *, key: str = "manifests") -> tuple[Descriptor, ...]:
    entries = document.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LayoutError(f"{key} must be a list of objects", where=where)
    return tuple(Descriptor(entry) for entry in entries)


def _names(entry: Descriptor) -> tuple[str, str]:
    return entry.annotations.get(IMAGE_NAME, ""), entry.annotations.get(REF_NAME, "")


def _tag_of(image: str) -> str:
    """What stands behind the repository in an image's name, a tag or ``@`` and a digest (containerd ``reference``)."""
    _, slash, path = image.partition("/")
    if not slash:
        return image if ":" in image else ""
    match = re.search(r"[:@]", path)
    if match is None:
        return ""
    return path[match.start() :] if match[0] == "@" else path[match.end() :]
