"""Runs a part of a test as somebody whom file modes hold back, also where tests run as root."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable

import pytest

_VERSION_3 = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


def without_privileges(work: Callable[[], None]) -> None:
    """Do ``work`` in a thread that has given root's power over files up; nobody else's power changes."""
    if os.geteuid() != 0:
        work()
        return
    problems: list[BaseException] = []

    def run() -> None:
        try:
            _give_up()
            work()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]


def _give_up() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "capset"):
        pytest.skip("this system has no capabilities to give up")
    header, data = struct.pack("Ii", _VERSION_3, 0), ctypes.create_string_buffer(24)
    if libc.capget(header, data) != 0:
        pytest.skip(f"capabilities cannot be asked for: {os.strerror(ctypes.get_errno())}")
    effective, *rest = struct.unpack("6I", data.raw)
    effective &= ~(1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH)
    if libc.capset(header, struct.pack("6I", effective, *rest)) != 0:
        pytest.skip(f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}")
