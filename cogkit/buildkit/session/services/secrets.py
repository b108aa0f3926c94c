"""The Secrets service: hands the secrets that the user named to build steps that mount them.

The daemon asks by id; an id that was not named is refused, whatever this machine has under it.  A value is read when it
is first asked for, and then kept: a pipe can be read once only.  Values appear in no message, ``repr`` or log.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path

from cogkit._proto import secrets_pb2
from cogkit.buildkit.blocking import in_thread
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.session.service import CallError, Handler, ServerStream
from cogkit.buildkit.session.services.unary import answered, receive_request
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

MAX_SIZE = 500 * 1024
"""Most bytes of a secret (``secretsprovider.MaxSecretSize``)."""


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where a secret comes from: an environment variable, a file, or the program itself; one of them.

    Attributes:
        id: What the build knows it as.
        env: Name of the variable.
        path: The file.
        value: The secret itself.
    """

    id: str
    env: str | None = None
    path: Path | None = None
    value: bytes | None = field(default=None, repr=False)

    def check(self) -> None:
        """Find out before the build what would fail in its middle.

        Raises:
            UsageError: there is no such file or variable, or it holds too much.
        """
        if self.value is not None:
            if len(self.value) > MAX_SIZE:
                raise UsageError(f"secret {self.id}: {_too_large('it')}")
        elif self.path is not None:
            self._check_file(self.path)
        elif self.env is None or self.env not in os.environ:
            raise UsageError(
                f"secret {self.id}: the environment variable {self.env} is not set",
                hint=f"set {self.env}, or read the secret from a file: id={self.id},src=FILE",
            )
        elif len(os.environb[os.fsencode(self.env)]) > MAX_SIZE:
            raise UsageError(f"secret {self.id}: {_too_large(f'the environment variable {self.env}')}")

    def _check_file(self, path: Path) -> None:
        try:
            status = path.stat()
        except OSError as problem:
            raise UsageError(
                f"secret {self.id}: cannot read {path}: {problem.strerror}",
                hint="src= names the file, env= a variable that holds the secret",
            ) from problem
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"secret {self.id}: {path} is a folder", hint="src= names a file")
        if stat.S_ISSOCK(status.st_mode):
            raise UsageError(f"secret {self.id}: {path} is a socket, or closed", hint="src= names a file")
        if not os.access(path, os.R_OK):
            raise UsageError(f"secret {self.id}: cannot read {path}: Permission denied")
        if stat.S_ISREG(status.st_mode) and status.st_size > MAX_SIZE:
            raise UsageError(f"secret {self.id}: {_too_large(str(path))}")

    def read(self) -> bytes:
        """The secret.

        Raises:
            BuildError: it cannot be read any more, or has grown too large.
        """
        if self.value is not None:
            return self.value
        if self.path is None:
            assert self.env is not None
            return os.environb.get(os.fsencode(self.env), b"")
        try:
            with self.path.open("rb") as file:
                value = file.read(MAX_SIZE + 1)
        except OSError as problem:
            raise BuildError(f"secret {self.id}: cannot read {self.path}: {problem.strerror}") from problem
        if len(value) > MAX_SIZE:
            raise BuildError(f"secret {self.id}: {_too_large(str(self.path))}")
        return value


def _too_large(what: str) -> str:
    return f"{what} is larger than {MAX_SIZE // 1024} KiB, the most a secret may have"


def _notice(reading: asyncio.Task[bytes]) -> None:
    """A failure that comes when all who asked have left is nobody's to await."""
    if not reading.cancelled():
        reading.exception()


class Secrets:
    """The session's service for secrets.

    Args:
        sources: What may be asked for; of two with one id the last counts.
    """

    def __init__(self, sources: Iterable[SecretSource]):
        self._sources = {source.id: source for source in sources}
        self._reading: dict[str, asyncio.Task[bytes]] = {}

    def methods(self) -> Mapping[str, Handler]:
        return {"/moby.buildkit.secrets.v1.Secrets/GetSecret": self._get_secret}

    async def _get_secret(self, stream: ServerStream) -> None:
        request = await receive_request(stream, secrets_pb2.GetSecretRequest)
        source = self._sources.get(request.ID)
        if source is None:
            raise CallError(StatusCode.NOT_FOUND, "not found")
        value = await answered(self._value(source))
        await stream.send(secrets_pb2.GetSecretResponse(data=value).SerializeToString())

    async def _value(self, source: SecretSource) -> bytes:
        """The secret; one thread reads it for all who ask, also when the first of them has left."""
        reading = self._reading.get(source.id)
        if reading is None or (reading.done() and (reading.cancelled() or reading.exception() is not None)):
            reading = self._reading[source.id] = asyncio.create_task(in_thread(source.read))
            reading.add_done_callback(_notice)
        return await asyncio.shield(reading)
