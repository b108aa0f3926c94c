"""What can go wrong with a daemon and its builds: the errors of the library, with the facts as attributes.

`BuildKitError` is the base.  What went wrong on the local disk is a `cogkit.errors.OutputError`, what the caller asked
for that makes no sense a `cogkit.errors.UsageError`.  How errors are read from what a daemon says is in
`error_details`.  This file must not import gRPC or protobuf, and must not name exit codes or flags.
"""

from __future__ import annotations

from cogkit.buildkit.status import Range, SourceInfo
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.errors import CogkitError
from cogkit.fast_dataclass import dataclass

_MAX_SHOWN = 200
"""Lines of an excerpt."""


class BuildKitError(CogkitError):
    """Base of the errors that a daemon or a build is the cause of."""


class BuilderUnreachableError(BuildKitError):
    """No builder answers at the address, or it went away.

    Attributes:
        address: The address, as the caller would write it; None if it was not known which.
    """

    def __init__(
        self,
        message: str,
        *,
        address: object = None,
        where: str | None = None,
        hint: str | None = None,
        detail: str | None = None,
    ):
        super().__init__(message, where=where, hint=hint, detail=detail)
        self.address = None if address is None else str(address)


class BuildError(BuildKitError):
    """The build ran and failed."""


class FloodError(BuildError):
    """The daemon reports more than a build can have."""


class SessionProtocolError(BuildError):
    """The daemon broke the protocol of the session: HTTP/2, gRPC framing, or a limit of ours."""


class RequestError(BuildKitError):
    """The daemon refused a request that is not a build, or could not answer it."""


class UnreadableAnswerError(BuildKitError):
    """The daemon answered with bytes that are not the answer."""

    def __init__(self, address: object, method: str):
        super().__init__(
            f"the builder at {address} answered {method.rpartition('/')[2]} with something that cannot be read",
            hint="look at the log of buildkitd, and whether something between here and there changes what it says",
        )


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Lines of a source file, such as the instruction of a Dockerfile that failed."""

    info: SourceInfo
    ranges: tuple[Range, ...]

    @property
    def line(self) -> int:
        """The first of the lines, from 1; 0 if the frontend named none."""
        return min((span.start_line for span in self.ranges), default=0)

    def excerpt(self) -> str:
        """The lines with some around them, marked and numbered as buildctl prints them; empty without any."""
        lines = self.info.data.decode("utf-8", "replace").split("\n")
        first, last = self.line, max((max(span.start_line, span.end_line) for span in self.ranges), default=0)
        if not 1 <= first <= len(lines):
            return ""
        last = min(last, len(lines))
        around = 2 if first == last else 1
        rule = "-" * 20
        shown = range(max(1, first - around), min(len(lines), last + around) + 1)[:_MAX_SHOWN]
        body = [f" {n:3d} | {'>>>' if self._marks(n) else '   '} {lines[n - 1]}".rstrip() for n in shown]
        return "\n".join([f"{self.info.filename}:{first}", rule, *body, rule])

    def _marks(self, line: int) -> bool:
        return any(line in span for span in self.ranges)


class SolveError(BuildError):
    """A build that ran and failed, or a call of its gateway that did.

    Attributes:
        code: The gRPC status that the daemon gave.
        vertex: Digest of the step that failed, if one did.
        vertex_name: Its name, if the status stream showed it.
        log_tail: The last lines that it printed.
        sources: Where the step comes from, innermost file first; ``source`` is the first of them.
        process_exit_code: With which code a process of the build ended, if that is what failed.
        status: The whole status (a marshalled google.rpc.Status), to hand on.
    """

    def __init__(
        self,
        message: str,
        *,
        code: StatusCode = StatusCode.UNKNOWN,
        vertex: str | None = None,
        sources: tuple[SourceLocation, ...] = (),
        process_exit_code: int | None = None,
        status: bytes = b"",
        hint: str | None = None,
    ):
        first = next((each for each in sources if each.line), None)
        super().__init__(
            message,
            where=f"{first.info.filename}:{first.line}" if first else None,
            hint=hint,
            detail="\n".join(text for each in sources if (text := each.excerpt())) or None,
        )
        self.code = code
        self.vertex = vertex
        self.vertex_name: str | None = None
        self.log_tail: tuple[str, ...] = ()
        self.sources = sources
        self.process_exit_code = process_exit_code
        self.status = status

    @property
    def source(self) -> SourceLocation | None:
        return self.sources[0] if self.sources else None
