"""The metadata's warnings and provenance, and values decoded, as buildx has them."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cogkit.building.metadata import FurtherMetadata, as_slsa_02, provenance_mode
from cogkit.building.observer import SilentObserver
from cogkit.buildkit.client import AsyncClient
from cogkit.buildkit.errors import BuildKitError
from cogkit.buildkit.records import Attestation
from cogkit.buildkit.request import decoded_metadata
from cogkit.buildkit.status import SolveStatus, VertexWarning

SLSA_1 = {
    "buildDefinition": {
        "buildType": "https://example.org/1",
        "externalParameters": {
            "configSource": {"uri": "https://example.org/code.git", "digest": {"sha1": "a"}, "path": "Dockerfile"},
            "request": {"frontend": "dockerfile.v0"},
        },
        "internalParameters": {
            "buildConfig": {"llbDefinition": []},
            "builderPlatform": "linux/arm64",
            "dockerfileVersion": "1.2",
            "own": "value",
        },
        "resolvedDependencies": [{"uri": "pkg:docker/a", "digest": {"sha256": "b"}, "name": "left out"}],
    },
    "runDetails": {
        "builder": {"id": "builder"},
        "metadata": {
            "invocationID": "id",
            "startedOn": "now",
            "finishedOn": "then",
            "buildkit_metadata": {"layers": {}},
            "buildkit_completeness": {"request": True, "resolvedDependencies": False},
        },
    },
}
SLSA_02 = {
    "builder": {"id": "builder"},
    "buildType": "https://mobyproject.org/buildkit@v1",
    "materials": [{"uri": "pkg:docker/a", "digest": {"sha256": "b"}}],
    "invocation": {
        "configSource": {"uri": "https://example.org/code.git", "digest": {"sha1": "a"}, "entryPoint": "Dockerfile"},
        "parameters": {"frontend": "dockerfile.v0"},
        "environment": {"platform": "linux/arm64", "dockerfileVersion": "1.2", "own": "value"},
    },
    "buildConfig": {"llbDefinition": []},
    "metadata": {
        "buildInvocationID": "id",
        "buildStartedOn": "now",
        "buildFinishedOn": "then",
        "completeness": {"parameters": True, "environment": True, "materials": False},
        "reproducible": False,
        "https://mobyproject.org/buildkit@v1#metadata": {"layers": {}},
    },
}
MINIMAL = {key: value for key, value in SLSA_02.items() if key not in ("buildConfig", "metadata")}


class Daemon:
    """Its history has one build, with a provenance for each platform."""

    def __init__(self, blobs: dict[str, tuple[str, bytes]], *, fails: bool = False):
        self._blobs = blobs
        self._fails = fails

    async def history(self, ref: str) -> AsyncGenerator[Any, None]:
        assert ref == "ref"
        if self._fails:
            raise BuildKitError("no history")
        attestations = {
            platform: (
                Attestation("application/vnd.in-toto+json", "sbom", 1, {"in-toto.io/predicate-type": "other"}),
                Attestation("application/vnd.in-toto+json", platform, 1, {"in-toto.io/predicate-type": kind}),
            )
            for platform, (kind, _) in self._blobs.items()
        }
        yield SimpleNamespace(record=SimpleNamespace(attestations=attestations))

    async def read_blob(self, digest: str) -> AsyncGenerator[bytes, None]:
        data = self._blobs[digest][1]
        for start in range(0, len(data), 100):
            yield data[start : start + 100]


def blob(content: object, version: str = "v1") -> tuple[str, bytes]:
    return f"https://slsa.dev/provenance/{version}", json.dumps(content).encode()


class Warned(SilentObserver):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, message: str) -> None:
        self.warnings.append(message)


def found(daemon: Daemon, observer: Warned | None = None, *statuses: SolveStatus, **environ: str) -> dict[str, object]:
    further = FurtherMetadata(observer or Warned(), environ)
    for status in statuses:
        further.on_status(status)
    return asyncio.run(further.found(cast("AsyncClient", daemon), "ref"))


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        (None, "min"),
        ("", "min"),
        ("min", "min"),
        ("max", "max"),
        ("disabled", None),
        ("false", None),
        ("0", None),
        ("true", "min"),
        ("nonsense", "min"),
    ],
)
def test_the_mode_is_read_as_buildx_does(value: str | None, mode: str | None) -> None:
    assert provenance_mode({} if value is None else {"BUILDX_METADATA_PROVENANCE": value}) == mode


def test_a_provenance_is_given_in_the_form_that_buildx_gives() -> None:
    assert as_slsa_02(SLSA_1) == SLSA_02
    assert found(Daemon({"": blob(SLSA_1)})) == {"buildx.build.provenance": MINIMAL}
    full = {"buildx.build.provenance": SLSA_02}
    assert found(Daemon({"": blob(SLSA_1)}), BUILDX_METADATA_PROVENANCE="max") == full
    assert found(Daemon({"": blob(SLSA_02, "v0.2")}), BUILDX_METADATA_PROVENANCE="max") == full
    assert found(Daemon({"": blob(SLSA_1)}), BUILDX_METADATA_PROVENANCE="disabled") == {}


def test_each_platform_has_its_own() -> None:
    both = found(Daemon({"linux/amd64": blob(SLSA_1), "linux/arm64": blob(SLSA_02, "v0.2")}))
    assert both == {"buildx.build.provenance/linux/amd64": MINIMAL, "buildx.build.provenance/linux/arm64": MINIMAL}


@pytest.mark.parametrize(
    "daemon",
    [
        Daemon({}, fails=True),
        Daemon({"": ("https://slsa.dev/provenance/v1", b"no JSON")}),
        Daemon({"": blob([])}),
        Daemon({"": blob({"buildDefinition": [1]})}),
    ],
)
def test_a_provenance_that_cannot_be_had_is_warned_of(daemon: Daemon) -> None:
    observer = Warned()
    assert found(daemon, observer) == {}
    (warning,) = observer.warnings
    assert warning.startswith("the metadata has no buildx.build.provenance: ")


def test_warnings_are_written_if_they_are_wanted() -> None:
    status = SolveStatus(warnings=(VertexWarning("sha256:a", 1, "short", ("detail",), "url", None, ()),))
    wanted = found(
        Daemon({}), None, status, SolveStatus(), BUILDX_METADATA_WARNINGS="true", BUILDX_METADATA_PROVENANCE="disabled"
    )
    short, detail = (b64encode(text).decode() for text in (b"short", b"detail"))
    assert wanted == {
        "buildx.build.warnings": [{"vertex": "sha256:a", "level": 1, "short": short, "detail": [detail], "url": "url"}]
    }
    assert found(Daemon({}), None, status, BUILDX_METADATA_PROVENANCE="disabled") == {}
    assert found(Daemon({}), BUILDX_METADATA_WARNINGS="1") == {}


def encoded(content: object) -> str:
    return b64encode(json.dumps(content).encode()).decode()


def test_values_are_decoded_as_buildx_does() -> None:
    response = {
        "object": encoded({"a": 1}),
        "list": encoded([{"a": 1}, {"b": 2}]),
        "empty object": encoded({}),
        "empty list": encoded([]),
        "list of numbers": encoded([1]),
        "number": encoded(1),
        "text": "plain",
        "base64 of text": b64encode(b"plain").decode(),
        "result.json": '{"a": 1}',
        "other.json": '{"a": 1}',
    }
    decoded = {"object": {"a": 1}, "list": [{"a": 1}, {"b": 2}], "result.json": {"a": 1}}
    assert decoded_metadata(response) == {**response, **decoded}
