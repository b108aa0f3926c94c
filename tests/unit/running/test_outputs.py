"""Outputs: what is printed, and which files are written under which names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cogkit.errors import OutputError, UsageError
from cogkit.running.outputs import Prediction, choose_destination, deliver

FILE = {"type": "string", "format": "uri"}
PNG = "data:image/png;base64,cGljdHVyZQ=="


def document(output: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Response"}}}
    return {
        "components": {"schemas": {"Response": {"properties": {"output": output}}}},
        "paths": {"/predictions": {"post": {"responses": {"200": {"content": content}}}}},
    }


def delivered(output: object, schema: dict[str, Any], named: str = "", *, as_json: bool = False) -> tuple[str, str]:
    told: list[str] = []
    shown: list[str] = []
    prediction = Prediction("succeeded", output)
    to = choose_destination(named, as_json=as_json)
    deliver(prediction, document(schema), to, train=False, as_json=as_json, tell=told.append, show=shown.append)
    return "\n".join(told), "\n".join(shown)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_text_and_json_are_printed() -> None:
    assert delivered("hello", {"type": "string"}) == ("", "hello")
    assert delivered([1, "ü"], {"type": "array", "items": {}}) == ("", '[\n  1,\n  "ü"\n]')
    assert delivered(None, {"type": "string"}) == ("No output generated", "")
    assert delivered("hello", {"type": "string"}, "said.txt") == ("Written output to: said.txt", "")
    assert Path("said.txt").read_text() == "hello"


def test_files_get_the_names_that_cog_gives_them() -> None:
    assert delivered(PNG, FILE) == ("Written output to: output.png", "")
    assert Path("output.png").read_bytes() == b"picture"
    assert delivered(PNG, FILE, "mine.bmp")[0] == "Written output to: mine.bmp"
    several = {"type": "array", "items": FILE}
    assert delivered([PNG, "data:text/plain,a%20b"], several)[0] == (
        "Written output to: output.0.png\nWritten output to: output.1.txt"
    )
    assert Path("output.1.txt").read_text() == "a b"
    Path("folder").mkdir()
    assert delivered(PNG, FILE, "folder")[0] == "Written output to: folder/output.png"


def test_json_names_the_files() -> None:
    _, shown = delivered(PNG, FILE, as_json=True)
    assert json.loads(shown)["output"] == "output.png"


@pytest.mark.parametrize("output", [5, "https://example.com/a.png", "data:image/png;base64,%%"])
def test_what_is_no_file_is_not_written(output: object) -> None:
    with pytest.raises(OutputError):
        delivered(output, FILE)


def test_a_place_that_cannot_be_written_is_known_before() -> None:
    Path("output").mkdir()
    with pytest.raises(UsageError, match="conflicts with directory"):
        choose_destination("", as_json=False)
    with pytest.raises(UsageError, match="not writable"):
        choose_destination("no/such/folder/x", as_json=False)
