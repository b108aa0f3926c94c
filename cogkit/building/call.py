"""Questions to the Dockerfile frontend instead of a build: ``--call check|outline|targets``, as buildx has them.

The frontend answers with ``result.json``, its text for people (``result.txt``) and a status.  Facts are from buildx
(``util/buildflags/callfunc.go``, ``commands/build.go``) and BuildKit's ``frontend/subrequests``.  This file must not
print anything.
"""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from cogkit.building.plan import FRONTEND
from cogkit.building.values import csv_fields, parse_bool
from cogkit.buildkit.errors import BuildError
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.errors import SourceLocation
    from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult

LINT = "lint"
SUBREQUESTS_CAPABILITY = "moby.buildkit.frontend.subrequests+forward"


@dataclass(frozen=True, slots=True)
class CallSpec:
    """One ``--call``.

    Attributes:
        name: What is asked: ``lint``, ``outline``, ``targets``, or another request of the frontend.
        format: ``json`` for the answer as it is.
        ignore_status: Do not make the answer's status the exit code.
    """

    name: str
    format: str = ""
    ignore_status: bool = False


def parse_call(value: str | None, *, flag: str = "--call") -> CallSpec | None:
    """``NAME[,format=json][,ignorestatus=true]``; None for ``build``, which is not a question.

    Raises:
        UsageError: two names, or a field that is not known.
    """
    if not value:
        return None
    name, form, ignore = "", "", False
    for part in csv_fields(flag, value):
        key, equals, text = part.partition("=")
        if not equals and not name:
            name = part
        elif key == "format" and equals:
            form = text
        elif key == "ignorestatus" and equals:
            ignore = parse_bool(flag, key, text)
        else:
            raise UsageError(
                f"{flag} {value}: {part!r} makes no sense there", hint=f"for example {flag} outline,format=json"
            )
    name = {"check": LINT}.get(name, name)
    return None if name == "build" else CallSpec(name, form, ignore)


def request_attrs(attrs: Mapping[str, str], call: CallSpec) -> dict[str, str]:
    """What the frontend is told, so that it answers instead of building."""
    caps = [cap for cap in attrs.get("frontend.caps", "").split(",") if cap]
    return {
        **attrs,
        "frontend.caps": ",".join([*caps, SUBREQUESTS_CAPABILITY]),
        "requestid": f"frontend.{call.name}",
    }


@dataclass(slots=True)
class CallFrontend:
    """The frontend of a solve that asks and builds nothing; has the answer when the solve has succeeded.

    Attributes:
        attrs: See `request_attrs`.
        frontend: Who is asked.
        answer: What the frontend said.
    """

    attrs: Mapping[str, str]
    frontend: str = FRONTEND
    answer: dict[str, str] = field(default_factory=dict)

    async def __call__(self, gateway: Gateway) -> GatewayResult:
        try:
            result = await gateway.solve(self.frontend, self.attrs)
        except BuildError as error:
            if f"unsupported request {self.attrs['requestid']}" in error.message:
                error.hint = "a newer frontend may know it: begin the Dockerfile with # syntax=docker/dockerfile:1"
            raise
        self.answer = {key: value.decode("utf-8", "replace") for key, value in result.metadata.items()}
        return result


@dataclass(frozen=True, slots=True)
class LintWarning:
    """One finding of a check."""

    rule: str
    detail: str
    url: str
    location: SourceLocation | None


@dataclass(frozen=True, slots=True)
class LintReport:
    """The answer of a check.

    Attributes:
        warnings: By file and line.
        error: What kept the check from its end, if something did.
    """

    warnings: tuple[LintWarning, ...]
    error: LintWarning | None = None


def read_lint_report(text: str, *, filename: str | None = None) -> LintReport:
    """Read ``result.json`` of a check.

    Args:
        text: The answer.
        filename: What the user calls the Dockerfile; the frontend's name for it if None.

    Raises:
        BuildError: the answer makes no sense.
    """
    try:
        content = json.loads(text or "{}")
        sources = content.get("sources") or []
        warnings = [_warning(each, sources, filename) for each in content.get("warnings") or []]
        failure = content.get("buildError")
        error = None
        if failure:
            error = LintWarning(
                "", failure.get("message", ""), "", _location(failure.get("location"), sources, filename)
            )
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, Base64Error, RecursionError) as problem:
        raise BuildError("the answer of the check makes no sense") from problem
    return LintReport(tuple(sorted(warnings, key=_place)), error)


def _warning(each: Mapping[str, Any], sources: list[Any], filename: str | None) -> LintWarning:
    location = _location(each.get("location"), sources, filename)
    return LintWarning(each["ruleName"], each.get("detail", ""), each.get("url", ""), location)


def _location(place: Mapping[str, Any] | None, sources: list[Any], filename: str | None) -> SourceLocation | None:
    from cogkit.buildkit.errors import SourceLocation
    from cogkit.buildkit.status import Range, SourceInfo

    index = (place or {}).get("sourceIndex", 0)
    if place is None or index < 0:
        return None
    source = sources[index]
    info = SourceInfo(filename or source["filename"], b64decode(source.get("data") or "", validate=True))
    ranges = [
        Range((span.get("start") or {}).get("line", 0), (span.get("end") or {}).get("line", 0))
        for span in place.get("ranges") or []
    ]
    return SourceLocation(info, tuple(ranges))


def _place(warning: LintWarning) -> tuple[str, int, str]:
    location = warning.location
    return ("", 0, warning.rule) if location is None else (location.info.filename, location.line, warning.rule)
