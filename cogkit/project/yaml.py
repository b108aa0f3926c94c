"""YAML with the place of every value, read the way Cog's own parser (go.yaml.in/yaml v4) reads it.

A ``cog.yaml`` becomes a small tree of `Scalar`, `Sequence` and `Mapping`, each with the line and column where it
starts (both from 1).  Scalars keep their *text*: `Scalar.as_text`, `as_bool` and `as_int` decide by what the reader
wants, as Go does when it decodes into a typed field.  So ``python_version: 3.10`` is the text ``3.10`` and not the
number 3.1, and ``gpu: yes`` is true while ``image: yes`` is the name "yes".

This file must not know any key of ``cog.yaml``; it only turns text into a tree, or raises
`cogkit.errors.ConfigError` with ``file:line:column``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass

_TRUE = frozenset({"true", "True", "TRUE", "y", "Y", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"false", "False", "FALSE", "n", "N", "no", "No", "NO", "off", "Off", "OFF"})
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z|[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_STRING_TAG = "tag:yaml.org,2002:str"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_MAX_DEPTH = 50

# The C parser reads the same language ten times faster; PyYAML wheels carry it, source builds may not.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a YAML text: ``line`` and ``column`` both count from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value that is neither a list nor a mapping, with the text it was written with (quotes taken off)."""

    text: str
    mark: Mark
    plain: bool

    @property
    def is_null(self) -> bool:
        """Whether the value was left out or written as ``~`` or ``null``."""
        return self.plain and self.text in _NULL

    @property
    def kind(self) -> str:
        """What a reader would call the value: ``nothing``, ``boolean``, ``integer``, ``number`` or ``string``."""
        if not self.plain:
            return "string"
        if self.text in _NULL:
            return "nothing"
        if self.text in ("true", "True", "TRUE", "false", "False", "FALSE"):
            return "boolean"
        if _INTEGER.match(self.text):
            return "integer"
        return "number" if _FLOAT.match(self.text) else "string"

    def as_bool(self) -> bool | None:
        """The value as a boolean (``yes``/``no``/``on``/``off`` too), or None if it is not one."""
        if self.plain and self.text in _TRUE:
            return True
        if self.plain and self.text in _FALSE:
            return False
        return None

    def as_int(self) -> int | None:
        """The value as an integer, or None if it is not one."""
        if not self.plain or not _INTEGER.match(self.text):
            return None
        digits = self.text.replace("_", "")
        sign = -1 if digits[0] == "-" else 1
        digits = digits.lstrip("+-")
        base = 8 if len(digits) > 1 and digits[0] == "0" and digits.isdigit() else 0
        try:
            return sign * int(digits, base)
        except ValueError:  # "0x_" or "089": it looks like a number and is none
            return None


