"""Text for terminals: made harmless, and numbers in the form in which BuildKit shows them.

What a build step prints is not ours; a terminal obeys escape sequences in it.  Colours pass, everything that moves the
cursor, clears the screen, sets titles or talks back does not.  This file must not write anything.
"""

from __future__ import annotations

import re

RESET = "\x1b[0m"

_ESCAPES = re.compile(
    r"""
    (?P<color> \x1b\[ [0-9;:]* m )
    | (?: \x1b\[ | \x9b ) [0-?]* [ -/]* [@-~]?              # a control sequence
    | (?: \x1b[]PX^_] | [\x90\x98\x9d-\x9f] ) [^\x07\x1b\x9c]* (?: \x07 | \x9c | \x1b\\ )?   # a string, such as a title
    | \x1b [ -/]* [0-~]?                                    # a short escape
    | [\x00-\x08\x0b-\x1f\x7f-\x9f]                         # any other control character but tab and newline
    | [\u202a-\u202e\u2066-\u2069\u2028\u2029]              # changes of writing direction, hidden line ends
    | [\ud800-\udfff]                                       # bytes of a name that are not UTF-8
    """,
    re.VERBOSE,
)
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str, *, colors: bool = False) -> str:
    """``text`` without what a terminal would obey; ``colors`` keeps those, and ends them with the text."""
    if not _HARMFUL.search(text):
        return text
    colored = False

    def replaced(match: re.Match[str]) -> str:
        nonlocal colored
        if colors and match["color"]:
            colored = True
            return match["color"]
        found = match[0]
        return "\ufffd" if "\ud800" <= found <= "\udfff" else ""

    text = _ESCAPES.sub(replaced, text)
    return text + RESET if colored and not text.endswith((RESET, "\x1b[m")) else text


def one_line(text: str) -> str:
    """``text`` without escapes, colours and line ends, for use inside a line of ours."""
    return harmless(text).replace("\n", " ").replace("\t", " ")


def byte_size(count: int, digits: int = 2) -> str:
    """A number of bytes with a decimal unit: ``123B``, ``1.23kB`` (as ``tonistiigi/units`` writes it)."""
    if abs(count) < 1000:
        return f"{count}B"
    value, units = count / 1000, ["kB", "MB", "GB", "TB", "PB", "EB"]
    while abs(value) >= 1000:
        value /= 1000
        units.pop(0)
    return f"{value:.{digits}f}{units[0]}"


def cells(text: str) -> int:
    """Columns that ``text`` takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def fit(text: str, columns: int) -> str:
    """``text`` cut to at most ``columns``."""
    if text.isascii():
        return text[: max(columns, 0)]
    from rich.cells import cell_len, set_cell_size

    return text if cell_len(text) <= columns else set_cell_size(text, max(columns, 0))
