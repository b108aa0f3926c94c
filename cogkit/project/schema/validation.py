"""Whether a document is OpenAPI 3.0, and reading one that the user wrote.

The shape is checked with fastjsonschema against ``openapi30.json``; what a JSON Schema cannot say (references that
lead nowhere, parameters of paths, defaults that their own schema forbids) is checked here.  The library is imported
only when a document is checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.schema.types import Json

if TYPE_CHECKING:
    from collections.abc import Callable

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_HINT = "Correct it, or leave it out to have the schema made from the source."


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """A schema that the user wrote: the document, and the file's own bytes, which are what the image gets."""

    openapi: Json
    json: bytes


def load_schema_file(path: Path) -> SchemaFile:
    """Read and check the file of ``--openapi-schema``.

    Raises:
        ConfigError: It cannot be read, is not JSON, or is not an OpenAPI 3.0 document.
    """
    shown = str(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"Failed to read schema file: {shown} not found", hint="Name an existing file.") from error
    except OSError as error:
        raise ConfigError(f"cannot read the schema file: {error.strerror}", where=shown) from error
    try:
        document = json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"{shown}:{error.lineno}:{error.colno}"
        raise ConfigError(f"the schema file is not JSON: {error.msg}", where=where, hint=_HINT) from error
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"the schema file is not JSON: {reason}", where=shown, hint=_HINT) from error
    validate_openapi(document, name=shown)
    assert isinstance(document, dict)
    return SchemaFile(document, content)


def validate_openapi(document: object, *, name: str = "schema") -> None:
    """Check that a document is OpenAPI 3.0.

    Args:
        document: The document as Python data.
        name: What to call it in an error.

    Raises:
        ConfigError: It is not; ``where`` is ``name``, a ``#`` and the JSON pointer of the place.
    """
    try:
        _check_version(document, name)
        _check_shape(document, name)
        assert isinstance(document, dict)
        _check_references(document, name)
        _check_paths(document, name)
        _check_schemas(document, name)
    except RecursionError as error:
        raise ConfigError("the schema is nested too deeply", where=name, hint=_HINT) from error


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _fault(message: str, name: str, pointer: str = "") -> ConfigError:
    return ConfigError(message, where=f"{name}#{pointer}" if pointer else name, hint=_HINT)


def _pointer(base: str, *keys: object) -> str:
    return base + "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def _check_version(document: object, name: str) -> None:
    version = document.get("openapi") if isinstance(document, dict) else None
    if isinstance(version, str) and not version.startswith("3.0."):
        raise _fault(f"OpenAPI {version} is not supported, only 3.0", name, "/openapi")


@cache
def _shape_validator() -> Callable[[object], object]:
    from importlib.resources import files

    import fastjsonschema

    shape = json.loads(files("cogkit.project.schema").joinpath("openapi30.json").read_bytes())
    validator: Callable[[object], object] = fastjsonschema.compile(shape)
    return validator


def _check_shape(document: object, name: str) -> None:
    import fastjsonschema

    try:
        _shape_validator()(document)
    except fastjsonschema.JsonSchemaValueException as error:
        place = str(error.name or "data")
        what = str(error.message).removeprefix(place).strip()
        pointer = _find(document, place.removeprefix("data"))
        raise _fault(f"not an OpenAPI 3.0 document: {_last(pointer)} {what}", name, pointer) from error


def _last(pointer: str) -> str:
    return pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~") or "the document"


def _find(document: object, path: str) -> str:
    """The JSON pointer of what fastjsonschema calls ``.paths./predictions.post.tags[0]``; keys may have dots."""
    pointer, value = "", document
    while path:
        index = re.match(r"\[(\d+)\]", path)
        if isinstance(value, list) and index is not None:
            step, length = int(index[1]), index.end()
            pointer, value = _pointer(pointer, step), value[step]
        else:
            rest = path[1:]
            keys = value if isinstance(value, dict) else {}
            fitting = [key for key in keys if rest == key or rest.startswith((f"{key}.", f"{key}["))]
            if not fitting:
                return _pointer(pointer, rest)
            key = max(fitting, key=len)
            length = 1 + len(key)
            pointer, value = _pointer(pointer, key), keys[key]
        path = path[length:]
    return pointer


# -- what a JSON Schema cannot say -----------------------------------------------------------------------------------


