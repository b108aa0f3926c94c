"""The inputs of a prediction: from what the user wrote to JSON that fits the model's schema.

Words are Cog's (``pkg/cli/predict.go``, ``pkg/predict``).  Everything that is wrong with an input shows here, before
anything is built.  This file must not talk to a model.
"""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cogkit.errors import UsageError
from cogkit.running.media_types import type_of_name

Schema = Mapping[str, Any]

_NUMBERS = ("integer", "number")
_INT32 = range(-(1 << 31), 1 << 31)


def parse_inputs(values: Sequence[str], component: Schema, document: Schema) -> dict[str, Any]:
    """The inputs of ``-i name=value``, checked.

    Args:
        values: What the user wrote, in order; a name that comes several times is a list.
        component: The schema of the inputs (`input_component`).
        document: The whole schema, which it may refer to.

    Raises:
        UsageError: one of them does not fit.
    """
    given: dict[str, list[str]] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise UsageError(
                f"Failed to parse input '{value}', expected format is 'name=value'",
                hint="for example -i prompt='a cat', or -i image=@cat.jpg for a file",
            )
        if len(text) > 1 and text.startswith('"') and text.endswith('"'):
            text = text[1:-1]
        given.setdefault(name, []).append(text)
    _check_names(given, component)
    found = {name: _value(name, texts, _property(component, name), document) for name, texts in given.items()}
    _check(found, component, document)
    return found


def parse_json(text: str, component: Schema, document: Schema) -> dict[str, Any]:
    """The inputs of ``--json``, checked: an object, ``@FILE`` or ``@-`` for standard input.

    Raises:
        UsageError: it cannot be read, or does not fit.
    """
    try:
        found = json.loads(_json_text(text))
    except (ValueError, RecursionError) as problem:
        raise UsageError(
            f"Failed to parse JSON: {problem}", hint='for example --json \'{"prompt": "a cat"}\''
        ) from None
    if not isinstance(found, dict):
        raise UsageError("Failed to parse JSON: the inputs are not an object", hint='for example {"prompt": "a cat"}')
    _check_names(found, component)
    found = {name: _from_file(name, value) for name, value in found.items()}
    _check(found, component, document)
    return found


def input_component(document: Schema, *, train: bool = False) -> Schema:
    """The schema of the inputs.

    Raises:
        UsageError: the document has none.
    """
    schemas = (document.get("components") or {}).get("schemas") or {}
    names = ("TrainingInput", "Input") if train else ("Input",)
    component = next((schemas[name] for name in names if isinstance(schemas.get(name), dict)), None)
    if component is None:
        raise UsageError("the model's schema has no inputs", hint="build the image again")
    return component  # type: ignore[no-any-return]


def has_inputs(document: Schema | None, *, train: bool = False) -> bool:
    """Whether inputs can be checked against the schema."""
    if document is None:
        return False
    try:
        return "properties" in input_component(document, train=train)
    except UsageError:
        return False


# ---------------------------------------------------------------- reading


def _json_text(text: str) -> str:
    if text in ("-", "@-"):
        return sys.stdin.read()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        raise UsageError(f'Failed to read JSON from file "{text[1:]}": {reason}') from None


def _from_file(name: str, value: Any) -> Any:
    return data_url(name, value[1:]) if isinstance(value, str) and value.startswith("@") else value


def data_url(name: str, path: str) -> str:
    """A file of this machine as the value of an input.

    Raises:
        UsageError: it cannot be read.
    """
    file = os.path.expanduser(path)
    try:
        content = Path(file).read_bytes()
    except OSError as problem:
        raise UsageError(
            f'input "{name}": failed to read file "{path}": {problem.strerror}',
            hint="@ before a value means that it is the name of a file",
        ) from None
    return f"data:{type_of_name(file)};base64,{base64.b64encode(content).decode()}"


