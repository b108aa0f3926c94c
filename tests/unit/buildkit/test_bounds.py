"""What is refused unread because it would take far more memory than it has bytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit._proto import control_pb2, gateway_pb2
from cogkit.buildkit.bounds import MAX_VALUES, check_answer, has_more_values
from cogkit.buildkit.errors import FloodError
from tests.scripted_sender import blob, number


def test_a_message_of_two_byte_values_is_refused_in_little_time() -> None:
    for message in (b"\x0a\x00" * (8 << 20), b"\x08\x00" * (8 << 20), blob(3, b"\x0a\x00" * (7 << 20))):
        began = time.thread_time()
        with pytest.raises(FloodError, match="answer to Ping is not credible"):
            check_answer(message, gateway_pb2.PongResponse, "Ping")
        assert time.thread_time() - began < 5


def test_large_content_is_no_flood() -> None:
    message = gateway_pb2.ReadFileResponse(Data=b"\x0a\x00" * (6 << 20)).SerializeToString()
    check_answer(message, gateway_pb2.ReadFileResponse, "ReadFile")


def test_a_long_list_of_cache_records_is_no_flood() -> None:
    record = control_pb2.UsageRecord(
        ID="a" * 25,
        Size=1 << 30,
        Description="mount / from exec /bin/sh -c make",
        RecordType="regular",
        Parents=["b" * 25],
    )
    record.CreatedAt.seconds = record.LastUsedAt.seconds = 1_700_000_000
    message = control_pb2.DiskUsageResponse(record=[record] * 60_000).SerializeToString()
    check_answer(message, control_pb2.DiskUsageResponse, "DiskUsage")


def test_values_in_messages_in_messages_count() -> None:
    caps = blob(1, b"\x08\x00" * 10) * 3  # three messages with ten values each
    assert has_more_values(caps, gateway_pb2.PongResponse, 32)
    assert not has_more_values(caps, gateway_pb2.PongResponse, 33)


@given(st.binary(max_size=300), st.integers(0, 20))
def test_what_cannot_be_read_is_left_to_the_reader(message: bytes, limit: int) -> None:
    assert has_more_values(message, gateway_pb2.SolveResponse, limit) in (False, True)


@given(st.lists(st.integers(1, 2**60), max_size=40), st.integers(0, 50))
def test_numbers_of_any_length_are_one_value_each(values: list[int], limit: int) -> None:
    message = b"".join(number(2, value) for value in values)
    assert has_more_values(message, gateway_pb2.SolveResponse, limit) == (
        len(values) > limit and len(message) > 2 * limit
    )


def test_a_number_that_some_readers_take_and_others_refuse_ends_no_counting() -> None:
    overlong = b"\x10" + b"\xff" * 9 + b"\x7f"
    assert gateway_pb2.PongResponse.FromString(overlong) is not None, "this reader takes it"
    assert has_more_values(overlong + b"\x08\x00" * 40, gateway_pb2.PongResponse, 40)


def test_the_limit_is_above_what_a_daemon_lists() -> None:
    assert MAX_VALUES > 60_000 * 15
