"""The parts of Go's ``path/filepath`` (Unix) whose exact results the file-sync protocol depends on.

The daemon's patterns and follow-paths were made for Go code, so `clean`, `join` and `match` must give what Go gives,
also on odd input.  Pure functions; this file must not touch the disk.

Paths are ``str`` decoded from bytes as UTF-8 with ``surrogateescape``, so that every byte sequence is a path and equal
paths are equal strings.
"""

from __future__ import annotations

GO_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f"
    "\u205f\u3000"
)
"""What ``strings.TrimSpace`` removes (``unicode.IsSpace``); ``str.strip()`` would also take the ASCII separators."""

RUNE_ERROR = 0xFFFD


class BadPattern(Exception):
    """``filepath.ErrBadPattern``: the pattern cannot be read."""

    def __init__(self) -> None:
        super().__init__("syntax error in pattern")


def to_str(path: bytes) -> str:
    """Bytes of a path as the ``str`` this package matches on."""
    return path.decode("utf-8", "surrogateescape")


def to_bytes(path: str) -> bytes:
    """The inverse of `to_str`."""
    return path.encode("utf-8", "surrogateescape")


def valid(text: str) -> str:
    """Text with U+FFFD for every byte that is not UTF-8, so that it can be encoded strictly."""
    if text.isascii():
        return text
    return "".join(chr(RUNE_ERROR) if 0xDC80 <= ord(char) <= 0xDCFF else char for char in text)


def clean(path: str) -> str:
    """``filepath.Clean``: the shortest equivalent path, by text alone; ``"."`` for the empty path."""
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "..":
            parts.pop()
        elif not rooted:
            parts.append("..")
    joined = "/".join(parts)
    if rooted:
        return "/" + joined
    return joined or "."


def join(*elements: str) -> str:
    """``filepath.Join``: the non-empty elements joined and cleaned; empty if all are."""
    joined = "/".join(element for element in elements if element)
    return clean(joined) if joined else ""


def parent(path: str) -> str:
    """``filepath.Dir``: everything before the last separator, cleaned."""
    return clean(path[: path.rfind("/") + 1])


def base(path: str) -> str:
    """``filepath.Base``: the last element."""
    if not path:
        return "."
    stripped = path.rstrip("/")
    return stripped[stripped.rfind("/") + 1 :] if stripped else "/"


def decode_rune(data: bytes, at: int) -> tuple[int, int]:
    """``utf8.DecodeRune`` at an offset: the code point and its width; (U+FFFD, 1) for an invalid byte."""
    lead = data[at]
    if lead < 0x80:
        return lead, 1
    width = 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 0
    if not width:
        return RUNE_ERROR, 1
    try:
        return ord(data[at : at + width].decode("utf-8")), width
    except UnicodeDecodeError:
        return RUNE_ERROR, 1


def match(pattern: bytes, name: bytes) -> bool:
    """``filepath.Match``: whether the shell pattern matches all of name.

    Works on bytes because Go's does: a ``*`` may end inside a multi-byte character.

    Raises:
        BadPattern: the pattern is malformed; like Go, only if the matching got as far as the malformed part.
    """
    while pattern:
        star, chunk, pattern = _scan_chunk(pattern)
        if star and not chunk:
            return b"/" not in name
        rest = _match_chunk(chunk, name)
        if rest is not None and (not rest or pattern):
            name = rest
            continue
        if not star:
            return False
        for skip in range(len(name)):
            if name[skip] == 0x2F:
                return False
            rest = _match_chunk(chunk, name[skip + 1 :])
            if rest is not None and (not rest or pattern):
                name = rest
                break
        else:
            return False
    return not name


def _scan_chunk(pattern: bytes) -> tuple[bool, bytes, bytes]:
    """The next piece without a star in it, whether a star goes before it, and what follows."""
    stripped = pattern.lstrip(b"*")
    star = len(stripped) != len(pattern)
    in_class = False
    at = 0
    while at < len(stripped):
        char = stripped[at]
        if char == 0x5C and at + 1 < len(stripped):  # backslash
            at += 1
        elif char == 0x5B:  # [
            in_class = True
        elif char == 0x5D:  # ]
            in_class = False
        elif char == 0x2A and not in_class:
            return star, stripped[:at], stripped[at:]
        at += 1
    return star, stripped, b""


def _match_chunk(chunk: bytes, text: bytes) -> bytes | None:
    """What is left of text after the chunk matched its start, or None; reads all of the chunk for its syntax."""
    failed = False
    at = 0  # in chunk
    pos = 0  # in text
    while at < len(chunk):
        failed = failed or pos == len(text)
        char = chunk[at]
        if char == 0x5B:
            rune = 0
            if not failed:
                rune, width = decode_rune(text, pos)
                pos += width
            at += 1
            negated = at < len(chunk) and chunk[at] == 0x5E  # ^
            at += negated
            hit = False
            count = 0
            while not (at < len(chunk) and chunk[at] == 0x5D and count):
                low, at = _class_char(chunk, at)
                high = low
                if chunk[at] == 0x2D:  # -
                    high, at = _class_char(chunk, at + 1)
                hit = hit or low <= rune <= high
                count += 1
            at += 1
            failed = failed or hit == negated
        elif char == 0x3F:  # ?
            if not failed:
                failed = text[pos] == 0x2F
                pos += decode_rune(text, pos)[1]
            at += 1
        else:
            if char == 0x5C:
                at += 1
                if at == len(chunk):
                    raise BadPattern
            if not failed:
                failed = chunk[at] != text[pos]
                pos += 1
            at += 1
    return None if failed else text[pos:]


def _class_char(chunk: bytes, at: int) -> tuple[int, int]:
    """One possibly escaped character of a class and the offset after it, which is inside the chunk."""
    if at == len(chunk) or chunk[at] in b"-]":
        raise BadPattern
    if chunk[at] == 0x5C:
        at += 1
        if at == len(chunk):
            raise BadPattern
    rune, width = decode_rune(chunk, at)
    if rune == RUNE_ERROR and width == 1:
        raise BadPattern
    at += width
    if at == len(chunk):
        raise BadPattern
    return rune, at
