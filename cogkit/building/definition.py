"""What defines a build beside its files: the Dockerfile, and the ignore file that holds for its context.

Both are read here once, for a build as for ``cogkit context``, so that what the one says is what the other does:

- The Dockerfile and its own ignore file (``NAME.dockerignore``) are found beside the name that the user gave, and read
  through links.  The builder gets them under that name, and nothing else of their folder.
- The context's ``.dockerignore`` is the builder's to read, out of what it asks of the context; it is looked up here
  with the file sync's own code.  A link that leads out of the context leads nowhere there, and that is warned of.

Facts are from BuildKit (``frontend/dockerui/config.go``) and buildx (``loadInputs``).  This file must not ask a builder
for anything.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cogkit.buildkit.mounts import LocalMount
from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.discover import DOCKERFILE_NAME, Project, is_stream
from cogkit.project.dotcog import DOTCOG_NAME

if TYPE_CHECKING:
    from cogkit.buildkit.fsutil.walk import Tree

IGNORE_NAME = ".dockerignore"
CONTEXT_MOUNT = "context"
DOCKERFILE_MOUNT = "dockerfile"

EMPTY_CONTEXT = LocalMount(CONTEXT_MOUNT, Path(), files={})
"""The context of a Dockerfile that comes alone."""

MAX_DOCKERFILE = 16 << 20
"""Bytes; more than any Dockerfile, and more than a frontend in an image can be told."""

_MAX_LINKS = 255  # of containerd's continuity, which resolves paths for the builder
_LOOKED_AT = 8192  # bytes in which what is not text shows
_EMPTY = b"\n"
"""An ignore file without a pattern.  A frontend in an image takes one without any bytes for one that is not there."""


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """An ignore file that holds.

    Attributes:
        path: Where the user finds it.
        content: What it says.
    """

    path: Path
    content: bytes


@dataclass(frozen=True, slots=True)
class Definition:
    """A Dockerfile as it was read.

    Attributes:
        name: The name that the user gave it.
        dockerfile: Its content.
        ignore: Its own ignore file.
        shown: What the user would call it, if it is not in the file system.
    """

    name: str
    dockerfile: bytes
    ignore: IgnoreFile | None = None
    shown: str | None = None

    @property
    def filename(self) -> str:
        """The name by which the builder knows it: the user's, if that is text."""
        try:
            self.name.encode()
        except UnicodeEncodeError:
            return DOCKERFILE_NAME
        return self.name

    @property
    def mount(self) -> LocalMount:
        """What the builder gets of the Dockerfile's folder."""
        files = {self.filename: self.dockerfile}
        if self.ignore is not None:
            files[self.filename + IGNORE_NAME] = self.ignore.content or _EMPTY
        return LocalMount(DOCKERFILE_MOUNT, Path(), files=files)


@dataclass(frozen=True, slots=True)
class ContextIgnore:
    """What became of the search for an ignore file.

    Attributes:
        file: The one that holds, or None.
        warnings: What the user may have taken for one.
    """

    file: IgnoreFile | None = None
    warnings: tuple[str, ...] = ()


def read_definition(path: Path) -> Definition:
    """Read a Dockerfile and its own ignore file.

    Raises:
        ConfigError: one of them cannot be read.
    """
    streams = is_stream(path)
    content = _read(path, "the Dockerfile", waits=streams)
    if len(content) > MAX_DOCKERFILE:
        raise ConfigError("the file is too large for a Dockerfile", where=str(path), hint="give a Dockerfile with -f")
    check_is_text(content, str(path))
    if streams:
        return Definition(DOCKERFILE_NAME, content)
    return Definition(path.name, content, own_ignore_file(path))


def check_is_text(content: bytes, where: str) -> None:
    """Refuse what the builder's parser would answer with a riddle.

    Raises:
        ConfigError: it is not text, or not in the encoding that Dockerfiles are in.
    """
    hint = "a Dockerfile is text in UTF-8"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError("the Dockerfile is text in UTF-16 or UTF-32", where=where, hint=f"{hint}: save it as that")
    if b"\0" in content[:_LOOKED_AT]:
        raise ConfigError("the Dockerfile is not text", where=where, hint=hint)


def project_ignore_file(project: Project) -> ContextIgnore:
    """The ignore file that holds for a project, without reading its Dockerfile.

    Raises:
        ConfigError, MountError: it, or the context, cannot be read.
    """
    path = project.dockerfile_path
    return find_ignore_file(project.root, None if path is None or is_stream(path) else own_ignore_file(path))


def context_mount(root: Path, ignore_file: Path | None = None) -> LocalMount:
    """A context as builds offer it; ``ignore_file`` if that is not the context's own."""
    return LocalMount(
        name=CONTEXT_MOUNT,
        root=root,
        hidden=frozenset({DOTCOG_NAME}),
        ignore_file=ignore_file or root / IGNORE_NAME,
    )


def find_ignore_file(root: Path, own: IgnoreFile | None) -> ContextIgnore:
    """The ignore file that holds for a context: the Dockerfile's own before the context's.

    Raises:
        ConfigError: it cannot be read.
        MountError: the context cannot be read.
    """
    if own is not None:
        return ContextIgnore(own)
    return context_ignore_file(context_mount(root))


