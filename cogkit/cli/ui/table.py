"""Tables of text: columns that line up, without lines between them.

This file must not know what is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cogkit.cli.ui.text import one_line

_GAP = "   "


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A heading and rows, each ending with a newline; cells are made harmless for a terminal."""
    cells = [list(heading), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heading))]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def fields(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values below each other."""
    cells = [(name, one_line(value)) for name, value in rows]
    width = max((len(name) for name, _ in cells), default=0) + 1
    return "".join(f"{f'{name}:':<{width}} {value}".rstrip() + "\n" for name, value in cells)
