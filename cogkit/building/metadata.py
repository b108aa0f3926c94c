"""What ``--metadata-file`` holds beside the exporters' answers: the build's warnings and its provenance, as in buildx.

``BUILDX_METADATA_WARNINGS`` and ``BUILDX_METADATA_PROVENANCE`` say what of it is wanted.  Facts are from buildx
(``util/confutil/metadata.go``, ``build/provenance.go``) and BuildKit (``solver/llbsolver/provenance/types``).  This
file must not write anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from cogkit.buildkit.errors import BuildKitError
from cogkit.buildkit.status import SolveStatus, VertexWarning, warnings_json

if TYPE_CHECKING:
    from cogkit.building.observer import BuildObserver
    from cogkit.buildkit.client import AsyncClient
    from cogkit.buildkit.records import Attestation

WARNINGS_KEY = "buildx.build.warnings"
PROVENANCE_KEY = "buildx.build.provenance"
WARNINGS_VARIABLE = "BUILDX_METADATA_WARNINGS"
PROVENANCE_VARIABLE = "BUILDX_METADATA_PROVENANCE"

MAX_PROVENANCE = 64 << 20
"""Bytes of one provenance that are read; a large build's has some MiB."""

_IN_TOTO = "application/vnd.in-toto+json"
_PREDICATE_TYPE = "in-toto.io/predicate-type"
_SLSA = "https://slsa.dev/provenance/"
_SLSA_1 = "https://slsa.dev/provenance/v1"
_BUILD_TYPE_02 = "https://mobyproject.org/buildkit@v1"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})

Mode = Literal["min", "max"]
_Json = dict[str, Any]


def provenance_mode(environ: Mapping[str, str] = os.environ) -> Mode | None:
    """How much of the provenance is wanted; None for nothing."""
    match environ.get(PROVENANCE_VARIABLE, ""):
        case "max":
            return "max"
        case "disabled":
            return None
        case text:
            return None if text in _FALSE else "min"


class FurtherMetadata:
    """What the metadata of one build has beside the exporters' answers.

    Args:
        observer: Hears the solve's events, whose warnings are remembered on the way, and what could not be found out.
        environ: Says what is wanted.
    """

    def __init__(self, observer: BuildObserver, environ: Mapping[str, str] = os.environ):
        self._observer = observer
        self._environ = environ
        self._warnings: list[VertexWarning] = []

    def on_status(self, status: SolveStatus) -> None:
        self._warnings += status.warnings
        self._observer.on_status(status)

    async def found(self, client: AsyncClient, ref: str) -> dict[str, object]:
        """The metadata.  The build has succeeded, so what the daemon does not tell is only warned of."""
        found: dict[str, object] = {}
        if self._warnings and self._environ.get(WARNINGS_VARIABLE) in _TRUE:
            found[WARNINGS_KEY] = warnings_json(self._warnings)
        mode = provenance_mode(self._environ)
        if mode is not None:
            try:
                found |= await provenance_of(client, ref, mode)
            except BuildKitError as problem:
                self._observer.on_warning(f"the metadata has no {PROVENANCE_KEY}: {problem}")
        return found


async def provenance_of(client: AsyncClient, ref: str, mode: Mode) -> dict[str, object]:
    """What the metadata says of how the result was made: for each platform if there are several.

    Args:
        client: The daemon, whose history has it.
        ref: The build.
        mode: ``min`` leaves the steps and the times out.

    Raises:
        BuildKitError: the daemon does not tell, or what it tells makes no sense.
    """
    found: dict[str, object] = {}
    async for event in client.history(ref):
        for platform, attestations in event.record.attestations.items():
            attestation = _provenance_among(attestations)
            if attestation is not None:
                key = f"{PROVENANCE_KEY}/{platform}" if platform else PROVENANCE_KEY
                found[key] = await _read(client, attestation, mode)
    return found


def _provenance_among(attestations: tuple[Attestation, ...]) -> Attestation | None:
    for each in attestations:
        if each.media_type == _IN_TOTO and each.annotations.get(_PREDICATE_TYPE, "").startswith(_SLSA):
            return each
    return None


async def _read(client: AsyncClient, attestation: Attestation, mode: Mode) -> _Json:
    data = bytearray()
    async for piece in client.read_blob(attestation.digest):
        data += piece
        if len(data) > MAX_PROVENANCE:
            raise BuildKitError(f"the provenance of the build has more than {MAX_PROVENANCE >> 20} MiB")
    try:
        predicate: Any = json.loads(data)
        if not isinstance(predicate, dict):
            raise ValueError
        if attestation.annotations.get(_PREDICATE_TYPE) == _SLSA_1:
            predicate = as_slsa_02(predicate)
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise BuildKitError("the builder's provenance of the build makes no sense") from None
    if mode == "min":
        predicate.pop("buildConfig", None)
        predicate.pop("metadata", None)
    found: _Json = predicate
    return found


def as_slsa_02(predicate: _Json) -> _Json:
    """A predicate of SLSA 1 in the form of SLSA 0.2 (``ConvertToSLSA02``).

    Raises:
        AttributeError, TypeError: it is not one.
    """
    definition, details = predicate.get("buildDefinition") or {}, predicate.get("runDetails") or {}
    external, internal = definition.get("externalParameters") or {}, definition.get("internalParameters") or {}
    source = external.get("configSource") or {}
    platform, version = internal.get("builderPlatform", ""), internal.get("dockerfileVersion")
    of_its_own = {"buildConfig", "builderPlatform", "dockerfileVersion"}
    environment = {
        **{key: value for key, value in internal.items() if key not in of_its_own},
        "platform": platform,
        **_present(dockerfileVersion=version),
    }
    materials = [
        _present(uri=each.get("uri"), digest=each.get("digest"))
        for each in definition.get("resolvedDependencies") or ()
    ]
    return {
        "builder": {"id": (details.get("builder") or {}).get("id", "")},
        "buildType": _BUILD_TYPE_02,
        **_present(materials=materials),
        "invocation": {
            "configSource": _present(uri=source.get("uri"), digest=source.get("digest"), entryPoint=source.get("path")),
            "parameters": external.get("request") or {},
            "environment": environment,
        },
        **_present(buildConfig=internal.get("buildConfig"), metadata=_metadata_02(details.get("metadata"))),
    }


def _metadata_02(metadata: _Json | None) -> _Json | None:
    if metadata is None:
        return None
    complete = metadata.get("buildkit_completeness") or {}
    return {
        **_present(
            buildInvocationID=metadata.get("invocationID") or metadata.get("invocationId"),
            buildStartedOn=metadata.get("startedOn"),
            buildFinishedOn=metadata.get("finishedOn"),
        ),
        "completeness": {
            "parameters": complete.get("request", False),
            "environment": True,
            "materials": complete.get("resolvedDependencies", False),
        },
        "reproducible": metadata.get("buildkit_reproducible", False),
        f"{_BUILD_TYPE_02}#metadata": metadata.get("buildkit_metadata") or {},
        **_present(**{f"{_BUILD_TYPE_02}#hermetic": metadata.get("buildkit_hermetic")}),
    }


def _present(**values: Any) -> _Json:
    return {key: value for key, value in values.items() if value}
