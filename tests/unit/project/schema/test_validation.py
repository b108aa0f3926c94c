"""Checking OpenAPI documents, those that users bring above all."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit.errors import ConfigError
from cogkit.project.config import Config
from cogkit.project.schema import generate_schema, load_schema_file, validate_openapi
from cogkit.project.schema.encoding import encode


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "run.py").write_text(
        "from cog import Input\n"
        "def run(size: str = Input(choices=['s', 'm'], default='s'), steps: int = Input(default=1, ge=0)) -> str: ...\n"
    )
    return copy.deepcopy(generate_schema(Config(run="run.py:run"), tmp_path).openapi)


Edit = Callable[[dict[str, Any]], object]


def schemas(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]
    return found


def operation(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"]["/predictions"]["post"]
    return found


FAULTS: list[tuple[str, Edit, str, str]] = [
    ("no version", lambda d: d.pop("openapi"), "", "must contain"),
    ("version 3.1", lambda d: d.update(openapi="3.1.0"), "#/openapi", "OpenAPI 3.1.0 is not supported"),
    ("no paths", lambda d: d.pop("paths"), "", "must contain"),
    ("unknown key", lambda d: d.update(path={}), "", "must not contain"),
    ("bad path", lambda d: d["paths"].update(predictions={}), "#/paths", "must not contain"),
    ("no responses", lambda d: operation(d).pop("responses"), "#/paths/~1predictions/post", "must contain"),
    (
        "status code",
        lambda d: operation(d)["responses"].update({"2000": {"description": ""}}),
        "#/paths/~1predictions/post/responses",
        "must not contain",
    ),
    (
        "no description",
        lambda d: operation(d)["responses"]["200"].pop("description"),
        "#/paths/~1predictions/post/responses/200",
        "must contain",
    ),
    (
        "unknown type",
        lambda d: schemas(d)["Output"].update(type="text"),
        "#/components/schemas/Output/type",
        "must be one of",
    ),
    (
        "null as a type",
        lambda d: schemas(d)["Output"].update(anyOf=[{"type": "null"}]),
        "#/components/schemas/Output/anyOf/0/type",
        "must be one of",
    ),
    ("array of nothing", lambda d: schemas(d).update(A={"type": "array"}), "#/components/schemas/A", "must contain"),
    (
        "negative length",
        lambda d: schemas(d).update(A={"type": "string", "minLength": -1}),
        "#/components/schemas/A/minLength",
        "must be bigger than or equal to 0",
    ),
    (
        "empty required",
        lambda d: schemas(d)["Input"].update(required=[]),
        "#/components/schemas/Input/required",
        "must contain at least 1 items",
    ),
    (
        "key with a dot",
        lambda d: schemas(d).update({"a.b/c": {"type": "list"}}),
        "#/components/schemas/a.b~1c/type",
        "must be one of",
    ),
    (
        "dangling reference",
        lambda d: schemas(d).pop("size"),
        "#/components/schemas/Input/properties/size/allOf/0/$ref",
        "leads nowhere",
    ),
    (
        "missing parameter",
        lambda d: d["paths"]["/predictions/{prediction_id}/cancel"]["post"].pop("parameters"),
        "#/paths/~1predictions~1{prediction_id}~1cancel/post",
        "{prediction_id} is not among its parameters",
    ),
    (
        "optional path parameter",
        lambda d: d["paths"]["/predictions/{prediction_id}/cancel"]["post"]["parameters"][0].update(required=False),
        "#/paths/~1predictions~1{prediction_id}~1cancel/post/parameters/0/required",
        "must be same as const definition",
    ),
    (
        "two operations of one name",
        lambda d: operation(d).update(operationId="root__get"),
        "#/paths/~1predictions/post",
        "is also that of GET /",
    ),
    (
        "default of another type",
        lambda d: schemas(d)["Input"]["properties"]["steps"].update(default="one"),
        "#/components/schemas/Input/properties/steps/default",
        "invalid default 'one'",
    ),
    (
        "default below its bound",
        lambda d: schemas(d)["Input"]["properties"]["steps"].update(default=-1),
        "#/components/schemas/Input/properties/steps/default",
        "invalid default -1",
    ),
    (
        "default that is not a choice",
        lambda d: schemas(d)["Input"]["properties"]["size"].update(default="xl"),
        "#/components/schemas/Input/properties/size/default",
        "invalid default 'xl'",
    ),
    (
        "null as a default",
        lambda d: schemas(d)["Input"]["properties"]["steps"].update(default=None),
        "#/components/schemas/Input/properties/steps/default",
        "invalid default None",
    ),
    (
        "pattern that is none",
        lambda d: schemas(d)["Output"].update(pattern="("),
        "#/components/schemas/Output/pattern",
        "invalid pattern",
    ),
]


@pytest.mark.parametrize(("edit", "pointer", "message"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_fault_is_named_with_its_place(document: dict[str, Any], edit: Edit, pointer: str, message: str) -> None:
    validate_openapi(document)
    edit(document)
    with pytest.raises(ConfigError) as caught:
        validate_openapi(document, name="my.json")
    assert caught.value.where == f"my.json{pointer}"
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("other", [None, 3, "text", [], {}, {"openapi": 3}, {"openapi": "2.0"}, {"swagger": "2.0"}])
def test_what_is_no_document_at_all_is_refused(other: object) -> None:
    with pytest.raises(ConfigError):
        validate_openapi(other)


def test_what_openapi_allows_is_accepted(document: dict[str, Any]) -> None:
    document |= {
        "servers": [{"url": "https://{host}/", "variables": {"host": {"default": "a", "enum": ["a", "b"]}}}],
        "tags": [{"name": "t", "externalDocs": {"url": "https://example.com"}}],
        "security": [{"key": []}],
        "x-own": {"$ref": "#/nowhere", "default": 3},
    }
    answers = {"responses": {"2XX": {"description": ""}, "default": {"description": ""}}}
    operation(document).update(callbacks={"done": {"{$request.body#/url}": {"post": answers}}})
    document["components"] |= {
        "securitySchemes": {
            "key": {"type": "apiKey", "name": "k", "in": "header"},
            "http": {"type": "http", "scheme": "bearer"},
            "oauth": {"type": "oauth2", "flows": {"password": {"tokenUrl": "https://example.com", "scopes": {}}}},
        },
        "parameters": {"p": {"in": "query", "name": "q", "content": {"text/plain": {"example": {"$ref": "x"}}}}},
    }
    schemas(document).update(
        {
            "default": {"type": "object", "additionalProperties": False, "properties": {"default": {"type": "string"}}},
            "Open": {"additionalProperties": {"$ref": "#/components/schemas/Output"}, "maximum": 3, "default": 3},
            "Bound": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "default": 0.5, "nullable": True},
            "Null": {"type": "number", "default": None, "nullable": True},
            "Not": {"not": {"type": "string"}, "oneOf": [{"$ref": "#/components/schemas/Null"}], "default": 2},
        }
    )
    validate_openapi(document)


def test_a_file_is_taken_byte_for_byte(document: dict[str, Any], tmp_path: Path) -> None:
    content = json.dumps(document, indent=3).encode() + b"\n"
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    loaded = load_schema_file(path)
    assert loaded.json == content
    assert loaded.openapi == document


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b'{\n  "a": \n}', ":3:1", "Expecting value"),
        (b"openapi: 3.0.2\n", ":1:1", "Expecting value"),
        (b"\xff", "", "utf-8"),
        (b'{"a": NaN}', "", "NaN is no JSON number"),
        (b"[" * 100_000, "", "nested too deeply"),
        (b"", ":1:1", "Expecting value"),
    ],
)
def test_a_file_that_is_no_json_is_refused_with_its_place(
    tmp_path: Path, content: bytes, place: str, message: str
) -> None:
    path = tmp_path / "schema.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_schema_file(path)
    assert caught.value.where == f"{path}{place}"
    assert message in caught.value.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not found"):
        load_schema_file(tmp_path / "no.json")
    with pytest.raises(ConfigError, match="cannot read"):
        load_schema_file(tmp_path)


def test_the_library_is_imported_only_when_a_document_is_checked() -> None:
    code = "import sys, cogkit.project.schema; sys.exit('fastjsonschema' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- the bytes -------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON, st.booleans())
def test_encoded_json_reads_back_as_what_it_was(value: object, indent: bool) -> None:
    assert json.loads(encode(value, indent=indent)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_an_encoded_float_reads_back_as_the_same_float(value: float) -> None:
    assert float(encode(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (1e-5, "0.00001"),
        (1e-6, "0.000001"),
        (9.9e-7, "9.9e-7"),
        (-1.5e-10, "-1.5e-10"),
        (1e16, "10000000000000000"),
        (1.2345e17, "123450000000000000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (5e-324, "5e-324"),
        (1e300, "1e+300"),
    ],
)
def test_floats_look_as_go_writes_them(value: float, text: str) -> None:
    assert encode(value).decode() == text


def test_html_and_line_separators_are_escaped_as_go_does() -> None:
    assert encode("<a> & \u2028 \u2029 ü \b\f\n\x01").decode() == (
        '"\\u003ca\\u003e \\u0026 \\u2028 \\u2029 ü \\b\\f\\n\\u0001"'
    )
    assert encode({"a": [], "b": {}, "c": [1, {"d": 2}]}, indent=True).decode() == (
        '{\n  "a": [],\n  "b": {},\n  "c": [\n    1,\n    {\n      "d": 2\n    }\n  ]\n}'
    )
