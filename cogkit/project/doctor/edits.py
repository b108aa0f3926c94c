"""Changing a few bytes of a file and nothing else: by the positions of a syntax tree, whole or not at all.

What cannot be changed without touching more than was said is refused.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable
from pathlib import Path

from cogkit.atomic_file import create_whole, replace_whole
from cogkit.errors import ConfigError, OutputError
from cogkit.fast_dataclass import dataclass
from cogkit.project.doctor.findings import CannotFixError
from cogkit.project.schema.grammar import parse


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace the bytes from ``start`` to ``end``."""

    start: int
    end: int
    replacement: bytes = b""


class PythonText:
    """The bytes of a Python file, addressed by the nodes of its tree.

    Raises:
        CannotFixError: the positions would not be those of the bytes (another encoding than UTF-8, odd line ends),
            or it is not Python.
    """

    def __init__(self, path: str, data: bytes):
        self.path = path
        self.data = data
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise CannotFixError(f"{path} is not UTF-8, change it by hand") from None
        if text.startswith("\ufeff") or "\f" in text or "\r" in text.replace("\r\n", ""):
            raise CannotFixError(f"{path} has a byte order mark or unusual line ends, change it by hand")
        try:
            self.tree = parse(data, path).tree
        except ConfigError as problem:
            raise CannotFixError(f"{path} cannot be read ({problem.message}), change it by hand") from None
        self._line_starts = [0]
        for line in data.split(b"\n"):
            self._line_starts.append(self._line_starts[-1] + len(line) + 1)

    def start(self, node: ast.expr | ast.stmt | ast.alias | ast.keyword) -> int:
        """Where a node begins; a class or function where its own word does, behind its decorators."""
        return self._line_starts[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt | ast.alias | ast.keyword) -> int:
        """Where a node ends."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._line_starts[node.end_lineno - 1] + node.end_col_offset

    def replace(self, node: ast.expr | ast.alias, text: str) -> Edit:
        return Edit(self.start(node), self.end(node), text.encode())

    def remove_statement(self, node: ast.stmt) -> Edit:
        """Remove the lines of a statement.

        Raises:
            CannotFixError: something else is on them.
        """
        assert node.end_lineno is not None
        start, end = self._line_starts[node.lineno - 1], min(self._line_starts[node.end_lineno], len(self.data))
        around = self.data[start : self.start(node)] + self.data[self.end(node) : end]
        if around.strip():
            raise CannotFixError(f"line {node.lineno} of {self.path} holds more than what is to go, change it by hand")
        return Edit(start, end)

    def remove_names(self, node: ast.ImportFrom | ast.Import, names: Iterable[str]) -> Edit | list[Edit]:
        """Remove names from an import, and with the last of them the import."""
        going = set(names)
        staying = [alias for alias in node.names if alias.name not in going]
        if not staying:
            return self.remove_statement(node)
        edits: list[Edit] = []
        for at, alias in enumerate(node.names):
            if alias.name in going:
                last = not any(later in staying for later in node.names[at:])
                edits.append(self._remove_last(node.names[at - 1], alias) if last else self._remove_before(node, at))
        return edits

    def _remove_before(self, node: ast.ImportFrom | ast.Import, at: int) -> Edit:
        """Remove a name that others follow, with the comma behind it."""
        return Edit(self.start(node.names[at]), self.start(node.names[at + 1]))

    def _remove_last(self, before: ast.alias, alias: ast.alias) -> Edit:
        """Remove a name at the end, with the comma before it; a comment between the two stays."""
        start, end = self.end(before), self.end(alias)
        between = self.data[start : self.start(alias)]
        if b"#" in between:
            comma = re.compile(rb"[ \t]*,").match(self.data, end)
            start, end = start + len(between.rstrip()), comma.end() if comma else end
        return Edit(start, end)

    def line_after(self, node: ast.stmt) -> int:
        """Where the line behind a statement begins."""
        assert node.end_lineno is not None
        return min(self._line_starts[node.end_lineno], len(self.data))

    def changed(self, edits: Iterable[Edit]) -> bytes:
        """The bytes with all edits made.

        Raises:
            CannotFixError: the edits are in each other's way, or the result is not Python.
        """
        data, border = self.data, len(self.data) + 1
        for edit in sorted(edits, key=lambda edit: (edit.start, edit.end), reverse=True):
            if edit.end > border:
                raise CannotFixError(f"the changes to {self.path} are in each other's way, change it by hand")
            data = data[: edit.start] + edit.replacement + data[edit.end :]
            border = edit.start
        try:
            parse(data, self.path)
        except ConfigError:
            raise CannotFixError(f"{self.path} cannot be changed automatically, change it by hand") from None
        return data


def replace_file(path: Path, before: bytes, after: bytes) -> None:
    """Write a file that has not changed meanwhile: whole or not at all, with the mode that it had.

    Raises:
        CannotFixError: it was changed since it was read.
        OutputError: it cannot be written.
    """
    # A link stays one; what it points at is changed.
    path = Path(os.path.realpath(path))
    try:
        if path.read_bytes() != before:
            raise CannotFixError(f"{path} was changed meanwhile, run it again")
        replace_whole(path, after, path.stat().st_mode & 0o7777)
    except OSError as problem:
        raise OutputError(f"cannot write it: {problem.strerror}", where=str(path)) from problem


def create_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file that is not there yet: whole or not at all.

    Raises:
        CannotFixError: there is something of that name.
        OutputError: it cannot be written.
    """
    try:
        create_whole(path, data, mode)
    except FileExistsError:
        raise CannotFixError(f"{path.name} already exists") from None
    except OSError as problem:
        raise OutputError(f"cannot write it: {problem.strerror}", where=str(path)) from problem
