"""``--call``: what the frontend is asked, and what is printed of its answer."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest

from cogkit.building.call import CallSpec, parse_call, read_lint_report, request_attrs
from cogkit.buildkit.errors import BuildError
from cogkit.cli.ui.call_view import answer_error, answer_text, exit_code
from cogkit.errors import UsageError

DOCKERFILE = "FROM scratch\nCOPY Dockerfile .\nCOPY other .\nfrom scratch as Two\n"
SOURCE = {"filename": "Dockerfile", "language": "Dockerfile", "data": b64encode(DOCKERFILE.encode()).decode()}
LINT = CallSpec("lint")


def finding(rule: str, line: int, **more: Any) -> dict[str, Any]:
    location = {"ranges": [{"start": {"line": line}, "end": {"line": line}}]}
    return {"ruleName": rule, "detail": f"detail of {rule}", "location": location, **more}


def answered(*warnings: dict[str, Any], status: str = "1", **more: Any) -> dict[str, str]:
    content = {"warnings": list(warnings), "sources": [SOURCE], **more}
    return {"result.json": json.dumps(content), "result.statuscode": status}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("build", None),
        ("check", CallSpec("lint")),
        ("lint", CallSpec("lint")),
        ("outline,format=json", CallSpec("outline", "json")),
        ("format=json,targets", CallSpec("targets", "json")),
        ("check,ignorestatus=true", CallSpec("lint", ignore_status=True)),
        ("subrequests.describe", CallSpec("subrequests.describe")),
    ],
)
def test_call_is_a_name_with_a_format(value: str | None, expected: CallSpec | None) -> None:
    assert parse_call(value) == expected


@pytest.mark.parametrize("value", ["outline,targets", "outline,colour=red", "outline,ignorestatus=maybe"])
def test_call_that_makes_no_sense_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--call"):
        parse_call(value)


def test_frontend_is_asked_beside_what_it_is_told_anyway() -> None:
    assert request_attrs({"target": "x"}, CallSpec("outline")) == {
        "target": "x",
        "frontend.caps": "moby.buildkit.frontend.subrequests+forward",
        "requestid": "frontend.outline",
    }
    both = request_attrs({"frontend.caps": "moby.buildkit.frontend.contexts+forward"}, LINT)
    assert both["frontend.caps"] == "moby.buildkit.frontend.contexts+forward,moby.buildkit.frontend.subrequests+forward"


def test_findings_are_printed_by_line_with_their_lines_as_buildx_prints_them() -> None:
    answer = answered(finding("Later", 4), finding("Earlier", 2, url="https://docs.docker.com/go/x/"))
    assert answer_text(LINT, answer, filename="sub/Dockerfile") == (
        "Check complete, 2 warnings have been found!\n"
        "\n"
        "WARNING: Earlier - https://docs.docker.com/go/x/\n"
        "detail of Earlier\n"
        "sub/Dockerfile:2\n"
        "--------------------\n"
        "   1 |     FROM scratch\n"
        "   2 | >>> COPY Dockerfile .\n"
        "   3 |     COPY other .\n"
        "   4 |     from scratch as Two\n"
        "--------------------\n"
        "\n"
        "WARNING: Later\n"
        "detail of Later\n"
        "sub/Dockerfile:4\n"
        "--------------------\n"
        "   2 |     COPY Dockerfile .\n"
        "   3 |     COPY other .\n"
        "   4 | >>> from scratch as Two\n"
        "   5 |\n"
        "--------------------\n"
    )


def test_one_finding_and_none_have_their_own_sentence() -> None:
    assert answer_text(LINT, answered(finding("A", 1))).startswith("Check complete, 1 warning has been found!\n\n")
    assert answer_text(LINT, answered(status="0")) == "Check complete, no warnings found.\n"


def test_finding_without_a_place_has_no_lines() -> None:
    answer = answered(
        {"ruleName": "A", "detail": "d", "location": {"sourceIndex": -1}}, {"ruleName": "B", "detail": "d"}
    )
    assert answer_text(LINT, answer).endswith("\n\nWARNING: A\nd\n\nWARNING: B\nd\n")


def test_status_of_a_check_is_the_exit_code_unless_it_is_ignored() -> None:
    assert exit_code(LINT, answered(finding("A", 1))) == 1
    assert exit_code(CallSpec("lint", ignore_status=True), answered(finding("A", 1))) == 0
    assert exit_code(LINT, answered(status="0")) == 0
    assert exit_code(CallSpec("targets"), {"result.json": "{}"}) == 0


def test_dockerfile_that_cannot_be_checked_is_an_error_with_its_place() -> None:
    location = {"ranges": [{"start": {"line": 3}, "end": {"line": 3}}]}
    answer = answered(buildError={"message": "unknown instruction", "location": location})
    assert answer_text(LINT, answer) == ""
    error = answer_error(LINT, answer, filename="Dockerfile.dev")
    assert error is not None
    assert str(error) == "Dockerfile.dev:3: unknown instruction"
    assert error.detail is not None and ">>> COPY other ." in error.detail
    assert answer_error(LINT, answered()) is None


def test_json_is_printed_as_it_came() -> None:
    answer = answered(finding("A", 1))
    assert answer_text(CallSpec("lint", "json"), answer) == answer["result.json"] + "\n"


def test_other_answers_are_the_frontends_own_text_made_harmless() -> None:
    answer = {"result.json": "{}", "result.txt": "TARGET   DESCRIPTION\nx\x1b[2J        \n"}
    assert answer_text(CallSpec("targets"), answer) == "TARGET   DESCRIPTION\nx        \n"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[1]",
        '{"warnings": [1]}',
        '{"warnings": [{"detail": "no rule"}]}',
        '{"warnings": [{"ruleName": "A", "location": {"sourceIndex": 5}}]}',
        '{"warnings": [{"ruleName": "A", "location": {}}], "sources": [{"filename": "x", "data": "%"}]}',
    ],
)
def test_answer_that_makes_no_sense_is_refused(content: str) -> None:
    with pytest.raises(BuildError, match="makes no sense"):
        read_lint_report(content)
