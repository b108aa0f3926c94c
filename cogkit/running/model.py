"""A model's server in the container: started, waited for, asked.

This file must not know where inputs come from or outputs go.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http.client import HTTPException, HTTPResponse
from typing import Any, cast

from cogkit.errors import CogkitError
from cogkit.running.attached import STDERR, copy_output
from cogkit.running.link import Channel, Link, RefusedError, RemoteProcess
from cogkit.running.outputs import Prediction

SETUP_TIMEOUT = 300.0
ASK_EVERY = 0.05
MAX_ANSWER = 4 << 30
SERVER = ("python", "--check-hash-based-pycs", "never", "-m", "cog.server.http", "--await-explicit-shutdown", "true")
TRAINING_SERVER = ("python", "-m", "cog.server.http", "--x-mode", "train")
TAIL = 64 * 1024


class ModelError(CogkitError):
    """The model could not be set up, or a prediction failed."""


class Model:
    """A running server.

    Attributes:
        port: Where it listens in the container.
        process: Its process.
    """

    def __init__(self, link: Link, process: RemoteProcess, port: int) -> None:
        self.link = link
        self.process = process
        self.port = port
        self.exited: asyncio.Task[int] = asyncio.create_task(process.wait())

    async def ready(self, timeout: float) -> None:
        """Wait until the model is set up.

        Raises:
            ModelError: it failed, ended, or took too long, in Cog's words.
        """
        try:
            async with asyncio.timeout(timeout):
                while True:
                    status = await health(self.link, self.port)
                    if status == "READY":
                        return
                    if status == "SETUP_FAILED":
                        raise ModelError("Model setup failed", hint="its own words are above")
                    if status not in ("", "STARTING"):
                        raise ModelError(f"Container healthcheck returned unexpected status: {status}")
                    await asyncio.wait({self.exited}, timeout=ASK_EVERY)
                    if self.exited.done():
                        raise ModelError(
                            f"Container exited unexpectedly, with exit code {self.exited.result()}",
                            hint="the model's own words are above",
                        )
        except TimeoutError:
            raise ModelError(
                f"Timed out: the model was not set up within {timeout:g} seconds",
                hint="give it more time with --setup-timeout SECONDS",
            ) from None

    async def schema(self) -> Mapping[str, Any]:
        """Its OpenAPI schema.

        Raises:
            ModelError: it does not give one.
        """
        code, body = await request(self.link, self.port, "GET", "/openapi.json")
        try:
            found = json.loads(body) if code == 200 else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ModelError(f"Failed to get OpenAPI schema: {code}")
        return found

    async def predict(self, inputs: Mapping[str, Any], context: Mapping[str, str], *, train: bool) -> Prediction:
        """Run a prediction, or a training.

        Raises:
            ModelError: the server refused the inputs, or ended.
        """
        endpoint = "trainings" if train else "predictions"
        body = json.dumps({"input": inputs, "context": context}).encode()
        asking = asyncio.create_task(request(self.link, self.port, "POST", f"/{endpoint}", body))
        try:
            waited: set[asyncio.Task[Any]] = {asking, self.exited}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                # Its last answer may still be on its way.
                await asyncio.wait({asking}, timeout=1.0)
            if not asking.done() or (self.exited.done() and asking.exception() is not None):
                raise ModelError(
                    f"Failed to run prediction: the model's server ended with exit code {self.exited.result()}",
                    hint="its own words are above",
                )
            code, answer = asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        if code == 422:
            raise _refused(answer, endpoint, train=train)
        if code != 200:
            raise ModelError(f"Failed to run prediction: /{endpoint} call returned status {code}")
        return _prediction(answer)


def _prediction(answer: bytes) -> Prediction:
    try:
        found = json.loads(answer)
        metrics = found.get("metrics")
        return Prediction(
            str(found.get("status")),
            found.get("output"),
            str(found.get("error") or ""),
            metrics if isinstance(metrics, dict) else None,
        )
    except (ValueError, AttributeError, RecursionError) as problem:
        raise ModelError(f"Failed to decode prediction response: {problem}") from None


def _refused(answer: bytes, endpoint: str, *, train: bool) -> ModelError:
    try:
        details = json.loads(answer)["detail"]
        lines = []
        for detail in details:
            *place, name = detail["loc"]
            if place != ["body", "input"]:
                raise LookupError
            lines.append(f"- {name}: {detail['msg']}")
    except (ValueError, LookupError, TypeError):
        text = answer[:2000].decode("utf-8", "replace")
        return ModelError(f"/{endpoint} call returned status 422, with an unexpected message in response: {text}")
    command = "train" if train else "run"
    return ModelError(
        "The inputs you passed could not be validated:\n\n" + "\n".join(lines),
        hint=f"give an input as: cogkit {command} -i blur=3.5, a file as: cogkit {command} -i path=@image.jpg",
    )


async def health(link: Link, port: int) -> str:
    """What a model's server says of itself; empty if it does not answer yet.

    Raises:
        ModelError: its answer makes no sense.
    """
    try:
        code, body = await request(link, port, "GET", "/health-check")
    except (RefusedError, ModelError):
        return ""  # it does not listen yet, or has just begun to
    if code != 200:
        return ""
    try:
        return str(json.loads(body)["status"])
    except (ValueError, LookupError, TypeError):
        raise ModelError("Container healthcheck returned invalid response") from None


async def request(link: Link, port: int, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """One request to a server in the container, on a connection of its own: the status, and the body.

    Raises:
        RefusedError: nobody listens on the port.
        ModelError: what came back is not HTTP.
    """
    channel = await link.connect(port)
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    sending = asyncio.create_task(_send(channel, head.encode() + body))
    try:
        answer = bytearray()
        while data := await channel.read():
            answer += data
            if len(answer) > MAX_ANSWER:
                raise ModelError("the model's answer is too large to be kept in memory")
        return _parsed(bytes(answer), method)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        channel.reset()


async def _send(channel: Channel, data: bytes) -> None:
    await channel.write(data)


class _Said:
    """An answer as the socket that `HTTPResponse` reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parsed(answer: bytes, method: str) -> tuple[int, bytes]:
    response = HTTPResponse(cast(Any, _Said(answer)), method=method)
    try:
        response.begin()
        return response.status, response.read()
    except (HTTPException, OSError, ValueError) as problem:
        raise ModelError(f"the model's server did not answer: {problem or type(problem).__name__}") from None


