"""Arbitrary bytes as a sequence of decisions, in the same way with and without a fuzzer."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


class Input:
    """Takes decisions from the front of some bytes; when they are used up, every decision is 0 or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether anything is left."""
        return self._at < len(self._data)

    def number(self, below: int) -> int:
        """A number from 0 to ``below`` - 1."""
        size = 1 if below <= 1 << 8 else 2 if below <= 1 << 16 else 4 if below <= 1 << 32 else 8
        return int.from_bytes(self.take(size), "little") % below

    def pick(self, choices: tuple[T, ...]) -> T:
        return choices[self.number(len(choices))]

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, or what is left."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken

    def short(self) -> bytes:
        """Up to 255 bytes, after one that says how many."""
        return self.take(self.number(256))

    def rest(self) -> bytes:
        return self.take(len(self._data))
