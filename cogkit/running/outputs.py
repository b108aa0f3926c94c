"""What a prediction gave: onto the screen, or into files with the names that Cog would choose.

This file must not talk to a model.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import posixpath
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from cogkit.errors import OutputError, UsageError
from cogkit.fast_dataclass import dataclass
from cogkit.running.media_types import extension_of

Schema = Mapping[str, Any]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The model's answer.

    Attributes:
        status: ``succeeded``, ``failed`` or ``canceled``.
        output: What it gave.
        error: Why it failed.
        metrics: What it measured.
    """

    status: str
    output: Any = None
    error: str = ""
    metrics: Mapping[str, Any] | None = None

    def as_json(self) -> str:
        """As ``--json`` prints it."""
        shown: dict[str, Any] = {"status": self.status, "output": self.output, "error": self.error}
        if self.metrics:
            shown["metrics"] = dict(self.metrics)
        return json.dumps(shown, indent=2, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the output goes.

    Attributes:
        path: A file; where the output is not a file, and nothing was named, it is not written.
        is_named: Whether the user has named it.
    """

    path: str
    is_named: bool


def choose_destination(named: str, *, as_json: bool) -> Destination:
    """Where the output goes, found out before anything runs.

    Raises:
        UsageError: it cannot be written there.
    """
    fallback = "output.json" if as_json else "output"
    path = os.path.expanduser(named.removeprefix("@")) or fallback
    if os.path.isdir(path):
        if not named:
            raise UsageError(
                f'Output path is not writable: Default output name "{path}" conflicts with directory',
                hint="name another with --output",
            )
        folder, path = path, os.path.join(path, fallback)
    else:
        folder = path if os.path.exists(path) else os.path.dirname(path) or "."
    if not os.access(folder, os.W_OK):
        raise UsageError(f"Output path is not writable: {folder}", hint="name another with --output")
    return Destination(path, bool(named))


def output_schema(document: Schema, *, train: bool) -> Schema:
    """The schema of the output; empty if the document does not say."""
    found: Any = document
    path = ("paths", "/trainings" if train else "/predictions", "post", "responses", "200", "content")
    for key in (*path, "application/json", "schema"):
        found = found.get(key, {}) if isinstance(found, dict) else {}
    found = _resolved(found, document)
    return _resolved((found.get("properties") or {}).get("output") or {}, document)


def _resolved(schema: Any, document: Schema) -> Schema:
    for _ in range(16):
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        schema = document
        for part in reference[2:].split("/"):
            schema = schema.get(part, {}) if isinstance(schema, dict) else {}
    return schema if isinstance(schema, dict) else {}


def deliver(
    prediction: Prediction, document: Schema, to: Destination, *, train: bool, as_json: bool, tell: Tell, show: Tell
) -> None:
    """Write or show the output.

    Args:
        prediction: The answer.
        document: The model's schema.
        to: Where it goes.
        train: Whether it is a training's.
        as_json: The whole answer is wanted, as JSON.
        tell: Says a line to the user.
        show: Prints to standard output.

    Raises:
        OutputError: it cannot be written.
    """
    schema = output_schema(document, train=train)
    is_file = _is_file(schema, document)
    is_files = schema.get("type") == "array" and _is_file(_resolved(schema.get("items") or {}, document), document)
    output = prediction.output
    if prediction.status == "succeeded" and output is not None and (is_file or is_files):
        path = posixpath.splitext(to.path)[0] if as_json else to.path
        output = _write_files(output, path, tell) if is_files else write_data_url(output, path, tell)
    if as_json:
        text = Prediction(prediction.status, output, prediction.error, prediction.metrics).as_json()
        _show_or_write(text, to, tell, show)
    elif output is None:
        tell("No output generated")
    elif not (is_file or is_files):
        text = output if isinstance(output, str) else json.dumps(output, indent=2, ensure_ascii=False)
        _show_or_write(text, to, tell, show)


def _is_file(schema: Schema, document: Schema) -> bool:
    return schema.get("type") == "string" and schema.get("format") == "uri"


def _show_or_write(text: str, to: Destination, tell: Tell, show: Tell) -> None:
    if to.is_named:
        _write(to.path, text.encode("utf-8", "surrogatepass"))
        tell(f"Written output to: {to.path}")
    else:
        show(text)


def _write_files(outputs: Any, path: str, tell: Tell) -> list[str]:
    if not isinstance(outputs, list):
        raise OutputError("the model's output is not a list of files, as its schema says")
    stem, extension = posixpath.splitext(path)
    return [write_data_url(output, f"{stem}.{place}{extension}", tell) for place, output in enumerate(outputs)]


def write_data_url(url: Any, path: str, tell: Tell) -> str:
    """Write a file that came as a ``data:`` URL; without an extension it gets that of its type.

    Raises:
        OutputError: it is not a file, or cannot be written.
    """
    head, comma, body = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:"):
        raise OutputError("Failed to write output: the model's output is not a file, as its schema says")
    kind = head.removeprefix("data:")
    try:
        is_base64 = kind.endswith(";base64")
        content = base64.b64decode(body, validate=True) if is_base64 else unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise OutputError("Failed to write output: the file that the model gave cannot be decoded") from None
    stem, extension = posixpath.splitext(path)
    if not extension or extension[1:].isdecimal():
        stem, extension = path, extension_of(kind.removesuffix(";base64").replace("None", ""))
    _write(stem + extension, content)
    tell(f"Written output to: {stem + extension}")
    return stem + extension


def _write(path: str, content: bytes) -> None:
    # In its place, as Cog does, and so into what a link or a pipe leads to.
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), "wb") as file:
            file.write(content)
    except OSError as problem:
        raise OutputError(f"Failed to write output: {path}: {problem.strerror}") from problem
