"""`Batch`, what the walk of a tree hands on: neighbouring entries, as the packets that describe them.

A walk makes batches in its thread, `Sender` keeps of them what it must know when the receiver asks for content, and
their packets go out.  An entry is encoded as soon as it is seen: an object for each would cost a tenth of the walk.
"""

from __future__ import annotations

from typing import Final

from cogkit.buildkit.fsutil.packet import encode_file, encode_stat
from cogkit.buildkit.fsutil.stat import Stat

NO_CONTENT: Final = 0
"""Not a regular file, or asked for already."""
READABLE: Final = 1
WITHHELD: Final = 2
"""A file that is to be sent as if it were empty."""


class Batch:
    """Neighbouring entries of a walk, in order.

    Attributes:
        packets: The STAT packet of each.
        paths: The path of each.
        content: One byte for each: `NO_CONTENT`, `READABLE` or `WITHHELD`.
    """

    __slots__ = ("content", "packets", "paths")

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.paths: list[bytes] = []
        self.content = bytearray()

    def __len__(self) -> int:
        return len(self.packets)

    def add(self, stat: Stat) -> None:
        """Describe an entry of any kind."""
        self.packets.append(encode_stat(stat))
        self.paths.append(stat.path)
        self.content.append(READABLE if stat.has_content else NO_CONTENT)

    def add_file(self, path: bytes, mode: int, size: int, mod_time: int) -> None:
        """Describe root's regular file with one name and no extended attributes (see `encode_file`)."""
        self.packets.append(encode_file(path, mode, size, mod_time))
        self.paths.append(path)
        self.content.append(READABLE)

    def replace(self, place: int, stat: Stat) -> None:
        """Describe the entry in a place anew; its path and its kind must be the same."""
        self.packets[place] = encode_stat(stat)

    def withhold(self, place: int = -1) -> None:
        """Send the file in a place, the last one if none is given, as if it were empty."""
        if self.content[place]:
            self.content[place] = WITHHELD