def _walk(value: object, pointer: str = "") -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every object of the document that is not an example, default or extension, with its pointer."""
    if isinstance(value, dict):
        yield pointer, value
        for key, item in value.items():
            is_data = key in ("default", "example", "enum") or key.startswith("x-")
            if not (is_data and not _names_things(pointer)):
                yield from _walk(item, _pointer(pointer, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, _pointer(pointer, index))


def _names_things(pointer: str) -> bool:
    """Whether the keys of the object are names that the author chose, such as those of properties."""
    return pointer.endswith(("/properties", "/schemas", "/responses", "/parameters", "/examples"))


def _check_references(document: Json, name: str) -> None:
    for pointer, value in _walk(document):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith("#") and not _resolves(document, reference):
            raise _fault(f"$ref {reference} leads nowhere", name, _pointer(pointer, "$ref"))


def _resolves(document: object, reference: str) -> bool:
    value = document
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return False
    return True


def _check_paths(document: Json, name: str) -> None:
    operations: dict[str, str] = {}
    paths = document["paths"]
    assert isinstance(paths, dict)
    for path, item in paths.items():
        if path.startswith("x-"):
            continue
        for method in METHODS:
            operation = item.get(method)
            if operation is None:
                continue
            pointer = _pointer("/paths", path, method)
            identity = operation.get("operationId")
            if identity in operations:
                raise _fault(f"operationId {identity} is also that of {operations[identity]}", name, pointer)
            if identity is not None:
                operations[identity] = f"{method.upper()} {path}"
            declared = {
                parameter.get("name")
                for parameter in [*item.get("parameters", ()), *operation.get("parameters", ())]
                if parameter.get("in") == "path" or "$ref" in parameter
            }
            for wanted in re.findall(r"\{([^{}]+)\}", path):
                if wanted not in declared and None not in declared:
                    raise _fault(f"the path's {{{wanted}}} is not among its parameters", name, pointer)


def _check_schemas(document: Json, name: str) -> None:
    """Patterns must be regular expressions, and a default must be what its own schema allows."""
    components = document.get("components")
    schemas = components.get("schemas", {}) if isinstance(components, dict) else {}
    for pointer, schema in _walk(document):
        if pointer and _names_things(pointer):
            continue
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            try:
                re.compile(pattern)
            except re.error as error:
                raise _fault(f"invalid pattern {pattern}: {error}", name, _pointer(pointer, "pattern")) from error
        if "default" in schema and "url" not in schema and ("type" in schema or _COMBINED & schema.keys()):
            _check_default(schema, schemas, name, pointer)


_COMBINED = {"$ref", "allOf", "anyOf", "oneOf"}


def _check_default(schema: Mapping[str, object], schemas: object, name: str, pointer: str) -> None:
    import fastjsonschema

    default = schema["default"]
    if default is None and schema.get("nullable") is True:
        return
    definition = {**_as_draft7(schema), "components": {"schemas": _as_draft7({"properties": schemas})["properties"]}}
    try:
        fastjsonschema.compile(definition)(default)
    except fastjsonschema.JsonSchemaValueException as error:
        what = str(error.message).removeprefix("data").strip()
        raise _fault(f"invalid default {default!r}: it {what}", name, _pointer(pointer, "default")) from error
    except fastjsonschema.JsonSchemaDefinitionException as error:
        raise _fault(f"the schema of the default cannot be used: {error}", name, pointer) from error


def _as_draft7(schema: Mapping[str, object]) -> Json:
    """The schema in the words of JSON Schema: null as a type, exclusive bounds as numbers."""
    result: Json = {}
    for key, value in schema.items():
        if key in ("default", "example", "nullable", "discriminator", "xml", "externalDocs") or key.startswith("x-"):
            continue
        if key == "properties" and isinstance(value, dict):
            result[key] = {name: _as_draft7(one) if isinstance(one, dict) else one for name, one in value.items()}
        elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
            result[key] = _as_draft7(value)
        elif key in ("allOf", "anyOf", "oneOf") and isinstance(value, list):
            result[key] = [_as_draft7(one) if isinstance(one, dict) else one for one in value]
        else:
            result[key] = value
    for bound in ("Minimum", "Maximum"):
        if result.pop(f"exclusive{bound}", False) and bound.lower() in result:
            result[f"exclusive{bound}"] = result.pop(bound.lower())
    result.pop("format", None)
    return {"anyOf": [result, {"type": "null"}]} if schema.get("nullable") is True else result
