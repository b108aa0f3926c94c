"""Where vertices come from: files, and places in them, that the daemon puts into its errors.

Data only; `cogkit.buildkit.llb.marshalling` decides which file gets which index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cogkit.buildkit.status import Range
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.llb.definition import Definition
    from cogkit.buildkit.llb.state import State


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Places in one file."""

    source_map: SourceMap
    ranges: tuple[Range, ...] = ()


class SourceMap:
    """A file that vertices were made from.

    Two of them are the same file if their names, languages and bytes are.
    """

    __slots__ = ("data", "definition", "filename", "language", "state")

    def __init__(
        self,
        filename: str,
        data: bytes | str,
        *,
        language: str = "",
        state: State | None = None,
        definition: Definition | None = None,
    ) -> None:
        """Make one.

        Args:
            filename: Its name, as the user knows it.
            data: All of it; errors show the lines around a place.
            language: As GitHub's linguist calls it, such as ``Python``.
            state: How a build gets the file; or instead
            definition: the same, marshalled.
        """
        if state is not None and definition is not None:
            raise UsageError("a source map takes a state or a definition, not both")
        self.filename = filename
        self.data = data.encode() if isinstance(data, str) else data
        self.language = language
        self.state = state
        self.definition = definition

    def at(self, *ranges: Range) -> SourceLocation:
        """Places in the file, for the keyword ``locations``."""
        return SourceLocation(self, ranges)

    def lines(self, first: int, last: int | None = None) -> SourceLocation:
        """The lines from ``first``, counted from 1, to ``last``, which is among them."""
        return self.at(Range(first, first if last is None else last))

    def same_file(self, other: SourceMap) -> bool:
        """Whether both stand for one file (``equalSourceMap`` of BuildKit's client)."""
        if (self.filename, self.language, self.data) != (other.filename, other.language, other.data):
            return False
        if self.definition is None or other.definition is None:
            return True
        mine, theirs = self.definition.ops, other.definition.ops
        return mine[-1:] == theirs[-1:] and (len(mine) == len(theirs) or not mine)
