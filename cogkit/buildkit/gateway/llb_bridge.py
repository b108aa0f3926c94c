"""Being the frontend of one's own build: solving parts of it, reading their files, and handing over the result.

BuildKit's ``LLBBridge`` (``frontend/gateway``) is what a frontend talks to.  A client may be the frontend itself: it
submits a solve with an empty frontend, then calls the bridge on the same address with the build's ref as metadata.
`AsyncClient.solve` does that when it is given a ``build`` callback.  This file must not start or end the solve.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Self, SupportsBytes, TypeVar

import grpc.aio
from google.protobuf.message import Message

from cogkit._proto import gateway_pb2, ops_pb2, rpc_status_pb2
from cogkit.buildkit.connection import Connection, Duplex, MetadataPairs
from cogkit.buildkit.error_details import solve_failure
from cogkit.buildkit.errors import BuildError, SolveError
from cogkit.buildkit.platforms import Platform
from cogkit.buildkit.records import WorkerInfo
from cogkit.buildkit.request import CacheEntry
from cogkit.buildkit.status import Range, SourceInfo
from cogkit.buildkit.transport.grpc_status import StatusCode
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit._proto.fsutil_pb2 import Stat
    from cogkit.buildkit.connect.address import Address

BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge/"
_BUILD_ID_KEY = "buildkit-controlapi-buildid"
_IMAGE_CONFIG_KEY = "containerimage.config"
_READ_CHUNK = 4 << 20  # well below the largest gRPC message
_PING_TIMEOUT = 15.0

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class FileStat:
    """A file of a result.  ``mode`` has Go's os.FileMode bits; ``path`` is its name within the folder asked for."""

    path: str
    mode: int
    uid: int
    gid: int
    size: int
    modified_ns: int
    linkname: str = ""

    @classmethod
    def from_proto(cls, stat: Stat) -> Self:
        path, linkname = (part.decode("utf-8", "surrogateescape") for part in (stat.path, stat.linkname))
        return cls(path, stat.mode, stat.uid, stat.gid, stat.size, stat.modTime, linkname)

    @property
    def is_dir(self) -> bool:
        return bool(self.mode & 1 << 31)

    @property
    def is_symlink(self) -> bool:
        return bool(self.mode & 1 << 27)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """An image as a registry has it: its name with digest, the digest, and the config (JSON)."""

    ref: str
    digest: str
    config: bytes