def _value(name: str, texts: list[str], schema: Schema | None, document: Schema) -> Any:
    if len(texts) > 1:
        items = _items(schema, document)
        return [_from_file(name, text) if text.startswith("@") else _scalar(text, items, document) for text in texts]
    (text,) = texts
    if text.startswith("@"):
        return data_url(name, text[1:])
    if schema is None:
        return text
    kind = _kind(schema, document)
    if kind == "object":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise UsageError(f'invalid input "{name}": expected an object as JSON') from None
    if kind == "array":
        return _array(text, schema, document)
    return _scalar(text, schema, document)


def _array(text: str, schema: Schema, document: Schema) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list):
        return found
    takes_text = _accepts(schema, ("string",), document)
    if takes_text and _fits(text, schema, document):
        return text
    alone = [_scalar(text, _items(schema, document), document)]
    return text if takes_text and not _fits(alone, schema, document) else alone


def _scalar(text: str, schema: Schema | None, document: Schema) -> Any:
    """The value that the schema wants; the text itself where that is not one, for the check to say so."""
    if schema is None:
        return text
    candidates: list[Any] = []
    if text in ("true", "false") and _accepts(schema, ("boolean",), document):
        candidates.append(text == "true")
    if _accepts(schema, _NUMBERS, document):
        if re.fullmatch(r"[+-]?[0-9]+", text) and int(text) in _INT32:
            candidates.append(int(text))
        if _accepts(schema, ("number",), document) and (number := _float(text)) is not None:
            candidates.append(number)
    takes_text = _accepts(schema, ("string",), document)
    return next((each for each in candidates if not takes_text or _fits(each, schema, document)), text)


