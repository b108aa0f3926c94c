"""Answers of the frontend as text on standard output, word for word as buildx prints them (``commands/build.go``)."""

from __future__ import annotations

from collections.abc import Mapping

from cogkit.building.call import LINT, CallSpec, LintReport, LintWarning, read_lint_report
from cogkit.buildkit.errors import BuildError
from cogkit.cli.ui.text import harmless


def answer_text(call: CallSpec, answer: Mapping[str, str], *, filename: str | None = None) -> str:
    """The answer to one ``--call``.

    Args:
        call: The question.
        answer: What the frontend said.
        filename: What the user calls the Dockerfile.

    Raises:
        BuildError: the answer makes no sense.
    """
    if call.format == "json":
        return f"{answer.get('result.json', '')}\n"
    if call.name == LINT:
        return _lint_text(read_lint_report(answer.get("result.json", ""), filename=filename))
    # The frontend's own text is what buildx would make of the JSON.
    return harmless(answer.get("result.txt", ""))


def answer_error(call: CallSpec, answer: Mapping[str, str], *, filename: str | None = None) -> BuildError | None:
    """What kept a check from its end, to be told after its warnings."""
    if call.name != LINT:
        return None
    error = read_lint_report(answer.get("result.json", ""), filename=filename).error
    if error is None:
        return None
    place = error.location
    where = None if place is None or not place.line else f"{place.info.filename}:{place.line}"
    return BuildError(error.detail, where=where, detail=place.excerpt() if place is not None else None)


def exit_code(call: CallSpec, answer: Mapping[str, str]) -> int:
    """What the answer makes the command end with: a check that found something ends with 1."""
    status = answer.get("result.statuscode", "")
    return int(status) & 0xFF if status.isascii() and status.isdigit() and not call.ignore_status else 0


def _lint_text(report: LintReport) -> str:
    count = len(report.warnings)
    if not count:
        return "" if report.error is not None else "Check complete, no warnings found.\n"
    found = "1 warning has been found!" if count == 1 else f"{count} warnings have been found!"
    return f"Check complete, {found}\n" + "".join(map(_warning_text, report.warnings))


def _warning_text(warning: LintWarning) -> str:
    heading = f"WARNING: {warning.rule}" + (f" - {warning.url}" if warning.url else "")
    excerpt = warning.location.excerpt() if warning.location is not None else ""
    return harmless(f"\n{heading}\n{warning.detail}\n" + (f"{excerpt}\n" if excerpt else ""))
