"""Inputs as users write them: what they become, and what is said of those that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cogkit.errors import UsageError
from cogkit.running.inputs import has_inputs, input_component, parse_inputs, parse_json

DOCUMENT: dict[str, Any] = {
    "components": {
        "schemas": {
            "size": {"type": "string", "enum": ["small", "large"]},
            "TrainingInput": {"type": "object", "properties": {"epochs": {"type": "integer"}}},
            "Input": {
                "type": "object",
                "required": ["prompt"],
                "properties": {
                    "prompt": {"type": "string", "maxLength": 8, "pattern": "^[a-z0-9 .]*$"},
                    "count": {"type": "integer", "minimum": 1, "maximum": 5},
                    "scale": {"type": "number"},
                    "on": {"type": "boolean"},
                    "size": {"allOf": [{"$ref": "#/components/schemas/size"}]},
                    "file": {"type": "string", "format": "uri"},
                    "numbers": {"type": "array", "items": {"type": "integer"}},
                    "words": {"type": "array", "items": {"type": "string"}},
                    "options": {"type": "object"},
                    "either": {"anyOf": [{"type": "string"}, {"type": "number"}, {"type": "integer"}]},
                },
            },
        }
    }
}


def parse(*values: str) -> dict[str, Any]:
    return parse_inputs(("prompt=x", *values), input_component(DOCUMENT), DOCUMENT)


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        (["count=3"], "count", 3),
        (["scale=3"], "scale", 3),
        (["scale=1.5"], "scale", 1.5),
        (["on=true"], "on", True),
        (["size=large"], "size", "large"),
        (["numbers=7"], "numbers", [7]),
        (["numbers=[1, 2]"], "numbers", [1, 2]),
        (["numbers=1", "numbers=2"], "numbers", [1, 2]),
        (["words=a", "words=2"], "words", ["a", "2"]),
        (['options={"a": [1]}'], "options", {"a": [1]}),
        (["either=hello"], "either", "hello"),
        (["either=1.5"], "either", 1.5),
        (["either=1"], "either", 1),
        (['file="https://example.com/a=b"'], "file", "https://example.com/a=b"),
    ],
)
def test_a_value_becomes_what_the_schema_wants(values: list[str], name: str, expected: object) -> None:
    found = parse(*values)
    assert found[name] == expected
    assert type(found[name]) is type(expected)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["nope=1"], 'unknown input "nope"; valid inputs are: count, either'),
        (["a=1", "b=1"], 'unknown inputs "a", "b"'),
        (["count=lots"], 'invalid input "count": expected integer, got string'),
        (["count=1.5"], 'invalid input "count": expected integer, got string'),
        (["count=9"], 'invalid input "count": number must be at most 5'),
        (["scale=nan"], 'invalid input "scale": expected number, got string'),
        (["size=huge"], 'invalid input "size": must be one of: small, large'),
        (["numbers=x"], 'invalid input "numbers": item 0: expected integer, got string'),
        (["options=x"], 'invalid input "options": expected an object as JSON'),
        (["count"], "Failed to parse input 'count', expected format is 'name=value'"),
        (["file=@/no/such/file"], 'input "file": failed to read file "/no/such/file"'),
    ],
)
def test_what_does_not_fit_is_said(values: list[str], words: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(*values)
    assert words in raised.value.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, 'missing required input "prompt"'),
        ({"prompt": "far too long"}, "maximum string length is 8"),
        ({"prompt": "BAD"}, "doesn't match the regular expression"),
        ({"prompt": None}, "must not be null"),
        ({"prompt": "x", "size": None}, "must not be null"),
        ({"prompt": "x", "either": None}, "must not be null"),
        ({"prompt": "x", "on": 1}, "expected boolean, got number"),
        ({"prompt": "x", "either": []}, "expected string or number or integer, got array"),
        ({"prompt": 1, "count": 0}, "input validation failed:\n- invalid input"),
        ([], "the inputs are not an object"),
    ],
)
def test_json_is_checked_the_same_way(given: object, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_json(json.dumps(given), input_component(DOCUMENT), DOCUMENT)
    assert words in raised.value.message


def test_files_become_data_urls(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "in.json").write_text(json.dumps({"prompt": "x", "file": f"@{tmp_path}/a.png"}))
    expected = "data:image/png;base64,cGljdHVyZQ=="
    assert parse(f"file=@{tmp_path}/a.png")["file"] == expected
    found = parse_json(f"@{tmp_path}/in.json", input_component(DOCUMENT), DOCUMENT)
    assert found["file"] == expected
    with pytest.raises(UsageError, match="Failed to read JSON from file"):
        parse_json(f"@{tmp_path}/missing.json", input_component(DOCUMENT), DOCUMENT)


def test_a_training_has_inputs_of_its_own() -> None:
    assert "epochs" in input_component(DOCUMENT, train=True)["properties"]
    assert has_inputs(DOCUMENT)
    assert not has_inputs({"components": {}})
    assert not has_inputs(None)