@asynccontextmanager
async def serving(
    link: Link, args: Sequence[str], env: Mapping[str, str], cwd: str, *, on_log: Callable[[bytes], None] | None = None
) -> AsyncIterator[Model]:
    """A model's server, with what it says on our standard error, until it is left."""
    port = await link.free_port()
    process = await link.start(args, {**env, "PORT": str(port)}, cwd)
    assert process.stderr is not None
    logs = [asyncio.create_task(_copied(each, on_log)) for each in (process.stdout, process.stderr)]
    model = Model(link, process, port)
    try:
        yield model
    finally:
        if not model.exited.done():
            await _terminated(process, model.exited)
        # Whatever it has still to say belongs before what we say.
        await asyncio.wait(logs, timeout=1.0)
        for task in (*logs, model.exited):
            task.cancel()
        await asyncio.gather(*logs, model.exited, return_exceptions=True)


async def _terminated(process: RemoteProcess, exited: asyncio.Task[int]) -> None:
    try:
        # Its orderly end takes a while; nobody wants anything of it any more.
        await process.signal("KILL")
        await asyncio.wait({exited}, timeout=1.0)
    except CogkitError:
        pass


async def _copied(channel: Channel, on_log: Callable[[bytes], None] | None) -> None:
    if on_log is None:
        await copy_output(channel, STDERR)
        return
    try:
        while data := await channel.read():
            on_log(data)
    except CogkitError:
        pass
