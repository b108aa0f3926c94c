"""The OpenAPI 3.0.2 document of a predictor, with Cog's endpoints and component names.

Keys are in the order that Cog writes them: sorted, but for paths, components and properties, which keep theirs.  A
document for both running and training is sorted all through, as Cog's is.  Facts from Cog's
``pkg/schema/openapi_spec.go`` and ``generator.go``.
"""

from __future__ import annotations

from collections.abc import Mapping

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.schema.inputs import MISSING, Input
from cogkit.project.schema.target import Mode
from cogkit.project.schema.types import Array, Json, OneOf, Type, title

SCHEMAS = "#/components/schemas/"
_ENUM_DESCRIPTION = "An enumeration."
_SHARED_COMPONENTS = ("Status", "HTTPValidationError", "ValidationError")


@dataclass(frozen=True, slots=True)
class _Words:
    """What differs between the endpoints for running and for training."""

    summary: str
    description: str
    path: str
    operation: str
    cancel_operation: str
    id_parameter: str
    input: str
    output: str
    request: str
    response: str


_WORDS = {
    Mode.PREDICT: _Words(
        summary="Predict",
        description="Run a single prediction on the model",
        path="/predictions",
        operation="predict_predictions_post",
        cancel_operation="cancel_predictions__prediction_id__cancel_post",
        id_parameter="prediction_id",
        input="Input",
        output="Output",
        request="PredictionRequest",
        response="PredictionResponse",
    ),
    Mode.TRAIN: _Words(
        summary="Train",
        description="Run a single training on the model",
        path="/trainings",
        operation="train_trainings_post",
        cancel_operation="cancel_trainings__training_id__cancel_post",
        id_parameter="training_id",
        input="TrainingInput",
        output="TrainingOutput",
        request="TrainingRequest",
        response="TrainingResponse",
    ),
}


@dataclass(frozen=True, slots=True)
class Signature:
    """What one document describes: inputs in order, the output, and whether clients may ask for a stream."""

    mode: Mode
    inputs: tuple[Input, ...]
    output: Type
    streaming: bool


def build(signature: Signature, version: str) -> Json:
    """The document for one function; ``version`` is what ``info.version`` says."""
    words = _WORDS[signature.mode]
    components: Json = {words.input: _input_object(signature, words)}
    components[words.output] = dict(sorted({**signature.output.json(), "title": "Output"}.items()))
    reserved = {*_SHARED_COMPONENTS, *(name for one in _WORDS.values() for name in _component_names(one))}
    for one in signature.inputs:
        if one.choices:
            if one.name in reserved:
                raise ConfigError(
                    f"parameter '{one.name}' has choices, and its name is one that the schema uses itself",
                    where=one.where,
                    hint="Give the parameter another name.",
                )
            components[one.name] = _enum(one.name, one)
    components[words.request] = _object(
        words.request, {"id": _text("Id"), "input": {"$ref": SCHEMAS + words.input}}, sort=True
    )
    components[words.response] = _response_object(words)
    components |= _shared_components()
    return {
        "components": {"schemas": components},
        "info": {"title": "Cog", "version": version},
        "openapi": "3.0.2",
        "paths": _paths(signature, words),
    }


def merge(predict: Json, train: Json) -> Json:
    """One document for both.

    An enumeration that both have under one name, but with different choices, is kept for each: that of the training
    is renamed.  (Cog lets the first one stand for both.)
    """
    predict_schemas, train_schemas = _at(predict, "components", "schemas"), _at(train, "components", "schemas")
    clashes = {
        name
        for name, schema in train_schemas.items()
        if name in predict_schemas and predict_schemas[name] != schema and name not in _SHARED_COMPONENTS
    }
    renames: dict[str, str] = {}
    for name in sorted(clashes):
        new = f"training_{name}"
        while new in train_schemas or new in predict_schemas:
            new += "_"
        renames[name] = new
    added: Json = {}
    for name, schema in train_schemas.items():
        new = renames.get(name, name)
        renamed = _renamed(schema, renames)
        if new != name and isinstance(renamed, dict):
            renamed["title"] = new
        added[new] = renamed
    merged = {
        **predict,
        "components": {"schemas": {**added, **predict_schemas}},
        "paths": {**_at(train, "paths"), **_at(predict, "paths")},
    }
    result = _sorted(merged)
    assert isinstance(result, dict)
    return result


def _at(document: Json, *keys: str) -> Json:
    for key in keys:
        inner = document[key]
        assert isinstance(inner, dict)
        document = inner
    return document


def _renamed(value: object, renames: Mapping[str, str]) -> object:
    """The value with its references to renamed components led to their new names."""
    if isinstance(value, dict):
        return {
            key: _reference(item, renames) if key == "$ref" else _renamed(item, renames) for key, item in value.items()
        }
    if isinstance(value, list):
        return [_renamed(item, renames) for item in value]
    return value


def _reference(value: object, renames: Mapping[str, str]) -> object:
    name = str(value).removeprefix(SCHEMAS)
    return SCHEMAS + renames[name] if name in renames else value


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _component_names(words: _Words) -> tuple[str, ...]:
    return (words.input, words.output, words.request, words.response)


# -- components ----------------------------------------------------------------------------------------------------


