"""What models sent to the playground's webhooks, kept in memory until the page has it.

Bounded in every way: a box holds the newest deliveries only, and there are so many boxes.  A model sends the whole
prediction each time, so an older delivery that is gone costs nothing but the steps in between.  This file must not know
of HTTP.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator

DELIVERY_LIMIT = 16 * 1024 * 1024
"""Most bytes of one delivery."""
BOX_LIMIT = 16 * 1024 * 1024
"""Most bytes that a box keeps; the newest delivery is always kept."""
BOX_DELIVERIES = 256
MOST_BOXES = 16

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Webhooks:
    """Boxes by the id of a prediction; a box exists from when the page asks for it."""

    def __init__(self) -> None:
        self._boxes: dict[str, _Box] = {}

    def open(self, id: str) -> bool:
        """Make a box, at the cost of the oldest if there are too many; False if ``id`` cannot be one."""
        if not _ID.fullmatch(id):
            return False
        if id not in self._boxes:
            while len(self._boxes) >= MOST_BOXES:
                self._boxes.pop(next(iter(self._boxes))).close()
            self._boxes[id] = _Box()
        return True

    def deliver(self, id: str, body: bytes) -> bool:
        """Keep a delivery; False if nobody asked for it."""
        box = self._boxes.get(id)
        if box is None:
            return False
        box.put(body)
        return True

    async def deliveries(self, id: str, after: int = 0) -> AsyncIterator[tuple[int, bytes]]:
        """Every delivery with its number, those that are there and those to come, until the box is closed."""
        box = self._boxes.get(id)
        while box is not None:
            found = [each for each in box.kept if each[0] > after]
            for number, body in found:
                after = number
                yield number, body
            if not found:
                if box.is_closed:
                    return
                await box.changed()


class _Box:
    """The deliveries of one prediction."""

    def __init__(self) -> None:
        self.kept: deque[tuple[int, bytes]] = deque()
        self.is_closed = False
        self._size = 0
        self._count = 0
        self._news = asyncio.Event()

    def put(self, body: bytes) -> None:
        self._count += 1
        self._size += len(body)
        self.kept.append((self._count, body))
        while len(self.kept) > 1 and (self._size > BOX_LIMIT or len(self.kept) > BOX_DELIVERIES):
            self._size -= len(self.kept.popleft()[1])
        self._wake()

    def close(self) -> None:
        self.is_closed = True
        self._wake()

    async def changed(self) -> None:
        await self._news.wait()

    def _wake(self) -> None:
        # Whoever waits holds the old event; who comes later looks at `kept` first.
        self._news.set()
        self._news = asyncio.Event()
