"""What services of messages share: reading a call's request, and telling the daemon of an error that is the user's.

This file must not know any particular service.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from cogkit.buildkit.session.service import CallError, ServerStream, StatusCode
from cogkit.errors import CogkitError

M = TypeVar("M", bound=Message)
T = TypeVar("T")


async def receive_request(stream: ServerStream, kind: type[M]) -> M:
    """The request of a call that has exactly one.

    Raises:
        CallError: there is none, or it is no such message.
    """
    message = await stream.receive()
    if message is None:
        raise CallError(StatusCode.INTERNAL, "the call has no request message")
    return decode(message, kind)


def decode(message: bytes, kind: type[M]) -> M:
    """Raises `CallError` if it is no such message."""
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