def _float(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number - number == 0 else None  # neither infinite nor no number


# ---------------------------------------------------------------- the schema


def _resolved(schema: Any, document: Schema) -> Schema:
    for _ in range(16):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        schema = document
        for part in reference[2:].split("/"):
            schema = schema.get(part, {}) if isinstance(schema, dict) else {}
    return schema if isinstance(schema, dict) else {}


def _parts(schema: Schema, document: Schema, *keys: str) -> Iterator[Schema]:
    for key in keys:
        for part in schema.get(key) or ():
            yield _resolved(part, document)


def _property(component: Schema, name: str) -> Schema | None:
    found = (component.get("properties") or {}).get(name)
    return found if isinstance(found, dict) else None


def _kind(schema: Schema, document: Schema) -> str:
    schema = _resolved(schema, document)
    if isinstance(schema.get("type"), str):
        return str(schema["type"])
    return next((str(part["type"]) for part in _parts(schema, document, "allOf", "anyOf") if part.get("type")), "")


def _accepts(schema: Schema, kinds: Sequence[str], document: Schema, depth: int = 0) -> bool:
    schema = _resolved(schema, document)
    if schema.get("type") in kinds:
        return True
    parts = _parts(schema, document, "anyOf", "allOf", "oneOf")
    return depth < 16 and any(_accepts(part, kinds, document, depth + 1) for part in parts)


def _items(schema: Schema | None, document: Schema) -> Schema | None:
    if schema is None:
        return None
    schema = _resolved(schema, document)
    if isinstance(schema.get("items"), dict):
        return _resolved(schema["items"], document)
    found = [items for part in _parts(schema, document, "anyOf", "oneOf", "allOf") if (items := _items(part, document))]
    return {"anyOf": found} if found else None


# ---------------------------------------------------------------- checking


def _check_names(given: Mapping[str, Any], component: Schema) -> None:
    unknown = sorted(name for name in given if _property(component, name) is None)
    if not unknown:
        return
    valid = ", ".join(sorted(component.get("properties") or {}))
    suffix = f"valid inputs are: {valid}" if valid else "model does not accept inputs"
    named = ", ".join(json.dumps(name, ensure_ascii=False) for name in unknown)
    raise UsageError(f"unknown input{'s' if len(unknown) > 1 else ''} {named}; {suffix}")


def _check(given: Mapping[str, Any], component: Schema, document: Schema) -> None:
    problems = [f'missing required input "{name}"' for name in component.get("required") or () if name not in given]
    for name, value in given.items():
        schema = _property(component, name) or {}
        problem = _null_problem(value, schema, document) or _problem(value, schema, document)
        if problem:
            problems.append(f'invalid input "{name}": {problem}')
    if len(problems) == 1:
        raise UsageError(problems[0], hint="give it as -i name=value")
    if problems:
        raise UsageError("input validation failed:\n- " + "\n- ".join(problems))


def _null_problem(value: Any, schema: Schema, document: Schema) -> str:
    """The model's own check does not know ``nullable``."""
    if value is None and not _accepts(schema, ("null",), document) and (schema.get("type") or schema.get("anyOf")):
        return "must not be null (omit the input to use its default)"
    if value is None and schema.get("allOf"):
        return "must not be null (omit the input to use its default)"
    return ""


def _fits(value: Any, schema: Schema, document: Schema) -> bool:
    return not _problem(value, schema, document)


def _problem(value: Any, schema: Any, document: Schema, depth: int = 0) -> str:
    """What is wrong with a value; empty if nothing is."""
    schema = _resolved(schema, document)
    if depth > 32:
        return "it is nested too deeply"
    kind = schema.get("type")
    if isinstance(kind, str) and not _is_of(value, kind):
        return f"expected {kind}, got {_name_of(value)}"
    choices = schema.get("enum")
    if isinstance(choices, list) and choices and not any(_same(value, choice) for choice in choices):
        return f"must be one of: {', '.join(map(_shown, choices))}"
    problem = _limit_problem(value, schema) or _composition_problem(value, schema, document, depth)
    if problem:
        return problem
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        for place, item in enumerate(value):
            if problem := _problem(item, schema["items"], document, depth + 1):
                return f"item {place}: {problem}"
    return ""


def _composition_problem(value: Any, schema: Schema, document: Schema, depth: int) -> str:
    for part in _parts(schema, document, "allOf"):
        if problem := _problem(value, part, document, depth + 1):
            return problem
    for key in ("anyOf", "oneOf"):
        parts = list(_parts(schema, document, key))
        if parts and all(_problem(value, part, document, depth + 1) for part in parts):
            kinds = [str(part.get("type", "another value")) for part in parts]
            return f"expected {' or '.join(kinds)}, got {_name_of(value)}"
    return ""


def _limit_problem(value: Any, schema: Schema) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum"), schema.get("maximum")
        if least is not None and value < least:
            return f"number must be at least {_shown(least)}"
        if most is not None and value > most:
            return f"number must be at most {_shown(most)}"
    elif isinstance(value, str):
        if len(value) < (schema.get("minLength") or 0):
            return f"minimum string length is {schema['minLength']}"
        if schema.get("maxLength") is not None and len(value) > schema["maxLength"]:
            return f"maximum string length is {schema['maxLength']}"
        pattern = schema.get("pattern")
        if pattern and not _matches(pattern, value):
            return f'string doesn\'t match the regular expression "{pattern}"'
    elif isinstance(value, list):
        if len(value) < (schema.get("minItems") or 0):
            return f"minimum number of items is {schema['minItems']}"
        if schema.get("maxItems") is not None and len(value) > schema["maxItems"]:
            return f"maximum number of items is {schema['maxItems']}"
    return ""


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:
        return True  # written for another kind of expression; the model checks it itself


def _is_of(value: Any, kind: str) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            is_whole = isinstance(value, float) and value.is_integer()
            return (isinstance(value, int) and not isinstance(value, bool)) or is_whole
        case "number":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
    return True


def _name_of(value: Any) -> str:
    kinds = ("null", "boolean", "number", "string", "array", "object")
    return next((kind for kind in kinds if _is_of(value, kind)), type(value).__name__)


def _same(value: Any, choice: Any) -> bool:
    return bool(value == choice) and isinstance(value, bool) == isinstance(choice, bool)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