class Ref:
    """A filesystem that the gateway solved.  It may be built only when it is first read or evaluated.

    Attributes:
        id: Its name at the daemon; empty for scratch.
        definition: The marshalled LLB it comes from, for use as an input of another frontend.

    The methods raise `SolveError`: the build failed, or there is no such file (code NOT_FOUND or UNKNOWN).
    """

    def __init__(self, gateway: Gateway, message: gateway_pb2.Ref) -> None:
        self._gateway = gateway
        self._message = message

    @property
    def id(self) -> str:
        return self._message.id

    @property
    def definition(self) -> bytes:
        return self._message.definition.SerializeToString()

    async def read_file(self, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file: ``length`` of them, or all, from ``offset``."""
        parts: list[bytes] = []
        end = None if length is None else offset + length
        while end is None or offset < end:
            wanted = _READ_CHUNK if end is None else min(_READ_CHUNK, end - offset)
            request = gateway_pb2.ReadFileRequest(
                Ref=self.id, FilePath=path, Range=gateway_pb2.FileRange(Offset=offset, Length=wanted)
            )
            data = (await self._gateway.call("ReadFile", request, gateway_pb2.ReadFileResponse)).Data[:wanted]
            parts.append(data)
            offset += len(data)
            if len(data) < wanted:
                break
        return b"".join(parts)

    async def read_dir(self, path: str, *, include: str = "") -> tuple[FileStat, ...]:
        """The entries of a folder, or those that match the pattern ``include``."""
        request = gateway_pb2.ReadDirRequest(Ref=self.id, DirPath=path, IncludePattern=include)
        response = await self._gateway.call("ReadDir", request, gateway_pb2.ReadDirResponse)
        return tuple(FileStat.from_proto(each) for each in response.entries)

    async def stat_file(self, path: str) -> FileStat:
        """What the file is; a symbolic link itself, not its target."""
        request = gateway_pb2.StatFileRequest(Ref=self.id, Path=path)
        response = await self._gateway.call("StatFile", request, gateway_pb2.StatFileResponse)
        return FileStat.from_proto(response.stat)

    async def evaluate(self) -> None:
        """Build it now."""
        request = gateway_pb2.EvaluateRequest(Ref=self.id)
        await self._gateway.call("Evaluate", request, gateway_pb2.EvaluateResponse)

    def to_proto(self) -> gateway_pb2.Ref:
        return self._message


@dataclass(frozen=True)
class GatewayResult:
    """What a frontend gives: filesystems, and metadata for the exporters.

    Attributes:
        ref: The only filesystem, or None for scratch or when there are several.
        refs: The filesystems by platform, if it was built for several.
        metadata: Among others ``containerimage.config`` (JSON), per platform with ``/PLATFORM`` behind.
        attestations: Passed on as they are.
    """

    ref: Ref | None = None
    refs: Mapping[str, Ref | None] = field(default_factory=dict)
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    attestations: Mapping[str, gateway_pb2.Attestations] = field(default_factory=dict)

    @classmethod
    def from_proto(cls, gateway: Gateway, result: gateway_pb2.Result) -> Self:
        kind = result.WhichOneof("result")
        single = {
            "ref": lambda: result.ref,
            "refDeprecated": lambda: gateway_pb2.Ref(id=result.refDeprecated),
        }
        several: dict[str, gateway_pb2.Ref] = {}
        if kind == "refs":
            several = dict(result.refs.refs)
        elif kind == "refsDeprecated":
            several = {key: gateway_pb2.Ref(id=value) for key, value in result.refsDeprecated.refs.items()}
        return cls(
            ref=_ref_or_none(gateway, single[kind]()) if kind in single else None,
            refs={key: _ref_or_none(gateway, value) for key, value in several.items()},
            metadata=dict(result.metadata),
            attestations=dict(result.attestations),
        )

    def to_proto(self) -> gateway_pb2.Result:
        result = gateway_pb2.Result(metadata=self.metadata, attestations=self.attestations)
        if self.refs:
            for key, ref in self.refs.items():
                result.refs.refs[key].CopyFrom(ref.to_proto() if ref else gateway_pb2.Ref())
        else:
            result.ref.CopyFrom(self.ref.to_proto() if self.ref else gateway_pb2.Ref())
        return result

    def image_configs(self) -> dict[str, dict[str, Any]]:
        """The image configs, by their metadata key.

        Raises:
            BuildError: one of them is none.
        """
        return {
            key: _image_config(value)
            for key, value in self.metadata.items()
            if key == _IMAGE_CONFIG_KEY or key.startswith(f"{_IMAGE_CONFIG_KEY}/")
        }

    def with_metadata(self, entries: Mapping[str, bytes]) -> Self:
        """The same result with these metadata entries added or replaced."""
        return replace(self, metadata={**self.metadata, **entries})

    def with_labels(self, labels: Mapping[str, str]) -> Self:
        """The same result with these labels in the config of every image of it.

        Raises:
            BuildError: an image's config is none.
        """
        configs = self.image_configs()
        for config in configs.values():
            inner = config.setdefault("config", {})
            inner["Labels"] = {**(inner.get("Labels") or {}), **labels}
        return self.with_metadata({key: json.dumps(config).encode() for key, config in configs.items()})


def _image_config(text: bytes) -> dict[str, Any]:
    """An OCI image config, with the shapes that are relied on here checked."""
    try:
        config: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BuildError("the frontend made an image whose config cannot be read") from error
    inner = config.get("config") if isinstance(config, dict) else 0
    if not isinstance(inner, dict | None) or not isinstance((inner or {}).get("Labels"), dict | None):
        raise BuildError("the frontend made an image whose config is none")
    if inner is None:
        config.pop("config", None)
    return dict(config)


class Gateway:
    """The bridge of one running build.  Only valid inside the ``build`` callback of `AsyncClient.solve`.

    Attributes:
        ref: The build.
        session_id: Its session.
        workers: Workers that may run it.
    """

    def __init__(self, connection: Connection, ref: str, session_id: str, opts: Mapping[str, str]) -> None:
        self.ref = ref
        self.session_id = session_id
        self.workers: tuple[WorkerInfo, ...] = ()
        self._connection = connection
        self._opts = opts
        self._caps: dict[str, bool] = {}

    async def open(self) -> None:
        """Wait until the daemon knows the build, and learn what its gateway can do."""
        pong = await self.call("Ping", gateway_pb2.PingRequest(), gateway_pb2.PongResponse, timeout=_PING_TIMEOUT)
        self._caps = {cap.ID: cap.Enabled for cap in pong.FrontendAPICaps}
        self.workers = tuple(WorkerInfo.from_proto(each) for each in pong.Workers)

    def supports(self, capability: str) -> bool:
        """Whether the daemon's gateway has a capability (BuildKit ``frontend/gateway/pb/caps.go``)."""
        return self._caps.get(capability, False)

    async def solve(
        self,
        frontend: str = "",
        attrs: Mapping[str, str] | None = None,
        *,
        definition: SupportsBytes | None = None,
        inputs: Mapping[str, SupportsBytes] | None = None,
        cache_imports: Sequence[CacheEntry] = (),
        evaluate: bool = False,
    ) -> GatewayResult:
        """Have a frontend make a result, or the LLB of ``definition``.

        Args:
            frontend: ``dockerfile.v0``, ``gateway.v0``; empty with a definition.
            attrs: Its options.  Cache imports of the whole solve are added as BuildKit's client does.
            definition: An `llb.State`, an `llb.Definition`, or the bytes of one.
            inputs: Marshalled LLB that the frontend gets as named inputs.
            cache_imports: Where to import the cache from, for a definition.
            evaluate: Build the result now, not at its first use.

        Raises:
            SolveError: the frontend or, with ``evaluate``, the build failed.
        """
        request = gateway_pb2.SolveRequest(
            Frontend=frontend,
            FrontendOpt={**(self._opts if frontend else {}), **(attrs or {})},
            allowResultReturn=True,
            allowResultArrayRef=True,
            CacheImports=[gateway_pb2.CacheOptionsEntry(Type=each.type, Attrs=each.attrs) for each in cache_imports],
            Evaluate=evaluate,
        )
        if definition is not None:
            request.Definition.ParseFromString(bytes(definition))
        for name, marshalled in (inputs or {}).items():
            request.FrontendInputs[name].ParseFromString(bytes(marshalled))
        response = await self.call("Solve", request, gateway_pb2.SolveResponse)
        if response.HasField("result"):
            return GatewayResult.from_proto(self, response.result)
        return GatewayResult(ref=_ref_or_none(self, gateway_pb2.Ref(id=response.ref)))

    async def resolve_image_config(
        self, name: str, *, platform: Platform | None = None, mode: str = "default", log_name: str = ""
    ) -> ImageConfig:
        """Look up an image's config in its registry.

        Args:
            name: The image, with its registry's host and a tag or digest.
            platform: Of an index, the daemon's own if None.
            mode: ``default``, ``pull`` (ask the registry even if it is here) or ``local``.
            log_name: How the lookup is named in the progress.
        """
        request = gateway_pb2.ResolveImageConfigRequest(Ref=name, ResolveMode=mode, LogName=log_name)
        if platform is not None:
            request.Platform.CopyFrom(
                ops_pb2.Platform(
                    OS=platform.os,
                    Architecture=platform.architecture,
                    Variant=platform.variant,
                    OSVersion=platform.os_version,
                )
            )
        response = await self.call("ResolveImageConfig", request, gateway_pb2.ResolveImageConfigResponse)
        return ImageConfig(response.Ref or name, response.Digest, response.Config)

    async def warn(
        self,
        vertex: str,
        message: str,
        *,
        level: int = 1,
        detail: Iterable[str] = (),
        url: str = "",
        source: SourceInfo | None = None,
        ranges: Iterable[Range] = (),
    ) -> None:
        """Put a warning into the status stream, at the step with the digest ``vertex``."""
        request = gateway_pb2.WarnRequest(
            digest=vertex,
            level=level,
            short=message.encode(),
            detail=[line.encode() for line in detail],
            url=url,
            ranges=[_range_proto(each) for each in ranges],
        )
        if source is not None:
            request.info.CopyFrom(
                ops_pb2.SourceInfo(filename=source.filename, data=source.data, language=source.language)
            )
        await self.call("Warn", request, gateway_pb2.WarnResponse)

    async def inputs(self) -> dict[str, bytes]:
        """Marshalled LLB of the inputs that the solve was given (`SolveRequest.frontend_inputs`)."""
        response = await self.call("Inputs", gateway_pb2.InputsRequest(), gateway_pb2.InputsResponse)
        return {name: definition.SerializeToString() for name, definition in response.Definitions.items()}

    async def call(self, method: str, request: Message, response_type: type[M], *, timeout: float | None = None) -> M:
        """Call any method of the bridge with messages of ``cogkit._proto.gateway_pb2``.

        Raises:
            SolveError: the daemon answered with an error.
            BuilderUnreachableError: it did not answer.
        """
        try:
            return await self._connection.unary(
                f"{BRIDGE}{method}", request, response_type, metadata=self.metadata, timeout=timeout
            )
        except grpc.aio.AioRpcError as error:
            raise solve_failure(error, self._connection.address) from error

    def duplex(self, method: str, response_type: type[M]) -> Duplex[M]:
        """Start a call of the bridge in which both sides send; to be closed."""
        return self._connection.duplex(f"{BRIDGE}{method}", response_type, metadata=self.metadata)

    @property
    def address(self) -> Address:
        """Where the daemon is."""
        return self._connection.address

    @property
    def metadata(self) -> MetadataPairs:
        """What every call of the bridge carries."""
        return ((_BUILD_ID_KEY, self.ref),)

    async def return_result(self, result: GatewayResult) -> None:
        """End the frontend well: the exporters get ``result``.  `AsyncClient.solve` calls it."""
        request = gateway_pb2.ReturnRequest(result=result.to_proto())
        await self.call("Return", request, gateway_pb2.ReturnResponse)

    async def return_error(self, error: BaseException) -> None:
        """End the frontend with a failure; a `SolveError` is handed on whole.  `AsyncClient.solve` calls it."""
        status = rpc_status_pb2.Status(code=StatusCode.UNKNOWN, message=str(error) or type(error).__name__)
        if isinstance(error, SolveError) and error.status:
            status = rpc_status_pb2.Status.FromString(error.status)
        await self.call("Return", gateway_pb2.ReturnRequest(error=status), gateway_pb2.ReturnResponse)


def _ref_or_none(gateway: Gateway, message: gateway_pb2.Ref) -> Ref | None:
    return Ref(gateway, message) if message.id else None


def _range_proto(span: Range) -> ops_pb2.Range:
    return ops_pb2.Range(
        start=ops_pb2.Position(line=span.start_line, character=span.start_character),
        end=ops_pb2.Position(line=span.end_line, character=span.end_character),
    )
