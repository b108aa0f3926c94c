"""How ``cogkit context`` shows its report: as text for people, or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from cogkit.building.context_report import ContextReport, LeftOut
from cogkit.cli.ui.text import byte_size, one_line

MOST_FOLDERS = 10
MOST_FILES = 10
MOST_PATHS = 3


def as_json(report: ContextReport) -> str:
    """One document; bytes of a name that are not UTF-8 are lone surrogates, as Python writes them."""
    document = {
        "context": str(report.root),
        "ignore_file": None if report.ignore_file is None else str(report.ignore_file),
        "total": {"files": len(report.files), "folders": len(report.folders), "bytes": report.size},
        "files": [{"path": file.path, "bytes": file.size} for file in report.files],
        "folders": [{"path": each.path, "files": each.files, "bytes": each.size} for each in report.folders],
        "left_out": [
            {
                "pattern": each.pattern,
                "line": each.line,
                "paths": list(each.paths),
                "files": each.files,
                "bytes": each.size,
            }
            for each in report.left_out
        ],
        "hidden": list(report.hidden),
        "warnings": list(report.warnings),
    }
    return json.dumps(document, indent=2) + "\n"


def as_text(report: ContextReport) -> str:
    """A few paragraphs: the sum, the biggest folders and files, what leaves out what."""
    total = f"{_count(len(report.files), 'file')} in {_count(len(report.folders), 'folder')}"
    blocks = [[f"{_printable(report.root)}: {byte_size(report.size, 1)}, {total}"]]
    blocks.append(
        _block(
            "biggest folders",
            ((each.size, each.files, f"{one_line(each.path)}/") for each in report.notable_folders(MOST_FOLDERS)),
        )
    )
    biggest = sorted(report.files, key=lambda file: -file.size)[:MOST_FILES]
    blocks.append(_block("biggest files", ((file.size, None, one_line(file.path)) for file in biggest if file.size)))
    blocks.append(
        _block("left out", ((each.size, each.files, _reason(each, report.ignore_file)) for each in report.left_out))
    )
    if report.hidden:
        blocks.append(["never sent", *(f"  {name}/" for name in report.hidden)])
    if report.ignore_file is None and report.warnings:
        blocks.append(["no .dockerignore holds: everything is sent"])
    elif report.ignore_file is None:
        blocks.append(["there is no .dockerignore: everything is sent"])
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _block(title: str, rows: Iterable[tuple[int, int | None, str]]) -> list[str]:
    lines = []
    for size, files, text in rows:
        counted = "" if files is None else f"  {_count(files, 'file'):>13}"
        lines.append(f"  {byte_size(size, 1):>8}{counted}  {text}")
    return [title, *lines] if lines else []


def _reason(left_out: LeftOut, ignore_file: Path | None) -> str:
    where = f"{_printable(ignore_file)}:{left_out.line}" if ignore_file else ""
    shown = ", ".join(one_line(path) for path in left_out.paths[:MOST_PATHS])
    more = f", … {len(left_out.paths) - MOST_PATHS} more" if len(left_out.paths) > MOST_PATHS else ""
    return f"{one_line(left_out.pattern)} ({where}): {shown}{more}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _printable(path: Path) -> str:
    """A path as short as it can be from where the user stands."""
    relative = os.path.relpath(path)
    return one_line(str(path) if relative.startswith("..") else relative)
