"""Python sources by the grammar of the image's Python, whatever Python runs cogkit.

`ast.parse` reads first.  What only newer Pythons know (f-strings of PEP 701, ``type`` statements, type parameters,
``except A, B``, t-strings) is found by LibCST and written in the words of older ones, so that `ast.parse` takes it;
the tree has the places of the source as it was.  What is too new for the image is an error.  Nothing is imported or
run, and LibCST is loaded only for a source that `ast.parse` refuses.
"""

from __future__ import annotations

import ast
import codecs
import io
import re
import sys
import tokenize
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    import libcst

MAX_SOURCE = 8 << 20
"""Bytes of a source; parsing takes some hundred times as much memory."""

FAILED = "failed to parse Python source: "
"""What errors of syntax begin with."""

MAX_NEWER = 256 << 10
"""Characters of the statements that LibCST is asked about; it takes a second for some ten thousand."""

NEWEST = 14
"""The Python 3 whose grammar is known whole, with LibCST's help."""

TYPE_ALIAS = "_cogkit_type_alias"
"""The annotation under which ``type X = …`` is an assignment in the tree, on every Python."""

_RUNNING = sys.version_info.minor
_OLDEST_FEATURES = 7
_ONLY_IN = re.compile(r"(?P<what>.+?) (?:is|are) only supported in Python 3\.(?P<minor>\d+) and greater")
_LIBCST_PLACE = re.compile(r"error at (\d+):(\d+)")
_SLOW_ENCODINGS = frozenset({"idna", "punycode"})


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file.

    Attributes:
        data: Its text in UTF-8 with lines that end in ``\\n``, which the tree's places are counted in.
        tree: What it says.
    """

    data: bytes
    tree: ast.Module


def minor_version(python_version: str) -> int:
    """The y of ``3.y``; the newest known if the image's Python is not known."""
    match = re.match(r"3\.(\d+)", python_version)
    return int(match[1]) if match is not None else NEWEST


def parse(raw: bytes, name: str, python_version: str = "") -> Source:
    """Read a source as the Python of the image does.

    Args:
        raw: The file's bytes.
        name: What it is called in errors.
        python_version: ``build.python_version``; empty if it is not known.

    Raises:
        ConfigError: It is not Python, too new for the image, too large, or nested too deeply.
    """
    minor = minor_version(python_version)
    if len(raw) > MAX_SOURCE:
        raise ConfigError(
            f"cannot read {name}: it has more than {MAX_SOURCE >> 20} MiB",
            where=name,
            hint="Move the data in it to a file of its own, or give the schema with --openapi-schema.",
        )
    try:
        text = _decode(raw)
        data = text.encode()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in user code is not for us to report
            return Source(data, _parse(text, data, minor))
    except _TooNewError as error:
        raise ConfigError(
            f"only Python 3.{error.since} and newer know this ({error.what}), and the image has 3.{minor}",
            where=f"{name}:{error.line}:{error.column}",
            hint=f'Set build.python_version to "3.{error.since}", or write it as Python 3.{minor} knows it.',
        ) from None
    except SyntaxError as error:
        place = f"{name}:{error.lineno}" if error.lineno else name
        if error.lineno and error.offset and error.offset > 0:
            place += f":{error.offset}"
        raise ConfigError(f"{FAILED}{error.msg}", where=place, hint=_hint(minor)) from error
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise ConfigError(f"{FAILED}{reason}", where=name, hint=_hint(minor)) from error


