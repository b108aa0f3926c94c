"""The ratios that are checked in, and what of a run is a regression from them.

A figure's *ratio* is cogkit's by the other client's, so it means the same on every machine; of memory it is cogkit's
own MiB, because the other client's varies by half from machine to machine.  A run is compared with ``ratios.json``: a
figure is a regression if it is more than `TOLERANCE` above the one there with 95 % confidence, judged by the pairs of
the rounds, and is so again when its case is measured once more.  This file must not measure anything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Row

TOLERANCE = 0.15
"""Share by which a ratio may be above the checked-in one."""

_ABOUT = (
    "Medians of cogkit by medians of buildctl, by case and figure; of memory, cogkit's own MiB. `make bench` fails when"
    " one is surely more than 15 % above; `make bench BENCH=--renew` writes them."
)


@dataclass(frozen=True)
class Regression:
    """A figure whose ratio grew."""

    row: Row
    checked_in: float

    def __str__(self) -> str:
        more = self.row.gated / self.checked_in - 1
        return f"{self.row.key}: {self.row.gated:.2f}, checked in is {self.checked_in:.2f} ({more:+.0%})"


def load(path: Path) -> dict[str, float]:
    """The checked-in ratios by `Row.key`; none if there is no such file."""
    if not path.exists():
        return {}
    read = json.loads(path.read_text())
    return {str(key): float(ratio) for key, ratio in read["ratios"].items()}


def renewed(path: Path, rows: Sequence[Row]) -> str:
    """The file's text with the ratios of these rows, and all others as they are."""
    ratios = load(path) | {row.key: round(row.gated, 3) for row in rows}
    return json.dumps({"about": _ABOUT, "ratios": dict(sorted(ratios.items()))}, indent=2) + "\n"


def regressions(rows: Sequence[Row], checked_in: Mapping[str, float]) -> list[Regression]:
    """The rows that are surely more than `TOLERANCE` above what is checked in; those without are passed over."""
    return [
        Regression(row, checked_in[row.key])
        for row in rows
        if row.key in checked_in and row.at_least > checked_in[row.key] * (1 + TOLERANCE)
    ]


def confirmed(
    rows: Sequence[Row], checked_in: Mapping[str, float], measure_again: Callable[[str], Sequence[Row]]
) -> tuple[list[Row], list[Regression]]:
    """The rows, and what is a regression also at a second look.

    Args:
        rows: What was measured.
        checked_in: What to compare with.
        measure_again: Measures the case of that name again; called once for each case with a regression.

    Returns:
        The rows, those that had seemed a regression with the better of their two measurements; and the regressions.
    """
    suspects = {found.row.key for found in regressions(rows, checked_in)}
    again: dict[str, Row] = {}
    for name in dict.fromkeys(row.case for row in rows if row.key in suspects):
        again |= {row.key: row for row in measure_again(name)}
    kept = [
        min(row, again[row.key], key=lambda each: each.gated) if row.key in suspects and row.key in again else row
        for row in rows
    ]
    return kept, regressions(kept, checked_in)
