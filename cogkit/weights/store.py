"""The local store of weight files: each content once, under its digest, for all projects of this user.

The layout is Cog's (``files/sha256/ab/HEX``), so both programs share one.  Beside it:

- ``partial/``: what of a file or layer arrived so far; a lock says whose it is.
- ``resume/``: where in its layer a partial file begins.
- ``places/``: repositories that a layer was seen in, to have it taken over from there.
- ``layers/``: which digest and size the bytes of a packed layer had, so that nothing is compressed again to learn it.
- ``projects/``: which projects use the store, for `collect`.

A file gets its name when all of it is there and has the digest that the name says, and is read-only from then on.
Nothing is synced to the disk: after a crash of the machine a file may be short, and one without its size is not taken
for there.  Everything blocks; threads and processes may work on one store.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cogkit.atomic_file import NewFile
from cogkit.errors import CogkitError, ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.oci.digest import split_digest
from cogkit.output_file import output_error

READ_ONLY = 0o444
PARTIAL_MIN = 8 << 20
"""Bytes from which on what arrived of a file is kept when the rest does not come."""

PARTIAL_LIFE = 14 * 24 * 3600.0
"""Seconds after which what arrived of a file is given up."""

_MAX_PLACES = 4
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FICLONE = 0x40049409
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A file of a layer by its path, and where in the layer its bytes begin."""

    path: str
    offset: int


class StoreBusyError(CogkitError):
    """Somebody else uses the store in a way that excludes this."""


class WrongFileError(CogkitError):
    """What should have become a file of the store has another digest or size."""