def ignored_links(root: Path, own: IgnoreFile | None) -> tuple[str, ...]:
    """What `find_ignore_file` would warn of, without reading anything where there is no link."""
    if own is not None or not (root / IGNORE_NAME).is_symlink():
        return ()
    return context_ignore_file(context_mount(root)).warnings


def context_ignore_file(mount: LocalMount) -> ContextIgnore:
    """The ``.dockerignore`` that the builder finds in a folder.

    Raises:
        MountError: the folder, or the file, cannot be read.
    """
    # The file sync's code, which a build imports later anyway; a command that only shows a Dockerfile does without.
    from cogkit.buildkit.fsutil.walk import Tree

    name = os.fsencode(IGNORE_NAME)
    with Tree(mount) as tree:
        try:
            mode = tree.lstat(name).st_mode
        except FileNotFoundError:
            return ContextIgnore()
        except OSError as error:
            raise tree.unreadable(name, error) from None
        shown = mount.root / IGNORE_NAME
        found = None
        if stat.S_ISLNK(mode):
            found = _received_path(tree)
        elif stat.S_ISREG(mode):
            found = name
        if found is None:
            return ContextIgnore(warnings=(_no_ignore_file(shown, mode),))
        reader = tree.reader()
        try:
            return ContextIgnore(IgnoreFile(shown, b"".join(reader.read(found, 1 << 20))))
        finally:
            reader.close()


def _received_path(tree: Tree) -> bytes | None:
    """Where the ignore file, which is a link, is for a builder that asked for it; None if it is nowhere.

    The builder asks for the link and what it leads to, and follows it in what it got, whose root it does not leave.
    """
    from cogkit.buildkit.fsutil.filter import TreeFilter, include_patterns
    from cogkit.buildkit.fsutil.follow import follow_links
    from cogkit.buildkit.fsutil.packet import decode_packet
    from cogkit.buildkit.fsutil.stat import MODE_SYMLINK, Stat

    targets = follow_links(tree, [IGNORE_NAME])
    if targets is None:
        return None  # it leads to the root itself
    received: dict[bytes, Stat] = {}
    for batch in tree.walk(TreeFilter(include_patterns(None, targets))):
        for packet in batch.packets:
            entry = decode_packet(packet).stat
            if entry is not None:
                received[entry.path] = entry
    parts, at = [os.fsencode(IGNORE_NAME)], b""
    for _ in range(_MAX_LINKS):
        while parts:
            part = parts.pop(0)
            if part in (b"", b"."):
                continue
            if part == b"..":
                at = at.rpartition(b"/")[0]
                continue
            at = at + b"/" + part if at else part
            entry = received.get(at)
            if entry is None:
                return None
            if entry.mode & MODE_SYMLINK:
                target = entry.linkname
                parts = [*target.split(b"/"), *parts]
                at = b"" if target.startswith(b"/") else at.rpartition(b"/")[0]
                break
        else:
            return at if at in received and received[at].has_content else None
    return None


def _no_ignore_file(path: Path, mode: int) -> str:
    """Why a ``.dockerignore`` that is there does not hold."""
    if not stat.S_ISLNK(mode):
        return f"{path} is not a file: nothing is left out"
    target = os.readlink(path)
    real, root = os.path.realpath(path), os.path.realpath(path.parent)
    if os.path.isabs(target) or not Path(real).is_relative_to(root):
        reason = "which leads out of the context"
    elif not os.path.exists(real):
        reason = "which does not exist"
    else:
        reason = "which is not a file that builds see"
    return f"{path} is a link to {target}, {reason}: builders do not follow it, so nothing is left out"


def own_ignore_file(dockerfile: Path) -> IgnoreFile | None:
    """The ignore file beside a Dockerfile, if there is one.

    Raises:
        ConfigError: it cannot be read.
    """
    names = [dockerfile.name]
    if dockerfile.name == DOCKERFILE_NAME.lower():
        names.append(DOCKERFILE_NAME)  # by which BuildKit asks for it, while buildx does not
    for name in names:
        path = dockerfile.with_name(name + IGNORE_NAME)
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                continue
        except FileNotFoundError:
            if path.is_symlink():
                raise ConfigError(
                    f"the Dockerfile's ignore file is a link to {os.readlink(path)}, which does not exist",
                    where=str(path),
                    hint="remove the link, or put the file there",
                ) from None
            continue
        except OSError as problem:
            raise ConfigError(f"cannot use the ignore file: {problem.strerror}", where=str(path)) from problem
        return IgnoreFile(path, _read(path, "the ignore file"))
    return None


def _read(path: Path, what: str, *, waits: bool = False) -> bytes:
    try:
        # Should it have become a pipe meanwhile, we are not held.
        with open(path, "rb", opener=None if waits else _without_waiting) as file:
            return file.read(MAX_DOCKERFILE + 1)
    except OSError as problem:
        raise ConfigError(f"cannot read {what}: {problem.strerror}", where=str(path)) from problem


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