def _input_object(signature: Signature, words: _Words) -> Json:
    properties: Json = {}
    required: list[str] = []
    for order, one in enumerate(signature.inputs):
        properties[one.name] = _property(one, order)
        if _is_required(one):
            required.append(one.name)
    result = _object(words.input, properties)
    if required:
        result["required"] = required
    return dict(sorted(result.items()))


def _is_nullable(one: Input) -> bool:
    """Null is allowed for an optional input, and for a secret that need not be given."""
    return one.type.nullable or (
        one.type.primitive == "Secret" and not isinstance(one.type.shape, Array) and one.default is None
    )


def _has_default(one: Input) -> bool:
    """``seed: int = Input(default=None)`` has none: the code makes one up when it runs."""
    return one.default is not MISSING and (one.default is not None or _is_nullable(one))


def _is_required(one: Input) -> bool:
    return not _has_default(one) and (isinstance(one.type.shape, OneOf) or not one.type.nullable)


def _property(one: Input, order: int) -> Json:
    result: Json = {"x-order": order}
    if one.choices:
        result["allOf"] = [{"$ref": SCHEMAS + one.name}]
    else:
        result |= {**one.type.json(), "title": title(one.name)}
    if _has_default(one):
        result["default"] = one.default
    if _is_nullable(one):
        result["nullable"] = True
    constraints: dict[str, object] = {
        "description": one.description,
        "minimum": one.ge,
        "maximum": one.le,
        "minLength": one.min_length,
        "maxLength": one.max_length,
        "pattern": one.regex,
        "deprecated": one.deprecated or None,
        "x-cog-accept": one.accept,
    }
    result |= {key: value for key, value in constraints.items() if value is not None}
    return dict(sorted(result.items()))


def _enum(name: str, one: Input) -> Json:
    of_type = Type(one.type.shape.items.shape if isinstance(one.type.shape, Array) else one.type.shape).json()
    return {
        "description": _ENUM_DESCRIPTION,
        "enum": list(one.choices),
        "title": name,
        "type": of_type.get("type", "string"),
    }


def _object(name: str, properties: Json, *, sort: bool = False) -> Json:
    return {
        "properties": dict(sorted(properties.items())) if sort else properties,
        "title": name,
        "type": "object",
    }


def _text(name: str, **more: object) -> Json:
    return dict(sorted({"title": name, "type": "string", **more}.items()))


def _response_object(words: _Words) -> Json:
    times = {name: _text(title(name), format="date-time") for name in ("created_at", "started_at", "completed_at")}
    texts = {name: _text(title(name)) for name in ("id", "version", "status", "error", "logs")}
    return _object(
        words.response,
        {
            **times,
            **texts,
            "input": {"$ref": SCHEMAS + words.input},
            "metrics": {"title": "Metrics", "type": "object"},
            "output": {"$ref": SCHEMAS + words.output},
        },
        sort=True,
    )


def _shared_components() -> Json:
    detail = {"items": {"$ref": SCHEMAS + "ValidationError"}, "title": "Detail", "type": "array"}
    location = {
        "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "title": "Location",
        "type": "array",
    }
    error = _object("ValidationError", {"loc": location, "msg": _text("Message"), "type": _text("Error Type")})
    error["required"] = ["loc", "msg", "type"]
    return {
        "Status": {
            "description": _ENUM_DESCRIPTION,
            "enum": ["starting", "processing", "succeeded", "canceled", "failed"],
            "title": "Status",
            "type": "string",
        },
        "HTTPValidationError": _object("HTTPValidationError", {"detail": detail}),
        "ValidationError": dict(sorted(error.items())),
    }


# -- paths ---------------------------------------------------------------------------------------------------------


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _answer(description: str, schema: Json) -> Json:
    return {"content": _content(schema), "description": description}


def _answers(schema: Json, *, validated: bool) -> Json:
    answers: Json = {"200": _answer("Successful Response", schema)}
    if validated:
        answers["422"] = _answer("Validation Error", {"$ref": SCHEMAS + "HTTPValidationError"})
    return answers


def _get(summary: str, operation: str) -> Json:
    return {"get": {"operationId": operation, "responses": _answers({}, validated=False), "summary": summary}}


def _paths(signature: Signature, words: _Words) -> Json:
    operation: Json = {
        "description": words.description,
        "operationId": words.operation,
        "requestBody": {"content": _content({"$ref": SCHEMAS + words.request})},
        "responses": _answers({"$ref": SCHEMAS + words.response}, validated=True),
        "summary": words.summary,
    }
    if signature.streaming and signature.mode is Mode.PREDICT:
        operation["x-cog-streaming"] = True
    cancel: Json = {
        "operationId": words.cancel_operation,
        "parameters": [
            {"in": "path", "name": words.id_parameter, "required": True, "schema": _text(title(words.id_parameter))}
        ],
        "responses": _answers({}, validated=True),
        "summary": "Cancel",
    }
    return {
        "/": _get("Root", "root__get"),
        "/health-check": _get("Healthcheck", "healthcheck_health_check_get"),
        words.path: {"post": operation},
        f"{words.path}/{{{words.id_parameter}}}/cancel": {"post": cancel},
    }
