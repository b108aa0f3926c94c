"""One figure of two clients, and how it is shown beside its target and the checked-in ratio.

This file must not measure anything.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measure import OUR_NAME, THEIR_NAME

HEADER = ("case", OUR_NAME, THEIR_NAME, "ratio", "target", "checked in")
_STUDENT = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228}
"""Student's t for 95 %, two-sided, by degrees of freedom."""
_DIGITS = {"s": 2, "MiB": 0, "KiB": 1, "": 0}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        case: Name of the case that gave it.
        name: What of the case it is; together with ``case`` its name in ``ratios.json``.
        title: The same in words.
        ours, theirs: One figure for each round.
        unit: Of the figures; empty for a number of things.
        target: Greatest ratio of the medians that we want.
        most_more: Instead of ``target``: greatest difference of the medians that we want, in ``unit``.
        their_name: What cogkit is compared with.
    """

    case: str
    name: str
    title: str
    ours: Sequence[float]
    theirs: Sequence[float]
    unit: str = "s"
    target: float | None = None
    most_more: float | None = None
    their_name: str = THEIR_NAME

    @property
    def key(self) -> str:
        return f"{self.case}: {self.name}"

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def gated(self) -> float:
        """The figure that is checked in: of memory cogkit's own MiB, since the other client's varies; else `ratio`."""
        return statistics.median(self.ours) if self.unit == "MiB" else self.ratio

    @property
    def at_least(self) -> float:
        """What `gated` is at least, with 95 % confidence: from the ratios of the rounds, each a pair of neighbours.

        With fewer than three pairs nothing is known of how much they vary, and it is `gated` itself.
        """
        if self.unit == "MiB":
            return min(self.ours)
        if len(self.ours) != len(self.theirs) or len(self.ours) < 3:
            return self.gated
        logs = [math.log(ours / theirs) for ours, theirs in zip(self.ours, self.theirs, strict=True)]
        error = statistics.stdev(logs) / math.sqrt(len(logs))
        return math.exp(statistics.fmean(logs) - _STUDENT.get(len(logs) - 1, 2.0) * error)

    @property
    def reached(self) -> bool:
        if self.most_more is not None:
            return statistics.median(self.ours) - statistics.median(self.theirs) <= self.most_more
        return self.target is None or self.ratio <= self.target

    def cells(self, checked_in: Mapping[str, float]) -> list[str]:
        """The columns of `HEADER`; a target that was missed is marked."""
        if self.most_more is not None:
            wanted = f"+{self.most_more:.2f} {self.unit}"
        else:
            wanted = "" if self.target is None else f"{self.target:.2f}"
        if not self.reached:
            wanted = f"**{wanted}, missed**"
        theirs = _figures(self.theirs, self.unit) + ("" if self.their_name == THEIR_NAME else f" ({self.their_name})")
        before = checked_in.get(self.key)
        return [
            self.title,
            _figures(self.ours, self.unit),
            theirs,
            f"{self.ratio:.2f}",
            wanted,
            "" if before is None else f"{before:.0f} MiB" if self.unit == "MiB" else f"{before:.2f}",
        ]


def markdown(rows: Sequence[Row], checked_in: Mapping[str, float]) -> str:
    """The rows as a table."""
    lines = [HEADER, ["---"] * len(HEADER), *(row.cells(checked_in) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _figures(samples: Sequence[float], unit: str) -> str:
    """Median, and in brackets from least to greatest."""
    digits = _DIGITS[unit]
    middle, least, most = (f"{value:.{digits}f}" for value in (statistics.median(samples), min(samples), max(samples)))
    return f"{middle} {unit}".rstrip() + ("" if least == most else f" ({least} to {most})")
