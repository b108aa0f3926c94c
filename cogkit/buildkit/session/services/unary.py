"""What services of messages share: reading a call's request, and telling the daemon of an error that is the user's.

This file must not know any particular service.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from cogkit.buildkit.bounds import has_more_values
from cogkit.buildkit.session.service import CallError, ServerStream
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import CogkitError

MAX_REQUEST = 1 << 20
"""Bytes of a request; those of BuildKit have a few hundred."""

MAX_VALUES = 10_000
"""Values in a request, such as its labels."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


async def receive_request(stream: ServerStream, kind: type[M], *, limit: int = MAX_REQUEST) -> M:
    """The request of a call that has exactly one.

    Args:
        stream: The call.
        kind: What its request is.
        limit: Most bytes of it.

    Raises:
        CallError: there is none, it is too large, or it is no such message.
    """
    message = await stream.receive()
    if message is None:
        raise CallError(StatusCode.INTERNAL, "the call has no request message")
    if len(message) > limit:
        raise CallError(StatusCode.RESOURCE_EXHAUSTED, f"a request of {len(message):,} bytes is too large")
    return decode(message, kind)


def decode(message: bytes, kind: type[M]) -> M:
    """Raises `CallError` if it is no such message, or one that would take far more memory than it has bytes."""
    if has_more_values(message, kind, MAX_VALUES):
        raise CallError(StatusCode.RESOURCE_EXHAUSTED, f"the request has more than {MAX_VALUES:,} values")
    try:
        return kind.FromString(message)
    except DecodeError:
        raise CallError(StatusCode.INTERNAL, "the request message cannot be decoded") from None


async def answered(work: Awaitable[T]) -> T:
    """What ``work`` gives; a `CogkitError` of it ends the call, and is kept as the cause that the user will see."""
    try:
        return await work
    except CogkitError as error:
        raise CallError(StatusCode.UNKNOWN, error.message, cause=error) from error
