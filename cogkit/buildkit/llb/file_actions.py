"""Changes of files that need no container: `copy`, `mkdir`, `mkfile`, `rm` and `symlink`, for `State.file`.

Actions chain, and a chain is one vertex: ``mkdir("/a").mkfile("/a/b", b"x")``.  Paths that are not absolute are in the
working folder of the state.  This file knows what an action says; `vertices` encodes a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cogkit.buildkit.fsutil.gopath import clean, join
from cogkit.buildkit.llb.encoding import chunk, flag, number, text, texts
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.llb.state import State

COPY: Final = 4
MKFILE: Final = 5
MKDIR: Final = 6
RM: Final = 7
SYMLINK: Final = 8

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Chown:
    """The owner of what an action makes.  A name is looked up in the state; None keeps what would be."""

    user: int | str | None = None
    group: int | str | None = None

    @classmethod
    def parse(cls, words: str) -> Chown:
        """Read ``USER[:GROUP]``, each a name or a number; ``root`` is 0."""
        user, colon, group = words.partition(":")
        return cls(_id_or_name(user), _id_or_name(group) if colon else None)

    def encoded(self, base: int) -> bytes:
        """The message; ``base`` is the input in which names are looked up."""
        parts = [
            chunk(field, _encoded_id(each, base))
            for field, each in ((1, self.user), (2, self.group))
            if each is not None
        ]
        return b"".join(parts)


def _id_or_name(word: str) -> int | str:
    if word == "root" or not word:
        return 0
    digits = word[1:] if word[0] in "+-" else word
    if digits.isascii() and digits.isdigit() and -(1 << 31) <= int(word) < 1 << 31:
        return int(word)
    return word


def _encoded_id(value: int | str, base: int) -> bytes:
    if isinstance(value, str) and value:
        return chunk(1, text(1, value) + number(2, base))
    value = int(value or 0) & 0xFFFFFFFF
    # A member of a oneof is written even if it is 0.
    return number(2, value) or b"\x10\x00"


class FileAction:
    """A chain of actions.

    Immutable: each method gives a new chain with one action more.
    """

    __slots__ = ("_body", "_previous", "kind", "source")

    def __init__(self) -> None:
        """An empty chain; the functions of this module begin one with an action in it."""
        self._previous: FileAction | None = None
        self._body: _Body | None = None
        self.kind = 0
        self.source: State | BoundActions | None = None

    def copy(
        self,
        source: State | BoundActions,
        src: str,
        dest: str,
        *,
        mode: int | str | None = None,
        chown: Chown | str | None = None,
        created: datetime | int | None = None,
        follow_symlinks: bool = False,
        contents_only: bool = False,
        create_dest_path: bool = False,
        wildcard: bool = False,
        allow_empty_wildcard: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        required: Sequence[str] = (),
        unpack: bool = False,
        replace_existing: bool = False,
    ) -> FileAction:
        """Copy ``src`` of another state to ``dest``.

        Args:
            source: Where to copy from: a state, or actions with a state (`FileAction.with_state`).
            src: The file or folder there.
            dest: Where to; if it is a folder, the copy is made in it.
            mode: The permissions of the copies: a number, or text as ``chmod`` takes it (``u+x``).
            chown: Their owner, root by default.
            created: Their time; a number is in nanoseconds.
            follow_symlinks: Copy what links of ``src`` point to.
            contents_only: Of a folder, copy what is in it.
            create_dest_path: Make the folders above ``dest``.
            wildcard: ``src`` may have ``*``, ``?`` and ``[…]``.
            allow_empty_wildcard: No match is not an error.
            include: Copy only what matches one of these patterns.
            exclude: Do not copy what matches one of these.
            required: With ``include``: paths that must be there.
            unpack: Unpack ``src`` if it is a tar archive.
            replace_existing: What is at ``dest`` and of another kind makes room.
        """
        if mode == "":
            mode = None
        if isinstance(mode, int) and not 0 <= mode < 1 << 31:
            raise UsageError(f"the mode {mode:o} is out of range")
        options = b"".join(
            (
                flag(5, follow_symlinks),
                flag(6, contents_only),
                flag(7, unpack),
                flag(8, create_dest_path),
                flag(9, wildcard),
                flag(10, allow_empty_wildcard),
                number(11, _nanoseconds(created)),
                _patterns(12, "include", include),
                _patterns(13, "exclude", exclude),
                flag(14, replace_existing),
                text(15, mode) if isinstance(mode, str) else b"",
                _patterns(16, "required", required),
            )
        )
        mode_field = number(4, -1 if mode is None else mode) if not isinstance(mode, str) else b""
        return self._then(COPY, _Body((src, dest), _owner(chown), mode_field, options), source)

    def mkdir(
        self,
        path: str,
        mode: int = 0o755,
        *,
        parents: bool = False,
        chown: Chown | str | None = None,
        created: datetime | int | None = None,
    ) -> FileAction:
        """Make a folder; with ``parents`` also those above it, and it may be there already."""
        options = number(5, _nanoseconds(created))
        head = number(2, _permissions(mode)) + flag(3, parents)
        return self._then(MKDIR, _Body((path,), _owner(chown), head, options))

    def mkfile(
        self,
        path: str,
        data: bytes | str = b"",
        mode: int = 0o644,
        *,
        chown: Chown | str | None = None,
        created: datetime | int | None = None,
    ) -> FileAction:
        """Write a file."""
        data = data.encode() if isinstance(data, str) else bytes(data)
        head = number(2, _permissions(mode)) + (chunk(3, data) if data else b"")
        return self._then(MKFILE, _Body((path,), _owner(chown), head, number(5, _nanoseconds(created))))

    def rm(self, path: str, *, allow_not_found: bool = False, wildcard: bool = False) -> FileAction:
        """Remove a file, or a folder with all that is in it."""
        return self._then(RM, _Body((path,), None, b"", flag(2, allow_not_found) + flag(3, wildcard)))

    def symlink(
        self,
        target: str,
        path: str,
        *,
        chown: Chown | str | None = None,
        created: datetime | int | None = None,
    ) -> FileAction:
        """Make the symbolic link ``path`` that points to ``target``.

        ``path`` should be absolute: BuildKit does not put it into the working folder.
        """
        return self._then(SYMLINK, _Body((target, path), _owner(chown), b"", number(4, _nanoseconds(created))))

    def with_state(self, state: State) -> BoundActions:
        """The result of the actions on ``state``, to `copy` from in another chain of the same vertex."""
        if self._body is None:
            raise UsageError("a chain of file actions is empty")
        return BoundActions(self, state)

    def actions(self) -> list[FileAction]:
        """The chain, its first action first."""
        chain: list[FileAction] = []
        action: FileAction | None = self
        while action is not None:
            if action._body is not None:
                chain.append(action)
            action = action._previous
        chain.reverse()
        return chain

    def encoded(self, folder: str, source_folder: str, base: int) -> bytes:
        """The message of this action alone.

        Args:
            folder: The working folder of the state that is changed.
            source_folder: That of the state to copy from.
            base: The input in which names of owners are looked up.
        """
        body = self._body
        assert body is not None
        first, *rest = body.paths
        if self.kind == COPY:
            source = clean(first)
            source = join("/" if source.startswith("/") else source_folder, source)
            paths = text(1, source) + text(2, _target(folder, rest[0], True))
        elif self.kind == SYMLINK:
            paths = text(1, first) + text(2, rest[0])
        else:
            paths = text(1, _target(folder, first, False))
        owner = b"" if body.owner is None else chunk(_OWNER_FIELD[self.kind], body.owner.encoded(base))
        if self.kind == COPY:
            # The owner comes before the mode.
            return b"".join((paths, owner, body.head, body.options))
        return b"".join((paths, body.head, owner, body.options))

    def _then(self, kind: int, body: _Body, source: State | BoundActions | None = None) -> FileAction:
        made = FileAction()
        made._previous, made._body, made.kind, made.source = self, body, kind, source
        return made


class BoundActions:
    """Actions with the state that they change (`FileAction.with_state`)."""

    __slots__ = ("action", "state")

    def __init__(self, action: FileAction, state: State) -> None:
        self.action = action
        self.state = state


@dataclass(frozen=True, slots=True)
class _Body:
    """What an action says.

    Attributes:
        paths: As the user gave them.
        head: The encoded fields before the owner; of `COPY`, behind it.
        options: The encoded fields behind.
    """

    paths: tuple[str, ...]
    owner: Chown | None
    head: bytes
    options: bytes


_OWNER_FIELD: Final = {COPY: 3, MKFILE: 4, MKDIR: 4, SYMLINK: 3}


def _owner(chown: Chown | str | None) -> Chown | None:
    return Chown.parse(chown) if isinstance(chown, str) else chown


def _permissions(mode: int) -> int:
    return mode & 0o777


def _patterns(field: int, name: str, patterns: Sequence[str]) -> bytes:
    if isinstance(patterns, str):
        raise UsageError(f"{name} takes a list of patterns, not one text")
    return texts(field, patterns)


def _nanoseconds(moment: datetime | int | None) -> int:
    """Nanoseconds since 1970; -1 if there is no time."""
    if moment is None:
        return -1
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise UsageError("a file's time needs a time zone", hint="datetime(…, tzinfo=UTC)")
        past = moment - _EPOCH
        moment = ((past.days * 86400 + past.seconds) * 1_000_000 + past.microseconds) * 1000
    if not -(1 << 63) <= moment < 1 << 63:
        raise UsageError(f"a file's time cannot be {moment} nanoseconds after 1970")
    return moment


def _target(folder: str, path: str, keep_slash: bool) -> str:
    """The absolute path of what an action makes; a slash, or ``/.``, at the end has a meaning when copying."""
    made = clean(path)
    if not made.startswith("/"):
        made = join("/", folder, made)
    if keep_slash:
        if path.endswith("/") and not made.endswith("/"):
            made += "/"
        elif path.endswith("/."):
            made = made + "." if made == "/" else made + "/."
    return made


_NOTHING = FileAction()
copy = _NOTHING.copy
mkdir = _NOTHING.mkdir
mkfile = _NOTHING.mkfile
rm = _NOTHING.rm
symlink = _NOTHING.symlink
