"""What a daemon tells of itself: version, workers, cache records, build history.  Data only, no protobuf at import."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, Self

from cogkit.buildkit.platforms import Platform
from cogkit.buildkit.request import CacheEntry
from cogkit.buildkit.status import Instant
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from cogkit._proto import control_pb2, worker_pb2


@dataclass(frozen=True, slots=True)
class DaemonVersion:
    """The daemon's ``version`` (``v0.32.2``), where it was built from, and its Dockerfile frontend's version."""

    package: str
    version: str
    revision: str
    dockerfile_version: str = ""

    @classmethod
    def from_proto(cls, version: worker_pb2.BuildkitVersion) -> Self:
        return cls(version.package, version.version, version.revision, version.dockerfileVersion)


@dataclass(frozen=True, slots=True)
class GCPolicy:
    """One rule of a worker's garbage collection.  Sizes are bytes; 0 is no limit."""

    all: bool
    filters: tuple[str, ...]
    keep_duration: timedelta
    reserved_space: int
    max_used_space: int
    min_free_space: int

    @classmethod
    def from_proto(cls, policy: worker_pb2.GCPolicy) -> Self:
        return cls(
            policy.all,
            tuple(policy.filters),
            _duration(policy.keepDuration),
            policy.reservedSpace,
            policy.maxUsedSpace,
            policy.minFreeSpace,
        )


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker: ``labels`` describe it, ``platforms`` are those it can build for, its own one first."""

    id: str
    labels: Mapping[str, str]
    platforms: tuple[Platform, ...]
    gc_policy: tuple[GCPolicy, ...]
    version: DaemonVersion

    @classmethod
    def from_proto(cls, record: worker_pb2.WorkerRecord) -> Self:
        return cls(
            record.ID,
            dict(record.Labels),
            tuple(Platform.from_proto(each) for each in record.platforms),
            tuple(GCPolicy.from_proto(each) for each in record.gcPolicy),
            DaemonVersion.from_proto(record.buildkitVersion),
        )


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One record of the daemon's cache.

    Attributes:
        size: Bytes.
        record_type: ``regular``, ``internal``, ``frontend``, ``source.local``, ``source.git.checkout``,
            ``exec.cachemount``.
        in_use: It cannot be pruned now.
        last_used_at: None if it never was.
    """

    id: str
    size: int
    description: str
    record_type: str
    mutable: bool
    in_use: bool
    shared: bool
    parents: tuple[str, ...]
    created_at: Instant
    last_used_at: Instant | None
    usage_count: int

    @classmethod
    def from_proto(cls, record: control_pb2.UsageRecord) -> Self:
        parents = tuple(record.Parents) or ((record.Parent,) if record.Parent else ())
        return cls(
            record.ID,
            record.Size,
            record.Description,
            record.RecordType,
            record.Mutable,
            record.InUse,
            record.Shared,
            parents,
            Instant.at(record.CreatedAt.seconds, record.CreatedAt.nanos),
            _instant_or_none(record, "LastUsedAt"),
            record.UsageCount,
        )


@dataclass(frozen=True, slots=True)
class Attestation:
    """A statement on a result; a blob of the daemon's content store."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """A build in the daemon's history.

    Attributes:
        exports: Type and attributes of its exporters.
        error: Why it failed; empty if it did not, or has not ended.
        completed_at: None while it runs.
        cached_steps: Of ``total_steps``, those that came from the cache.
        pinned: Kept when the history is cleaned up.
        attestations: Those on each platform's result; the platform is empty if there is one result only.
    """

    ref: str
    frontend: str
    frontend_attrs: Mapping[str, str]
    exports: tuple[CacheEntry, ...]
    exporter_response: Mapping[str, str]
    error: str
    created_at: Instant
    completed_at: Instant | None
    cached_steps: int
    completed_steps: int
    total_steps: int
    warnings: int
    pinned: bool
    attestations: Mapping[str, tuple[Attestation, ...]]

    @classmethod
    def from_proto(cls, record: control_pb2.BuildHistoryRecord) -> Self:
        return cls(
            record.Ref,
            record.Frontend,
            dict(record.FrontendAttrs),
            tuple(CacheEntry(each.Type, dict(each.Attrs)) for each in record.Exporters),
            dict(record.ExporterResponse),
            record.error.message,
            Instant.at(record.CreatedAt.seconds, record.CreatedAt.nanos),
            _instant_or_none(record, "CompletedAt"),
            record.numCachedSteps,
            record.numCompletedSteps,
            record.numTotalSteps,
            record.numWarnings,
            record.pinned,
            _attestations(record),
        )


def _attestations(record: control_pb2.BuildHistoryRecord) -> dict[str, tuple[Attestation, ...]]:
    results = dict(record.Results) or {"": record.Result}
    return {
        platform: tuple(
            Attestation(each.media_type, each.digest, each.size, dict(each.annotations)) for each in result.Attestations
        )
        for platform, result in results.items()
    }


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """Something happened to a build of the history; ``unknown`` is what only a newer daemon could name."""

    kind: Literal["started", "complete", "deleted", "unknown"]
    record: BuildRecord

    @classmethod
    def from_proto(cls, event: control_pb2.BuildHistoryEvent) -> Self:
        kinds: tuple[Literal["started", "complete", "deleted", "unknown"], ...] = ("started", "complete", "deleted")
        kind = kinds[event.type] if 0 <= event.type < len(kinds) else "unknown"
        return cls(kind, BuildRecord.from_proto(event.record))


def _duration(nanoseconds: int) -> timedelta:
    return timedelta(microseconds=nanoseconds // 1000)


def _instant_or_none(message: Message, field: str) -> Instant | None:
    if not message.HasField(field):
        return None
    stamp = getattr(message, field)
    return Instant.at(stamp.seconds, stamp.nanos)
