"""Status events: what of the message they keep, and that rawjson is what Go's encoder writes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from cogkit._proto import control_pb2, ops_pb2
from cogkit.buildkit.status import (
    Instant,
    ProgressGroup,
    Range,
    SolveStatus,
    SourceInfo,
    Vertex,
    VertexLog,
    VertexStatus,
    VertexWarning,
    to_rawjson,
)

T = Instant.at(1_700_000_000, 123_456_789)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "2023-11-14T22:13:20Z"),
        (100_000_000, "2023-11-14T22:13:20.1Z"),
        (120, "2023-11-14T22:13:20.00000012Z"),
        (1, "2023-11-14T22:13:20.000000001Z"),
        (999_999_999, "2023-11-14T22:13:20.999999999Z"),
    ],
)
def test_times_are_written_as_go_writes_them(nanos: int, text: str) -> None:
    assert Instant.at(1_700_000_000, nanos).rfc3339() == text


@given(st.integers(-(2**31), 2**35), st.integers(0, 999_999_999))
def test_an_instant_is_the_datetime_of_its_microsecond_and_keeps_the_rest(seconds: int, nanos: int) -> None:
    instant = Instant.at(seconds, nanos)
    assert instant == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
    assert instant.nanosecond == nanos


def test_a_message_becomes_frozen_data() -> None:
    stamp = Timestamp(seconds=1_700_000_000, nanos=123_456_789)
    response = control_pb2.StatusResponse(
        vertexes=[
            control_pb2.Vertex(
                digest="sha256:a",
                inputs=["sha256:b"],
                name=b"[1/2] RUN x",
                cached=True,
                started=stamp,
                progressGroup=ops_pb2.ProgressGroup(id="g", name="group", weak=True),
            )
        ],
        statuses=[control_pb2.VertexStatus(ID=b"layer", vertex="sha256:a", current=1, total=2, timestamp=stamp)],
        logs=[control_pb2.VertexLog(vertex="sha256:a", stream=2, msg=b"\xff\n", timestamp=stamp)],
        warnings=[
            control_pb2.VertexWarning(
                vertex="sha256:a",
                level=1,
                short=b"bad",
                detail=[b"very"],
                url="http://u",
                info=ops_pb2.SourceInfo(filename="Dockerfile", data=b"FROM x", language="Dockerfile"),
                ranges=[ops_pb2.Range(start=ops_pb2.Position(line=1), end=ops_pb2.Position(line=2))],
            )
        ],
    )
    assert SolveStatus.from_proto(response) == SolveStatus(
        vertexes=(
            Vertex(
                "sha256:a",
                "[1/2] RUN x",
                ("sha256:b",),
                T,
                cached=True,
                progress_group=ProgressGroup("g", "group", True),
            ),
        ),
        statuses=(VertexStatus("layer", "sha256:a", T, current=1, total=2),),
        logs=(VertexLog("sha256:a", T, 2, b"\xff\n"),),
        warnings=(
            VertexWarning(
                "sha256:a",
                1,
                "bad",
                ("very",),
                "http://u",
                SourceInfo("Dockerfile", b"FROM x", "Dockerfile"),
                (Range(1, 2),),
            ),
        ),
    )


def test_a_name_that_is_not_utf8_does_not_lose_the_event() -> None:
    wire = control_pb2.StatusResponse(vertexes=[control_pb2.Vertex(name=b"COPY \xff /", error=b"\xfe: gone")])
    vertex = SolveStatus.from_proto(control_pb2.StatusResponse.FromString(wire.SerializeToString())).vertexes[0]
    assert (vertex.name, vertex.error) == ("COPY \N{REPLACEMENT CHARACTER} /", "\N{REPLACEMENT CHARACTER}: gone")


def test_an_empty_event_is_an_empty_object() -> None:
    assert to_rawjson(SolveStatus()) == "{}"


def test_rawjson_is_byte_for_byte_what_go_writes() -> None:
    """Expected lines after BuildKit's client.SolveStatus: its field order, its omitempty, Go's escapes."""
    status = SolveStatus(
        vertexes=(
            Vertex(digest="sha256:a", name='RUN a && b <"c"> \u2028', started=T, error="tab\there"),
            Vertex(digest="sha256:b", inputs=("sha256:a",), cached=True, progress_group=ProgressGroup("g", weak=True)),
        ),
        statuses=(VertexStatus("x", "sha256:a", T, total=5, completed=Instant.at(0)),),
        logs=(VertexLog("sha256:a", T, 1, b"hi"), VertexLog("sha256:a", T, 2, b"")),
    )
    assert to_rawjson(status) == (
        '{"vertexes":['
        r'{"digest":"sha256:a","name":"RUN a \u0026\u0026 b \u003c\"c\"\u003e \u2028",'
        r'"started":"2023-11-14T22:13:20.123456789Z","error":"tab\there"},'
        '{"digest":"sha256:b","inputs":["sha256:a"],"cached":true,"progressGroup":{"id":"g","weak":true}}'
        '],"statuses":['
        '{"id":"x","vertex":"sha256:a","total":5,"current":0,"timestamp":"2023-11-14T22:13:20.123456789Z",'
        '"completed":"1970-01-01T00:00:00Z"}'
        '],"logs":['
        '{"vertex":"sha256:a","stream":1,"data":"aGk=","timestamp":"2023-11-14T22:13:20.123456789Z"},'
        '{"vertex":"sha256:a","stream":2,"data":null,"timestamp":"2023-11-14T22:13:20.123456789Z"}'
        "]}"
    )


def test_rawjson_of_a_warning_has_the_llb_that_gets_its_source() -> None:
    definition = ops_pb2.Definition(ops=[b"op"])
    definition.metadata["sha256:z"].caps["source.local"] = True
    definition.metadata["sha256:b"].description["com.docker"] = "x"
    source = SourceInfo("Dockerfile", b"FROM", "Dockerfile", definition.SerializeToString())
    warning = VertexWarning("sha256:a", 1, "s", ("d", ""), "u", source, (Range(1, 2, 0, 3),))
    made = json.loads(to_rawjson(SolveStatus(warnings=(warning,))))["warnings"]
    assert made == [
        {
            "vertex": "sha256:a",
            "level": 1,
            "short": "cw==",
            "detail": ["ZA==", ""],
            "url": "u",
            "sourceInfo": {
                "filename": "Dockerfile",
                "data": "RlJPTQ==",
                "definition": {
                    "def": ["b3A="],
                    "metadata": {
                        "sha256:b": {"description": {"com.docker": "x"}},
                        "sha256:z": {"caps": {"source.local": True}},
                    },
                },
                "language": "Dockerfile",
            },
            "range": [{"start": {"line": 1}, "end": {"line": 2, "character": 3}}],
        }
    ]
    assert list(made[0]["sourceInfo"]["definition"]["metadata"]) == ["sha256:b", "sha256:z"]


def test_a_plain_datetime_in_an_event_of_ones_own_is_written_in_utc() -> None:
    elsewhere = datetime.fromisoformat("2023-11-14T23:13:20.5+01:00")
    line = to_rawjson(SolveStatus(logs=(VertexLog("v", elsewhere, 1, b"x"),)))  # type: ignore[arg-type]
    assert json.loads(line)["logs"][0]["timestamp"] == "2023-11-14T22:13:20.5Z"
