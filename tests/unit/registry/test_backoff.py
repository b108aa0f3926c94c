"""How long is waited before a registry is asked again, and when it is given up."""

from __future__ import annotations

import pytest

from cogkit.registry.backoff import Backoff, retry_after


def test_waits_double_up_to_the_ceiling_until_patience_ends() -> None:
    retry = Backoff(first=1, ceiling=4, patience=15).start(lambda: 1.0)
    assert [retry.delay() for _ in range(7)] == [1, 2, 4, 4, 4, None, None]


def test_chance_takes_up_to_half_of_a_wait_away() -> None:
    assert Backoff(first=8).start(lambda: 0.0).delay() == 4


def test_progress_begins_from_the_start_again() -> None:
    retry = Backoff(first=1, ceiling=4, patience=3).start(lambda: 1.0)
    assert [retry.delay(), retry.delay(), retry.delay()] == [1, 2, None]
    retry.progressed()
    assert retry.delay() == 1


def test_what_the_registry_asks_for_is_waited_but_not_everything() -> None:
    retry = Backoff(first=1, asked_at_most=60).start(lambda: 1.0)
    assert retry.delay(10) == 10
    assert retry.delay(0) == 2
    assert retry.delay(61) is None


def test_a_minute_of_429_is_survived() -> None:
    retry = Backoff().start(lambda: 0.0)
    waited = 0.0
    while waited < 60:
        delay = retry.delay()
        assert delay is not None
        waited += delay


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Thu, 01 Jan 1970 00:16:50 GMT", 10.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after(value, now=1000.0) == seconds
