"""When to ask again, and when to give up: 429 with or without ``Retry-After``, 5xx, connections that break.

Pure: who waits is the caller, and the clock and the dice are given, so a test needs no time.  This file must not sleep
or send.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import field
from email.utils import parsedate_to_datetime

from cogkit.fast_dataclass import dataclass

TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that another time may not be given again."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How patient to be.

    Attributes:
        first: Seconds before the first repetition.
        ceiling: Seconds between two repetitions at most, unless the other side asks for more.
        patience: Seconds of waiting without any progress after which it is given up.
        asked_at_most: Seconds that the other side can ask for; more is a refusal.
    """

    first: float = 0.5
    ceiling: float = 30.0
    patience: float = 180.0
    asked_at_most: float = 120.0

    def start(self, dice: Callable[[], float] = random.random) -> Retry:
        return Retry(self, dice)


@dataclass(slots=True)
class Retry:
    """The repetitions of one operation.

    Attributes:
        waited: Seconds since the last progress.
    """

    rules: Backoff
    dice: Callable[[], float] = random.random
    waited: float = 0.0
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        self._next = self.rules.first

    def progressed(self) -> None:
        """Something arrived: begin from the start again."""
        self.waited = 0.0
        self._next = self.rules.first

    def delay(self, asked: float | None = None) -> float | None:
        """Seconds to wait before the next attempt; None to give up.

        Args:
            asked: What ``Retry-After`` says.
        """
        if self.waited >= self.rules.patience or (asked is not None and asked > self.rules.asked_at_most):
            return None
        # Between half and all of it, so that many who were refused together do not come back together.
        wait = self._next * (0.5 + self.dice() / 2)
        self._next = min(self._next * 2, self.rules.ceiling)
        wait = max(wait, asked or 0.0)
        self.waited += wait
        return wait


def retry_after(value: str, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for; None if it does not say.

    Args:
        value: Seconds or an HTTP date.
        now: Seconds since the epoch.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(parsedate_to_datetime(value).timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
