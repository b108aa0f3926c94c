"""A terminal's screen, as far as the live view uses one: cursor up, erase, wrapped lines, and what scrolls away."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """Takes text and shows what a terminal of that size would."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self.cursor_shown = True
        self.scrolled: list[str] = []
        self._lines: list[list[str]] = [[]]
        self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        """All lines, those that scrolled away first, without blanks at their ends."""
        shown = ["".join(line).rstrip() for line in self._lines]
        return [*self.scrolled, *shown]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip("\n")

    def resize(self, columns: int) -> None:
        """Make the window narrower or wider; lines are wrapped anew, as xterm's successors do."""
        content = self._lines
        self.columns, self._lines, self._row, self._column = columns, [], 0, 0
        for line in content:
            text = "".join(line).rstrip()
            pieces = [text[start : start + columns] for start in range(0, max(len(text), 1), columns)]
            self._lines += [list(piece) for piece in pieces]
        self._row = len(self._lines) - 1
        self._scroll()

    def feed(self, text: str) -> None:
        position = 0
        while position < len(text):
            control = _CONTROL.match(text, position)
            if control:
                self._obey(control[1], control[2])
                position = control.end()
            else:
                self._put(text[position])
                position += 1

    def _obey(self, argument: str, letter: str) -> None:
        count = int(argument) if argument.isdigit() else 1
        match letter:
            case "A":
                self._row = max(0, self._row - count)
            case "K":
                assert argument == "2", argument
                self._lines[self._row] = []
            case "J":
                self._lines[self._row] = self._lines[self._row][: self._column]
                del self._lines[self._row + 1 :]
            case "h" | "l":
                assert argument == "?25", argument
                self.cursor_shown = letter == "h"
            case "m":
                pass
            case _:
                raise AssertionError(f"an unexpected control sequence: {argument}{letter}")

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._down()
        else:
            assert char.isprintable(), repr(char)
            if self._column == self.columns:
                self._down()
            line = self._lines[self._row]
            line += [" "] * (self._column - len(line) + 1)
            line[self._column] = char
            self._column += 1

    def _down(self) -> None:
        self._row += 1
        self._column = 0
        if self._row == len(self._lines):
            self._lines.append([])
        self._scroll()

    def _scroll(self) -> None:
        while len(self._lines) > self.rows:
            self.scrolled.append("".join(self._lines.pop(0)).rstrip())
            self._row -= 1