def parse_expression(text: str) -> ast.expr:
    """The expression that a text holds, such as an annotation in quotes.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: It holds none.
    """
    from cogkit.project.schema.nesting import NestingError, check_nesting

    if not text.strip():
        raise SyntaxError("it is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check_nesting(text)  # whose brackets must be its own
        except NestingError as error:
            raise SyntaxError(str(error)) from None
        # On a line of its own, so that it may end in a comment.
        wrapped = f"(\n{text}\n)"
        statement = _parse(wrapped, wrapped.encode(), NEWEST).body
    if len(statement) != 1 or not isinstance(statement[0], ast.Expr):
        raise SyntaxError("it is not an expression")
    return statement[0].value


def _hint(minor: int) -> str:
    return (
        f"cogkit reads sources as the image's Python does, which is 3.{minor} (build.python_version). If this one is "
        "right, give the schema with --openapi-schema."
    )


class _TooNewError(Exception):
    def __init__(self, what: str, since: int, line: int, column: int) -> None:
        super().__init__(what)
        self.what, self.since, self.line, self.column = what, since, line, column


def _decode(raw: bytes) -> str:
    """The text of a source by its byte order mark or its cookie (PEP 263), lines ending in ``\\n``."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
    if codecs.lookup(encoding).name in _SLOW_ENCODINGS:
        raise SyntaxError(f"unknown encoding: {encoding}")
    try:
        text = raw.decode(encoding)
    except LookupError:
        raise SyntaxError(f"unknown encoding: {encoding}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SyntaxError(f"it is not {encoding}, as it says or must be", ("", line, 0, None)) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse(text: str, data: bytes, minor: int) -> ast.Module:
    try:
        tree = ast.parse(text, feature_version=(3, max(_OLDEST_FEATURES, min(minor, _RUNNING))))
    except SyntaxError as error:
        only = _ONLY_IN.match(error.msg or "")
        if only is not None:
            raise _TooNewError(only["what"], int(only["minor"]), error.lineno or 1, error.offset or 1) from None
        if _RUNNING >= NEWEST:
            raise
        tree = _parse_newer(text, data, minor, error)
    else:
        _check_age(tree, text, data, minor)
    if _RUNNING >= 12:
        _Uniform().visit(tree)
    return tree


# ---- what ``feature_version`` lets pass


def _check_age(tree: ast.Module, text: str, data: bytes, minor: int) -> None:
    if minor < 11:
        for node in ast.walk(tree):
            # ``a[*b]`` is a tuple that begins where its first item does; ``a[(*b,)]`` begins at the bracket.
            if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
                items = node.slice.elts
                star = next((item for item in items if isinstance(item, ast.Starred)), None)
                if star is not None and items[0].col_offset == node.slice.col_offset:
                    line = data.split(b"\n")[star.lineno - 1]
                    column = len(line[: star.col_offset].decode("utf-8", "replace")) + 1
                    raise _TooNewError("a star in an index", 11, star.lineno, column)
    if minor < 12 <= _RUNNING and re.search(r"(?i)f[\"']|fr[\"']", text):
        _check_formatted(text)


_OTHER_STRINGS = "a quote, backslash or comment in the braces of an f-string"


def _check_formatted(text: str) -> None:
    """Find f-strings that only PEP 701 allows; on Python 3.12 and newer, whose `tokenize` tells their parts."""
    start, end = getattr(tokenize, "FSTRING_START", -1), getattr(tokenize, "FSTRING_END", -1)
    open_quotes: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        found = False
        if token.type == start:
            quote = token.string.lstrip("frFR")
            found = any(quote[0] == outer[0] and len(quote) >= len(outer) for outer in open_quotes)
            open_quotes.append(quote)
        elif token.type == end:
            open_quotes.pop()
        elif open_quotes and token.type == tokenize.STRING:
            quote = re.sub(r"(?s)^[a-zA-Z]*(\"\"\"|'''|\"|').*", r"\1", token.string)
            found = "\\" in token.string or any(
                outer in token.string or (quote[0] == outer[0] and len(outer) == 1) for outer in open_quotes
            )
        elif open_quotes and token.type == tokenize.COMMENT:
            found = True
        elif open_quotes and token.type == tokenize.NL:
            found = any(len(outer) == 1 for outer in open_quotes)
        if found:
            raise _TooNewError(_OTHER_STRINGS, 12, token.start[0], token.start[1] + 1)


_BLOCKS = (ast.mod, ast.stmt, ast.ExceptHandler, ast.match_case)
_PLACED = (ast.expr, ast.stmt, ast.excepthandler, ast.arg, ast.keyword, ast.alias, ast.pattern)


class _Uniform(ast.NodeTransformer):
    """Turn ``type X = …``, which only Python 3.12 and newer have a node for, to what it is on older ones."""

    def visit_TypeAlias(self, node: ast.AST) -> ast.AST:
        name, value = vars(node)["name"], vars(node)["value"]
        target = ast.copy_location(ast.Name(name.id, ast.Store()), name)
        annotation = ast.copy_location(ast.Name(TYPE_ALIAS, ast.Load()), node)
        return ast.copy_location(ast.AnnAssign(target, annotation, value, 1), node)

    def visit(self, node: ast.AST) -> ast.AST:
        # Expressions hold no statements: only blocks are looked through.
        return super().visit(node) if isinstance(node, _BLOCKS) else node


# ---- syntax that the running Python does not know


@dataclass(frozen=True, slots=True)
class _Edit:
    """Bytes of the source to be written in older words.

    Attributes:
        what: The syntax, for an error.
        since: The Python 3 that knows it first.
    """

    start: int
    end: int
    text: str
    what: str
    since: int


def _parse_newer(text: str, data: bytes, minor: int, refused: SyntaxError) -> ast.Module:
    """Parse what `ast.parse` refused with the error ``refused``, which is raised again if it was right to."""
    from cogkit.project.schema.nesting import NestingError, check_nesting

    try:
        statements = check_nesting(text)
    except NestingError as error:
        if not _is_of_a_string(refused):
            raise refused from None
        if error.place is None:
            raise ValueError(str(error)) from None
        raise _syntax_error(str(error), text, error.place) from None
    found = _Newer(text)
    for start, end in pairwise([*statements, len(text)]):
        found.read(start, end)
    edits = found.edits
    if not edits:
        raise refused
    rewritten, places = _rewrite(data, edits)
    try:
        tree = ast.parse(rewritten, feature_version=(3, max(_OLDEST_FEATURES, min(minor, _RUNNING))))
    except SyntaxError as error:
        raise _at_its_place(error, rewritten, places, data) from None
    for edit in edits:
        if edit.since > minor:
            line, column = _Lines(data).place(edit.start)
            shown = data.split(b"\n")[line - 1][:column].decode("utf-8", "replace")
            raise _TooNewError(edit.what, edit.since, line, len(shown) + 1)
    places.move(tree)
    _Strings(found.strings).visit(tree)
    return tree


class _Newer:
    """Collects the edits of one source, and the values of the names that they put in the place of strings."""

    def __init__(self, text: str) -> None:
        self.edits: list[_Edit] = []
        self.strings: dict[str, ast.expr] = {}
        self._text = text
        self._prefix = "_cogkit_string"
        while self._prefix in text:
            self._prefix += "_"
        self._length = 0

    def read(self, start: int, end: int) -> None:
        """Look for newer syntax in a statement; only if it has some, since LibCST takes long.

        Raises:
            SyntaxError: It is not a statement in any grammar.
        """
        piece = self._text[start:end]
        try:
            ast.parse(piece)
            return
        except SyntaxError as error:
            refused = error
        self._length += len(piece)
        if self._length > MAX_NEWER:
            raise ValueError(f"more than {MAX_NEWER >> 10} KiB of it are for a newer Python than cogkit runs on")
        before = self._text[:start]
        try:
            edits = self._read(piece, len(before.encode()), refused)
        except SyntaxError as error:
            if not error.lineno:
                raise
            line = error.lineno + before.count("\n")
            raise SyntaxError(error.msg, ("", line, error.offset, None)) from None
        self.edits += edits

    def _read(self, piece: str, offset: int, refused: SyntaxError) -> list[_Edit]:
        import libcst
        from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper

        try:
            wrapper = MetadataWrapper(libcst.parse_module(piece), unsafe_skip_copy=True)
            spans = wrapper.resolve(ByteSpanPositionProvider)
        except libcst.ParserSyntaxError as error:
            place = _LIBCST_PLACE.search(error.message)
            line, column = (int(place[1]), int(place[2])) if place is not None else (0, 0)
            # Of f-strings `ast.parse` says the first that it does not know, which may be none of what is wrong.
            if (line, column) <= (refused.lineno or 0, refused.offset or 0) or not _is_of_a_string(refused):
                raise refused from None
            raise SyntaxError("invalid syntax", ("", line, column, None)) from None
        except (libcst.CSTLogicError, libcst.CSTValidationError):
            raise refused from None
        except LookupError:  # how a RecursionError in the visitors of LibCST comes out
            raise RecursionError from None
        found = _Edits(wrapper.module, piece.encode(), offset, self._prefix, self.strings)
        seen = 0
        for node, span in sorted(spans.items(), key=lambda item: (item[1].start, -item[1].length)):
            if span.start >= seen:
                seen = max(seen, found.look_at(node, span.start, span.start + span.length))
        if not found.edits:
            raise refused
        return sorted(found.edits, key=lambda edit: edit.start)


class _Edits:
    """The edits of one statement; ``offset`` is where its bytes begin in the source."""

    def __init__(
        self, module: libcst.Module, data: bytes, offset: int, prefix: str, strings: dict[str, ast.expr]
    ) -> None:
        self.edits: list[_Edit] = []
        self.strings = strings
        self._module, self._data, self._offset, self._prefix = module, data, offset, prefix

    def look_at(self, node: libcst.CSTNode, start: int, end: int) -> int:
        """Note what is new in a node; the offset before which its parts are of no interest any more."""
        import libcst

        if isinstance(node, libcst.TypeParameters):
            has_default = any(param.default is not None for param in node.params)
            what, since = ("defaults of type parameters", 13) if has_default else ("type parameters", 12)
            self._edit(start, end, "", what, since)
            return end
        if isinstance(node, libcst.TypeAlias):
            value = end - len(self._module.code_for_node(node.value).encode())
            has_default = node.type_parameters is not None and any(
                param.default is not None for param in node.type_parameters.params
            )
            what, since = ("defaults of type parameters", 13) if has_default else ("the type statement", 12)
            self._edit(start, value, f"{node.name.value}: {TYPE_ALIAS} = ", what, since)
            return value
        if isinstance(node, libcst.ExceptHandler | libcst.ExceptStarHandler):
            self._look_at_handler(node, start)
            return start
        if isinstance(node, libcst.ConcatenatedString | libcst.FormattedString | libcst.TemplatedString):
            self._look_at_string(node, start, end)
            return end
        return end if isinstance(node, libcst.SimpleString) else start

    def _look_at_handler(self, node: libcst.ExceptHandler | libcst.ExceptStarHandler, start: int) -> None:
        import libcst

        if not isinstance(node.type, libcst.Tuple) or node.type.lpar or node.name is not None:
            return
        # The keyword, its star and spaces, then the names up to the colon.
        head = len("except")
        if isinstance(node, libcst.ExceptStarHandler):
            head += len(self._module.code_for_node(node.whitespace_after_except).encode()) + 1
            head += len(self._module.code_for_node(node.whitespace_after_star).encode())
        else:
            head += len(self._module.code_for_node(node.whitespace_after_except).encode())
        first = start + head
        last = first + len(self._module.code_for_node(node.type).encode())
        what = "except of several without parentheses"
        self._edit(first, first, "(", what, 14)
        self._edit(last, last, ")", what, 14)

    def _look_at_string(self, node: libcst.BaseString, start: int, end: int) -> None:
        import libcst

        parts = list(_flat(node))
        if any(isinstance(part, libcst.TemplatedString) for part in parts):
            self._put(start, end, None, "t-strings", 14)
            return
        if not any(isinstance(part, libcst.FormattedString) for part in parts):
            return
        try:
            ast.parse(b"(" + self._data[start:end] + b")")
        except SyntaxError:
            value = ast.JoinedStr(_merged([piece for part in parts for piece in self._pieces(part)]))
            self._put(start, end, value, _OTHER_STRINGS, 12)

    def _edit(self, start: int, end: int, text: str, what: str, since: int) -> None:
        self.edits.append(_Edit(self._offset + start, self._offset + end, text, what, since))

    def _put(self, start: int, end: int, value: ast.expr | None, what: str, since: int) -> None:
        """Put the call of a name in the place of a string: an expression, but nothing that can be assigned to."""
        name = f"{self._prefix}{len(self.strings)}"
        # The value of a t-string is not text: nothing that can be known.
        self.strings[name] = value or ast.Call(ast.Name("t", ast.Load()), [], [])
        before, after = self._data[:start][-1:], self._data[end : end + 1]
        left = " " if before.isalnum() or before == b"_" else ""
        self._edit(start, end, f"{left}{name}(){' ' if after.isalnum() or after == b'_' else ''}", what, since)

    def _pieces(self, part: libcst.BaseString) -> Iterator[ast.expr]:
        import libcst

        if isinstance(part, libcst.FormattedString):
            raw = "r" in part.prefix.lower()
            yield from self._contents(part.parts, raw, part.end, spec=False)
        elif isinstance(part, libcst.SimpleString):
            value = ast.literal_eval(part.value)
            if not isinstance(value, str):
                raise SyntaxError("cannot mix bytes and nonbytes literals")
            yield ast.Constant(value)

    def _contents(
        self, parts: Sequence[libcst.BaseFormattedStringContent], raw: bool, quote: str, spec: bool
    ) -> Iterator[ast.expr]:
        import libcst

        for part in parts:
            if isinstance(part, libcst.FormattedStringText):
                text = part.value if spec else part.value.replace("{{", "{").replace("}}", "}")
                yield ast.Constant(ast.literal_eval(f"{'r' if raw else ''}{quote}{text}{quote}"))
            elif isinstance(part, libcst.FormattedStringExpression):
                yield from self._field(part, raw, quote)

    def _field(self, part: libcst.FormattedStringExpression, raw: bool, quote: str) -> Iterator[ast.expr]:
        code = self._module.code_for_node
        conversion = ord(part.conversion) if part.conversion else -1
        if part.equal is not None:
            yield ast.Constant(code(part.whitespace_before_expression) + code(part.expression) + code(part.equal))
            if conversion == -1 and part.format_spec is None:
                conversion = ord("r")
        spec = None
        if part.format_spec is not None:
            spec = ast.JoinedStr(_merged(list(self._contents(part.format_spec, raw, quote, spec=True))))
        yield ast.FormattedValue(parse_expression(code(part.expression)), conversion, spec)


def _is_of_a_string(error: SyntaxError) -> bool:
    return (error.msg or "").startswith("f-string")


def _syntax_error(message: str, text: str, place: int) -> SyntaxError:
    before = text[:place]
    return SyntaxError(message, ("", before.count("\n") + 1, place - before.rfind("\n"), None))


def _flat(node: libcst.BaseString) -> Iterator[libcst.BaseString]:
    import libcst

    while isinstance(node, libcst.ConcatenatedString):
        yield node.left
        node = node.right
    yield node


def _merged(pieces: list[ast.expr]) -> list[ast.expr]:
    """Neighbouring texts as one, as Python has them."""
    result: list[ast.expr] = []
    for piece in pieces:
        last = result[-1] if result else None
        if isinstance(piece, ast.Constant) and isinstance(last, ast.Constant):
            last.value = str(last.value) + str(piece.value)
        elif not (isinstance(piece, ast.Constant) and piece.value == ""):
            result.append(piece)
    return result


class _Strings(ast.NodeTransformer):
    """Put the strings where their names stand, with the names' places."""

    def __init__(self, strings: dict[str, ast.expr]) -> None:
        self._strings = strings

    def visit_Call(self, node: ast.Call) -> ast.AST:
        value = self._strings.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if value is None:
            return self.generic_visit(node)
        for part in ast.walk(value):
            if "lineno" in part._attributes:
                ast.copy_location(part, node)
        return value


class _Lines:
    """Offsets of a text in UTF-8 as lines and columns (in bytes, from 0), and back."""

    def __init__(self, data: bytes) -> None:
        self._starts = [0, *(match.end() for match in re.finditer(rb"\n", data))]

    def place(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1]

    def offset(self, line: int, column: int) -> int:
        return self._starts[min(line, len(self._starts)) - 1] + column


class _Places:
    """Where in the source the places of the rewritten text are."""

    def __init__(self, data: bytes, rewritten: bytes, edits: list[tuple[int, int, _Edit]]) -> None:
        self._old, self._new = _Lines(data), _Lines(rewritten)
        self._edits = edits
        self._starts = [start for start, _, _ in edits]

    def old(self, line: int, column: int, is_end: bool) -> tuple[int, int]:
        offset = self._new.offset(line, column)
        index = bisect_right(self._starts, offset) - 1
        if index >= 0:
            _, end, edit = self._edits[index]
            inside = offset < end or (is_end and offset == end)
            offset = (edit.end if is_end else edit.start) if inside else edit.end + offset - end
        return self._old.place(offset)

    def move(self, tree: ast.AST) -> None:
        for node in ast.walk(tree):
            if isinstance(node, _PLACED):
                node.lineno, node.col_offset = self.old(node.lineno, node.col_offset, False)
                if node.end_lineno is not None and node.end_col_offset is not None:
                    node.end_lineno, node.end_col_offset = self.old(node.end_lineno, node.end_col_offset, True)


def _rewrite(data: bytes, edits: list[_Edit]) -> tuple[str, _Places]:
    parts: list[bytes] = []
    placed: list[tuple[int, int, _Edit]] = []
    at = length = 0
    for edit in edits:
        kept, new = data[at : edit.start], edit.text.encode()
        parts += kept, new
        length += len(kept)
        placed.append((length, length + len(new), edit))
        length += len(new)
        at = edit.end
    parts.append(data[at:])
    rewritten = b"".join(parts)
    return rewritten.decode(), _Places(data, rewritten, placed)


def _at_its_place(error: SyntaxError, rewritten: str, places: _Places, data: bytes) -> SyntaxError:
    """The error with the place in the source as it was."""
    if not error.lineno or not error.offset or error.offset < 1:
        return SyntaxError(error.msg)
    lines = rewritten.split("\n")
    line = lines[error.lineno - 1] if error.lineno <= len(lines) else ""
    number, column = places.old(error.lineno, len(line[: error.offset - 1].encode()), False)
    shown = data.split(b"\n")[number - 1][:column].decode("utf-8", "replace")
    return SyntaxError(error.msg, ("", number, len(shown) + 1, None))
