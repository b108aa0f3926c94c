"""Expressions of a schema that only the image can evaluate: what it is asked, and how its answers are read.

The image is not trusted: what it answers is JSON and checked as such.  This file must not talk to a builder.
"""

from __future__ import annotations

import json
from pathlib import Path

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.schema.generate import SchemaResult
from cogkit.project.schema.inputs import Answers

MAX_ANSWERS = 4 << 20
"""Bytes read of the answers."""

STATIC_HINT = (
    "Write it as a literal or a constant of the project, give the schema with --openapi-schema, or see with --schema "
    "static what the source alone says."
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the image is asked.

    Attributes:
        questions: The questions as JSON; the same for the same source.
        told: A line for each expression, for people.
        places: For each function's key and parameter, where it stands.
    """

    questions: bytes
    told: tuple[str, ...]
    places: dict[tuple[str, str], str]


def ask(result: SchemaResult) -> Evaluation | None:
    """What has to be evaluated for a schema to be whole; None if it is."""
    if not result.questions:
        return None
    asked: list[dict[str, object]] = []
    told: list[str] = []
    places: dict[tuple[str, str], str] = {}
    for one in result.questions:
        parameters = list(dict.fromkeys(question.parameter for question in one.asked))
        asked.append(
            {
                "key": one.key,
                "file": one.path,
                "class": one.owner,
                "function": one.function,
                "parameters": parameters,
            }
        )
        for question in one.asked:
            text = question.text if len(question.text) <= 60 else question.text[:59] + "…"
            told.append(f"{question.where}: `{text}` of parameter '{question.parameter}'")
            places.setdefault((one.key, question.parameter), question.where)
    return Evaluation(json.dumps(asked, indent=1).encode() + b"\n", tuple(told), places)


def script() -> bytes:
    """The program that answers in the image."""
    return Path(__file__).with_name("evaluate_in_image.py").read_bytes()


def read_answers(data: bytes, evaluation: Evaluation) -> dict[str, Answers]:
    """The answers of the image.

    Raises:
        ConfigError: Something could not be evaluated, or it is no answer.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    answers: dict[str, dict[str, dict[str, object]]] = {}
    for (key, parameter), where in evaluation.places.items():
        of_function = found.get(key) if isinstance(found, dict) else None
        answer = of_function.get(parameter) if isinstance(of_function, dict) else None
        if not isinstance(answer, dict):
            answer = {"error": "the image gave no answer"}
        if "error" in answer:
            reason = " ".join(str(answer["error"]).split())[:300]
            raise ConfigError(
                f"parameter '{parameter}': its default cannot be evaluated in the image: {reason}",
                where=where,
                hint=STATIC_HINT,
            )
        answers.setdefault(key, {})[parameter] = answer
    return dict[str, Answers](answers)
