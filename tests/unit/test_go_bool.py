"""Booleans are read as Go reads them."""

from __future__ import annotations

import pytest

from cogkit.go_bool import go_bool


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_what_go_takes_for_true(text: str) -> None:
    assert go_bool(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_what_go_takes_for_false(text: str) -> None:
    assert go_bool(text) is False


@pytest.mark.parametrize("text", ["", "tRUE", "yes", "no", "on", "2", " true", "true ", "\uff11"])
def test_everything_else_is_neither(text: str) -> None:
    assert go_bool(text) is None