def store_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the store is: ``$COG_CACHE_DIR/weights``, else ``$XDG_CACHE_HOME/cog/weights``, else below ``~/.cache``."""
    if folder := environ.get("COG_CACHE_DIR"):
        return Path(folder, "weights")
    if folder := environ.get("XDG_CACHE_HOME"):
        return Path(folder, "cog", "weights")
    home = environ.get("HOME") or os.path.expanduser("~")
    if not os.path.isabs(home):
        raise ConfigError("there is no folder for the weight store", hint="set COG_CACHE_DIR")
    return Path(home, ".cache", "cog", "weights")


class WeightStore:
    """A store in a folder, which is made when something is put into it."""

    def __init__(self, root: Path):
        self.root = root
        self._files = f"{root}/files"
        self._made: set[str] = set()

    def path(self, digest: str) -> Path:
        """Where the file of a digest is, whether or not it is there."""
        return Path(self._place(digest))

    def _place(self, digest: str) -> str:
        # Text, for a pull of many files asks a few times for each.
        algorithm, name = split_digest(digest)
        return f"{self._files}/{algorithm}/{name[:2]}/{name}"

    def has(self, digest: str, size: int) -> bool:
        """Whether the whole file of a digest is there."""
        try:
            return os.stat(self._place(digest)).st_size == size
        except OSError:
            return False

    def _open_folder(self, place: str) -> int:
        """The folder of a place, open; made if need be."""
        folder = os.path.dirname(place)
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)
            self._made.add(folder)
        try:
            return os.open(folder, _FOLDER)
        except FileNotFoundError:
            # Somebody has cleared the store since.
            os.makedirs(folder, exist_ok=True)
            return os.open(folder, _FOLDER)

    # ---------------------------------------------------------------- putting files in

    def put(self, digest: str, size: int, chunks: Iterable[bytes]) -> None:
        """Store a file.

        Raises:
            WrongFileError: it has another digest or size; nothing is stored.
            OutputError: the disk is full, …
        """
        with self.new_file(digest) as (fd, commit):
            hashed = hashlib.sha256()
            written = 0
            for data in chunks:
                written += len(data)
                if written > size:
                    break
                hashed.update(data)
                self._write(fd, data, digest)
            commit(hashed, written, size)

    @contextlib.contextmanager
    def new_file(self, digest: str) -> Iterator[tuple[int, Callable[[Any, int, int], None]]]:
        """A file on its way into the store; it is gone unless it is committed with the hash and size of its content."""
        final = self._place(digest)
        with self._explained(final):
            file = NewFile(self._open_folder(final), durable=False)

        def commit(hashed: Any, written: int, size: int) -> None:
            _check(digest, size, hashed, written)
            with self._explained(final):
                os.fchmod(file.fd, READ_ONLY)
                self._name(file, final, size)

        try:
            yield file.fd, commit
        finally:
            file.close()

    def _name(self, file: NewFile, final: str, size: int) -> None:
        name = os.path.basename(final)
        try:
            file.create(name)
        except FileExistsError:
            # Somebody else was faster, unless a crash left a part of it.
            if os.stat(final).st_size != size:
                file.replace(name)

    def _name_elsewhere(self, file: NewFile, final: Path) -> None:
        folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                file.create_elsewhere(folder, final.name)
            except FileExistsError:
                # Only part of it is there, or somebody else was faster: either way this one is whole.
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(final.name, dir_fd=folder)
                with contextlib.suppress(FileExistsError):
                    file.create_elsewhere(folder, final.name)
        finally:
            os.close(folder)

    def put_copy(self, source: Path, expected: str | None = None) -> tuple[str, int]:
        """Store a copy of a file that others may change, taken as it is at one moment; returns its digest and size.

        Raises:
            WrongFileError: it changed while it was read.
            OSError: it cannot be read.
        """
        incoming = self.root / "partial"
        with self._explained(incoming):
            incoming.mkdir(parents=True, exist_ok=True)
        with open(source, "rb", buffering=0) as opened:
            before = os.fstat(opened.fileno())
            with self._explained(incoming):
                file = NewFile(os.open(incoming, _FOLDER), durable=False)
            try:
                hashed, size = self._copy(opened.fileno(), file.fd, str(source))
                after = os.fstat(opened.fileno())
                _refuse_change(source, before, after, size)
                digest = f"sha256:{hashed.hexdigest()}"
                if expected is not None and digest != expected:
                    raise WrongFileError(f"{source} changed while it was read", hint="import again when it is complete")
                final = self.path(digest)
                if not self.has(digest, size):
                    with self._explained(final):
                        final.parent.mkdir(parents=True, exist_ok=True)
                        os.fchmod(file.fd, READ_ONLY)
                        self._name_elsewhere(file, final)
                return digest, size
            finally:
                file.close()

    def _copy(self, source: int, target: int, name: str) -> tuple[Any, int]:
        """Copy by sharing blocks where the file system can, and hash what arrived."""
        hashed = hashlib.sha256()
        size = 0
        reading = source
        if _cloned(source, target):
            reading = os.open(f"/proc/self/fd/{target}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while data := os.read(reading, _CHUNK):
                hashed.update(data)
                size += len(data)
                if reading == source:
                    self._write(target, data, name)
        finally:
            if reading != source:
                os.close(reading)
        return hashed, size

    def _write(self, fd: int, data: bytes, name: str) -> None:
        view = memoryview(data)
        with self._explained(name):
            while view:
                view = view[os.write(fd, view) :]

    # ---------------------------------------------------------------- what arrived so far

    @contextlib.contextmanager
    def partial(self, name: str) -> Iterator[int | None]:
        """A file, open for reading and writing, that keeps what arrived under a name of the caller's choice.

        None if another process or thread has it.  Who has all of it calls `drop_partial` or `keep_partial`.
        """
        folder = self.root / "partial"
        with self._explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield None
                return
            if os.fstat(fd).st_nlink == 0:
                yield None  # it was completed between our opening and locking it
                return
            yield fd
        finally:
            os.close(fd)

    def append_partial(self, fd: int, data: bytes, name: str) -> None:
        """Write on.

        Raises:
            OutputError: the disk is full, …
        """
        self._write(fd, data, str(self.root / "partial" / name))

    def drop_partial(self, name: str) -> None:
        """Remove what arrived."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.root / "partial" / name)

    def keep_partial(self, name: str, fd: int, digest: str, size: int, hashed: Any) -> None:
        """Make what arrived a file of the store.

        Raises:
            WrongFileError: it has another digest or size; it is removed, for going on with it would help nobody.
        """
        written = os.fstat(fd).st_size
        try:
            _check(digest, size, hashed, written)
        except WrongFileError:
            self.drop_partial(name)
            raise
        final = self.path(digest)
        with self._explained(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            os.fchmod(fd, READ_ONLY)
            os.rename(self.root / "partial" / name, final)

    # ---------------------------------------------------------------- giving files out

    def link(self, digest: str, size: int, target: Path) -> None:
        """Put a file of the store somewhere else without a second copy of its content.

        Raises:
            CogkitError: it is not in the store, or cannot be put there.
        """
        source = self.path(digest)
        if not self.has(digest, size):
            raise CogkitError(f"{digest} is not in the weight store", hint="run 'cogkit weights pull'")
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise output_error(error, str(target)) from error
            self._clone(source, target)

    def _clone(self, source: Path, target: Path) -> None:
        with self._explained(target):
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, READ_ONLY)
        try:
            with open(source, "rb") as opened:
                shared = _cloned(opened.fileno(), fd)
        finally:
            os.close(fd)
        if not shared:
            os.unlink(target)
            raise CogkitError(
                f"{source} cannot be linked to {target}: weight store and project are on different file systems",
                hint="set COG_CACHE_DIR to a folder on the project's file system, then run 'cogkit weights pull'",
            )

    # ---------------------------------------------------------------- what packed layers were

    def packed(self, key: str) -> tuple[str, int] | None:
        """Digest and size of a layer that was packed before."""
        try:
            said = json.loads((self.root / "layers" / key).read_bytes())
            split_digest(said["digest"])
            return str(said["digest"]), int(said["size"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember_packed(self, key: str, digest: str, size: int) -> None:
        """Keep that for the next time."""
        self._note("layers", key, {"digest": digest, "size": size})

    def _note(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        folder = self.root / kind
        with self._explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(NewFile(os.open(folder, _FOLDER), durable=False)) as file:
                os.write(file.fd, json.dumps(content).encode())
                file.replace(name)

    # ---------------------------------------------------------------- where layers are, and where pulls broke

    def places(self, layer: str) -> list[str]:
        """Repositories (``registry/repository``) that a layer was seen in, the newest first."""
        try:
            said = json.loads((self.root / "places" / split_digest(layer)[1]).read_bytes())
            return [place for place in said["places"] if isinstance(place, str)]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def remember_place(self, layer: str, place: str) -> None:
        """Keep that a repository has a layer."""
        before = self.places(layer)
        if before[:1] != [place]:
            kept = [place, *(other for other in before if other != place)]
            self._note("places", split_digest(layer)[1], {"places": kept[:_MAX_PLACES]})

    def resume_point(self, layer: str) -> ResumePoint | None:
        """Where in a layer the file begins that a pull broke in."""
        try:
            said = json.loads((self.root / "resume" / layer).read_bytes())
            return ResumePoint(str(said["path"]), int(said["offset"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember_resume_point(self, layer: str, path: str, offset: int) -> None:
        """Keep it before the file's bytes are."""
        self._note("resume", layer, {"path": path, "offset": offset})

    def forget_resume_point(self, layer: str) -> None:
        """The file is complete."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.root / "resume" / layer)

    # ---------------------------------------------------------------- unfinished uploads

    def upload(self, key: str) -> str | None:
        """Where an unfinished upload is."""
        try:
            said = json.loads((self.root / "uploads" / _name_of(key)).read_bytes())
            return str(said["location"]) if said["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remember_upload(self, key: str, location: str) -> None:
        """Keep that for another process."""
        self._note("uploads", _name_of(key), {"key": key, "location": location})

    def forget_upload(self, key: str) -> None:
        """It is complete, or lost."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.root / "uploads" / _name_of(key))

    # ---------------------------------------------------------------- who uses it, and what nobody uses

    @contextlib.contextmanager
    def in_use(self, project: Path) -> Iterator[None]:
        """While files come in that no lock names yet: nothing is collected, and the project is known from then on."""
        with self._explained(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        with self._lock(fcntl.LOCK_SH):
            where = os.path.realpath(project)
            self._note("projects", _name_of(where), {"project": where})
            yield

    @contextlib.contextmanager
    def _lock(self, kind: int) -> Iterator[None]:
        with self._explained(self.root):
            fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind)
            yield
        except BlockingIOError:
            raise StoreBusyError(
                f"the weight store {self.root} is in use by an import or a pull", hint="try again when it is done"
            ) from None
        finally:
            os.close(fd)

    def projects(self) -> list[Path]:
        """Folders of the projects that used the store."""
        found = []
        for note in sorted(_listed(self.root / "projects")):
            try:
                found.append(Path(str(json.loads(note.read_bytes())["project"])))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def collect(self, used: Callable[[Path], set[str] | None], *, dry_run: bool = False) -> Collected:
        """Remove what no project uses.

        Args:
            used: The digests that a project uses; None if there is no such project any more.
            dry_run: Only say what would go.

        Raises:
            StoreBusyError: an import or a pull is on its way.
        """
        if not self.root.is_dir():
            return Collected(0, 0, 0)
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB):
            wanted: set[str] = set()
            projects = 0
            for project in self.projects():
                digests = used(project)
                if digests is None:
                    if not dry_run:
                        (self.root / "projects" / _name_of(str(project))).unlink(missing_ok=True)
                else:
                    projects += 1
                    wanted |= digests
            files = freed = 0
            for path in self._all_files():
                if f"sha256:{path.name}" not in wanted:
                    files += 1
                    freed += path.stat().st_size
                    if not dry_run:
                        path.unlink()
            old = time.time() - PARTIAL_LIFE
            for kind in ("partial", "resume", "layers", "places", "uploads"):
                for path in _listed(self.root / kind):
                    if path.stat().st_mtime < old:
                        freed += path.stat().st_blocks * 512
                        if not dry_run:
                            path.unlink()
            return Collected(files, freed, projects)

    def _all_files(self) -> Iterator[Path]:
        for folder in _listed(Path(self._files, "sha256")):
            yield from (path for path in _listed(folder) if len(path.name) == 64)

    @contextlib.contextmanager
    def _explained(self, place: Path | str) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, BlockingIOError):
            raise
        except OSError as error:
            raise output_error(error, str(place)) from error


@dataclass(frozen=True, slots=True)
class Collected:
    """What `WeightStore.collect` did: files and bytes that nobody used, and how many projects use the store."""

    files: int
    size: int
    projects: int


class StoredUploads:
    """Unfinished uploads, kept in a store (`cogkit.registry.client.UploadSessions`)."""

    def __init__(self, store: WeightStore):
        self._store = store

    def get(self, key: str) -> str | None:
        return self._store.upload(key)

    def put(self, key: str, location: str) -> None:
        self._store.remember_upload(key, location)

    def drop(self, key: str) -> None:
        self._store.forget_upload(key)


def hash_file(path: Path) -> tuple[str, int]:
    """Digest and size of a file that others may change.

    Raises:
        WrongFileError: it changed while it was read.
        OSError: it cannot be read.
    """
    hashed = hashlib.sha256()
    size = 0
    with open(path, "rb", buffering=0) as opened:
        before = os.fstat(opened.fileno())
        while data := opened.read(_CHUNK):
            hashed.update(data)
            size += len(data)
        _refuse_change(path, before, os.fstat(opened.fileno()), size)
    return f"sha256:{hashed.hexdigest()}", size


def _cloned(source: int, target: int) -> bool:
    """Whether the file system let the two share their blocks."""
    try:
        # Other systems do not know the number, and say so.
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _check(digest: str, size: int, hashed: Any, written: int) -> None:
    if written != size:
        raise WrongFileError(f"{digest} has {written} bytes or more, {size} are expected")
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise WrongFileError(f"digest mismatch: expected {digest}, got sha256:{hashed.hexdigest()}")


def _refuse_change(source: Path, before: os.stat_result, after: os.stat_result, read: int) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or read != after.st_size:
        raise WrongFileError(f"{source} changed while it was read", hint="import again when it is complete")


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _name_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