@dataclass(frozen=True, slots=True)
class Sequence:
    """A YAML list."""

    items: tuple[Node, ...]
    mark: Mark
    kind: str = "list"


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``key: value`` of a mapping, with the place of the key."""

    key: str
    mark: Mark
    value: Node


@dataclass(frozen=True, slots=True)
class Mapping:
    """A YAML mapping in the order it was written, merge keys (``<<``) already merged."""

    entries: tuple[Entry, ...]
    mark: Mark
    kind: str = "mapping"

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def get(self, key: str) -> Entry | None:
        """The entry of this key, or None."""
        return next((entry for entry in self.entries if entry.key == key), None)


Node = Scalar | Sequence | Mapping


def parse(text: bytes | str, filename: str) -> Node | None:
    """Parses one YAML document.

    Args:
        text: The file's content; bytes must be UTF-8 (a byte order mark is allowed).
        filename: The name to put in front of ``line:column`` in errors.

    Returns:
        The tree, or None if the document is empty.

    Raises:
        ConfigError: Not UTF-8, not YAML, a key given twice, or more than one document.
    """
    source = text if isinstance(text, str) else _decode(text, filename)
    loader = None
    try:
        _refuse_deep_nesting(source, filename)
        loader = _Loader(source)
        root = loader.get_single_node()
        return None if root is None else _Converter(filename).convert(root)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, source, filename) from error
    except yaml.reader.ReaderError as error:
        raise _unreadable_character(source, filename) from error
    finally:
        if loader is not None:
            loader.dispose()


def _refuse_deep_nesting(source: str, filename: str) -> None:
    # PyYAML builds its nodes by recursion, the C one on the C stack: what is too deep for it ends the process.
    loader = _Loader(source)
    try:
        depth = 0
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > _MAX_DEPTH:
                mark = event.start_mark
                raise ConfigError(
                    f"more than {_MAX_DEPTH} lists and mappings lie within each other",
                    where=f"{filename}:{mark.line + 1}:{mark.column + 1}",
                    hint="Simplify the file.",
                )
    finally:
        loader.dispose()


def _decode(content: bytes, filename: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = content[: error.start].decode("utf-8", "replace")
        line = good.count("\n") + 1
        column = len(good) - (good.rfind("\n") + 1) + 1
        raise ConfigError(
            f"byte 0x{content[error.start]:02x} is not UTF-8",
            where=f"{filename}:{line}:{column}",
            hint="Save the file as UTF-8.",
        ) from error


def _unreadable_character(source: str, filename: str) -> ConfigError:
    for offset, character in enumerate(source):
        if yaml.reader.Reader.NON_PRINTABLE.match(character):
            line = source.count("\n", 0, offset) + 1
            column = offset - (source.rfind("\n", 0, offset) + 1) + 1
            return ConfigError(
                f"the control character U+{ord(character):04X} is not allowed in YAML",
                where=f"{filename}:{line}:{column}",
                hint='Remove it, or write it as an escape inside double quotes ("\\u0007").',
            )
    return ConfigError("the file holds a character that YAML does not allow", where=filename)


def _syntax_error(error: yaml.MarkedYAMLError, source: str, filename: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    problem = error.problem or error.context or "not valid YAML"
    where = filename if mark is None else f"{filename}:{mark.line + 1}:{mark.column + 1}"
    hint = "Check the indentation and the quotes around this line."
    lines = source.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or "\\t" in problem:
        problem, hint = "a tab is used for indentation", "YAML is indented with spaces only; replace the tab."
    elif "expected a single document" in (error.context or ""):
        problem, hint = "a second YAML document starts here", "Keep one document: remove the '---' and what follows."
    elif "mapping values are not allowed" in problem:
        hint = "Quote the value if it holds ': ', or check the indentation of this line."
    elif "undefined alias" in problem:
        hint = "Define the anchor with '&name' above, or quote the value if the '*' is meant literally."
    elif "expected <block end>" in problem or "did not find expected key" in problem:
        problem, hint = "this line does not fit the indentation above it", "Indent it like its neighbours."
    elif "node content" in problem or "expected ',' or" in problem:
        hint = "A '[' or '{' above this place may not be closed."
    elif "end of stream" in problem and error.context_mark is not None:
        mark = error.context_mark
        where = f"{filename}:{mark.line + 1}:{mark.column + 1}"
        line = lines[mark.line] if mark.line < len(lines) else ""
        problem, hint = "the quoted value that starts here is never closed", "Add the closing quote."
    elif "could not find expected ':'" in problem:
        hint = "A key needs a ':' and a space after it."
    elif "cannot start any token" in problem:
        hint = "Quote the value."
    detail = f"  {mark.line + 1} | {line}" if mark is not None and line.strip() else None
    return ConfigError(f"invalid YAML: {problem}", where=where, hint=hint, detail=detail)


class _Converter:
    """Turns PyYAML's nodes into ours; aliases share one converted node, so a small file cannot grow here."""

    def __init__(self, filename: str):
        self._filename = filename
        self._done: dict[int, Node] = {}
        self._open: set[int] = set()

    def convert(self, node: Any) -> Node:
        known = self._done.get(id(node))
        if known is not None:
            return known
        mark = _mark(node)
        if id(node) in self._open:
            raise ConfigError("the value contains itself", where=self._where(mark), hint="Remove the alias in it.")
        self._open.add(id(node))
        converted: Node
        if isinstance(node, yaml.ScalarNode):
            # The C parser says "" where the Python one says None for a value without quotes.
            plain = not node.style and not (node.tag == _STRING_TAG and node.value in _NULL)
            converted = Scalar(node.value, mark, plain)
        elif isinstance(node, yaml.SequenceNode):
            converted = Sequence(tuple(self.convert(item) for item in node.value), mark)
        else:
            converted = Mapping(self._entries(node), mark)
        self._open.discard(id(node))
        self._done[id(node)] = converted
        return converted

    def _entries(self, node: Any) -> tuple[Entry, ...]:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            mark = _mark(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError("a key must be plain text", where=self._where(mark), hint="Use a simple name as key.")
            value = self.convert(value_node)
            if key_node.tag == _MERGE_TAG:
                for entry in self._merge_source(value):
                    merged.setdefault(entry.key, entry)
                continue
            key = key_node.value
            if key in own:
                raise ConfigError(
                    f'mapping key "{key}" already defined at line {own[key].mark.line}',
                    where=self._where(mark),
                    hint="Keep one of the two.",
                )
            own[key] = Entry(key, mark, value)
        return tuple(own.values()) + tuple(entry for key, entry in merged.items() if key not in own)

    def _merge_source(self, value: Node) -> Iterator[Entry]:
        for source in value.items if isinstance(value, Sequence) else (value,):
            if not isinstance(source, Mapping):
                raise ConfigError("'<<' needs a mapping", where=self._where(source.mark), hint="Merge a mapping only.")
            yield from source.entries

    def _where(self, mark: Mark) -> str:
        return f"{self._filename}:{mark.line}:{mark.column}"


def _mark(node: Any) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)
