"""The golden schemas: what comes of each case, and what must be true of every one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cogkit.project.config import Config, load_config
from cogkit.project.schema import generate_schema
from tests.golden_schema.regenerate import case_names, outcome, read_case

CASES = case_names()
VALID = [name for name in CASES if not name.startswith("error_")]


def test_there_are_enough_cases() -> None:
    assert len(VALID) >= 40
    assert len(CASES) - len(VALID) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_golden_case_gives_what_it_gave(name: str, tmp_path: Path) -> None:
    # If the change is meant: python tests/golden_schema/regenerate.py, and read the diff.
    case = read_case(name)
    case.write(tmp_path)
    assert outcome(tmp_path) == case.expected


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("error_")])
def test_every_refusal_says_where_and_what_to_do(name: str) -> None:
    expected = read_case(name).expected["error"]
    first, *_, hint = expected.splitlines()
    assert first.split(":")[0] in read_case(name).project
    assert first.split(":")[1].isdigit()
    assert len(hint.removeprefix("hint: ")) > 5
    assert hint != "hint: None"


@pytest.mark.parametrize("name", VALID)
def test_the_bytes_are_the_document_in_its_order(name: str, tmp_path: Path) -> None:
    read_case(name).write(tmp_path)
    result = generate_schema(load_config(tmp_path / "cog.yaml"), tmp_path)
    assert json.loads(result.json) == result.openapi
    again = json.loads(result.json, object_pairs_hook=list)
    assert again == json.loads(json.dumps(result.openapi), object_pairs_hook=list)


def test_user_code_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    (tmp_path / "run.py").write_text(
        f"open({str(marker)!r}, 'w')\nimport other\nclass Runner(other.Base): pass\nraise SystemExit(1)\n"
    )
    (tmp_path / "other.py").write_text(
        f"open({str(marker)!r}, 'w')\nclass Base:\n    def run(self, x: str = 'a') -> str: ...\n"
    )
    generate_schema(Config(run="run.py:Runner"), tmp_path)
    assert not marker.exists()


def written(tmp_path: Path, run: str = "", train: str = "") -> str:
    (tmp_path / "run.py").write_text(
        "from cog import Input\n"
        "def run(prompt: str = Input(description='<b>', ge=0.5)) -> str: ...\n"
        "def train(steps: int = 1) -> bool: ...\n"
    )
    return generate_schema(Config(run=run, train=train), tmp_path, version="9.9.9").json.decode()


PREDICT = """\
{"components":{"schemas":{"Input":{"properties":{"prompt":{"description":"\\u003cb\\u003e","minimum":0.5,\
"title":"Prompt","type":"string","x-order":0}},"required":["prompt"],"title":"Input","type":"object"},\
"Output":{"title":"Output","type":"string"},\
"PredictionRequest":{"properties":{"id":{"title":"Id","type":"string"},\
"input":{"$ref":"#/components/schemas/Input"}},"title":"PredictionRequest","type":"object"},\
"PredictionResponse":{"properties":{"completed_at":{"format":"date-time","title":"Completed At","type":"string"},\
"created_at":{"format":"date-time","title":"Created At","type":"string"},\
"error":{"title":"Error","type":"string"},"id":{"title":"Id","type":"string"},\
"input":{"$ref":"#/components/schemas/Input"},"logs":{"title":"Logs","type":"string"},\
"metrics":{"title":"Metrics","type":"object"},"output":{"$ref":"#/components/schemas/Output"},\
"started_at":{"format":"date-time","title":"Started At","type":"string"},\
"status":{"title":"Status","type":"string"},"version":{"title":"Version","type":"string"}},\
"title":"PredictionResponse","type":"object"},\
"Status":{"description":"An enumeration.","enum":["starting","processing","succeeded","canceled","failed"],\
"title":"Status","type":"string"},\
"HTTPValidationError":{"properties":{"detail":{"items":{"$ref":"#/components/schemas/ValidationError"},\
"title":"Detail","type":"array"}},"title":"HTTPValidationError","type":"object"},\
"ValidationError":{"properties":{"loc":{"items":{"anyOf":[{"type":"string"},{"type":"integer"}]},\
"title":"Location","type":"array"},"msg":{"title":"Message","type":"string"},\
"type":{"title":"Error Type","type":"string"}},"required":["loc","msg","type"],"title":"ValidationError",\
"type":"object"}}},"info":{"title":"Cog","version":"9.9.9"},"openapi":"3.0.2","paths":{\
"/":{"get":{"operationId":"root__get","responses":{"200":{"content":{"application/json":{"schema":{}}},\
"description":"Successful Response"}},"summary":"Root"}},\
"/health-check":{"get":{"operationId":"healthcheck_health_check_get","responses":{"200":{"content":\
{"application/json":{"schema":{}}},"description":"Successful Response"}},"summary":"Healthcheck"}},\
"/predictions":{"post":{"description":"Run a single prediction on the model",\
"operationId":"predict_predictions_post","requestBody":{"content":{"application/json":{"schema":\
{"$ref":"#/components/schemas/PredictionRequest"}}}},"responses":{"200":{"content":{"application/json":{"schema":\
{"$ref":"#/components/schemas/PredictionResponse"}}},"description":"Successful Response"},"422":{"content":\
{"application/json":{"schema":{"$ref":"#/components/schemas/HTTPValidationError"}}},\
"description":"Validation Error"}},"summary":"Predict"}},\
"/predictions/{prediction_id}/cancel":{"post":{"operationId":"cancel_predictions__prediction_id__cancel_post",\
"parameters":[{"in":"path","name":"prediction_id","required":true,"schema":{"title":"Prediction Id",\
"type":"string"}}],"responses":{"200":{"content":{"application/json":{"schema":{}}},\
"description":"Successful Response"},"422":{"content":{"application/json":{"schema":\
{"$ref":"#/components/schemas/HTTPValidationError"}}},"description":"Validation Error"}},"summary":"Cancel"}}}}"""
"""What Cog 0.22's generator writes for the same file, but for the version."""


def test_a_whole_document_for_running_is_cogs_byte_for_byte(tmp_path: Path) -> None:
    assert written(tmp_path, run="run.py:run") == PREDICT


def test_a_document_for_training_has_the_names_of_training(tmp_path: Path) -> None:
    document = json.loads(written(tmp_path, train="run.py:train"))
    assert list(document["paths"]) == ["/", "/health-check", "/trainings", "/trainings/{training_id}/cancel"]
    assert list(document["components"]["schemas"])[:4] == [
        "TrainingInput",
        "TrainingOutput",
        "TrainingRequest",
        "TrainingResponse",
    ]


def test_a_document_for_both_is_sorted_and_indented_as_cogs_is(tmp_path: Path) -> None:
    text = written(tmp_path, run="run.py:run", train="run.py:train")
    assert text == json.dumps(json.loads(text), indent=2, sort_keys=True).replace("<", "\\u003c").replace(
        ">", "\\u003e"
    )
    document = json.loads(text)
    assert {"/predictions", "/trainings"} <= document["paths"].keys()
    assert {"Input", "TrainingInput", "Output", "TrainingOutput"} <= document["components"]["schemas"].keys()
