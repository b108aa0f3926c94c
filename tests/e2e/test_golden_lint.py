"""Every golden Dockerfile before the daemon's own linter: it parses, its stages resolve, and no rule is broken."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cogkit.buildkit.client import AsyncClient
from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.request import SolveRequest
from tests.real.buildkitd import Buildkitd
from tests.real.image import Image
from tests.real.registry import Registry

GOLDEN = Path(__file__).parents[1] / "golden"
_FROM = re.compile(r"^FROM (\S+)", re.MULTILINE)
_COPY_FROM = re.compile(r"--from=(\S+)")
_LINT = {"requestid": "frontend.lint", "frontend.caps": "moby.buildkit.frontend.subrequests"}
_PYTHON = "docker-image://docker.io/library/python:3.11-slim"
_CUDA = "library/cuda-stand-in:latest"


CASES: list[str] = sorted(path.name for path in (GOLDEN / "cases").iterdir())


@pytest.mark.needs_newer_buildkit("lint subrequest")
def test_no_golden_dockerfile_breaks_a_rule_of_the_daemons_linter(buildkitd: Buildkitd, registry: Registry) -> None:
    # The linter looks up what an image defines; NVIDIA's define this.
    registry.push(Image((), {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/usr/local/nvidia/lib64"}), _CUDA)
    results = asyncio.run(_lint(buildkitd.address))
    assert sorted(results) == CASES
    faults = {
        name: [result.get("buildError"), [warning["ruleName"] for warning in result["warnings"] or ()]]
        for name, result in results.items()
        if result.get("buildError") or result["warnings"]
    }
    assert faults == {}


@pytest.mark.needs_newer_buildkit("lint subrequest")
def test_the_linter_does_see_what_is_wrong(buildkitd: Buildkitd, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM python:3.11-slim\nWORKDIR src\nENV a b\n")
    (result,) = asyncio.run(_lint(buildkitd.address, {"bad": tmp_path})).values()
    assert {warning["ruleName"] for warning in result["warnings"]} == {"LegacyKeyValueFormat", "WorkdirRelativePath"}


async def _lint(address: str, folders: dict[str, Path] | None = None) -> dict[str, dict[str, Any]]:
    """The linter's verdict on the Dockerfile of each folder, all in one solve."""
    folders = folders or {name: GOLDEN / "cases" / name for name in CASES}
    results: dict[str, dict[str, Any]] = {}

    async def build(gateway: Gateway) -> GatewayResult:
        for name, folder in folders.items():
            attrs = {"dockerfilekey": name, "contextkey": name, "filename": "Dockerfile"}
            attrs |= _contexts((folder / "Dockerfile").read_text())
            linted = await gateway.solve("dockerfile.v0", attrs | _LINT)
            results[name] = json.loads(linted.metadata["result.json"])
        return GatewayResult()

    mounts = tuple(LocalMount(name, folder, only=frozenset({"Dockerfile"})) for name, folder in folders.items())
    async with await AsyncClient.connect(address) as client:
        await client.solve(SolveRequest(mounts=mounts), build=build)
    return results


def _contexts(dockerfile: str) -> dict[str, str]:
    """Stand-ins for the images and named contexts that are not here: the linter asks for their configs only."""
    stages = set(re.findall(r" AS (\S+)$", dockerfile, re.MULTILINE))
    named = {*_FROM.findall(dockerfile), *_COPY_FROM.findall(dockerfile)} - stages - {"python:3.11-slim"}
    cuda = f"docker-image://docker.io/{_CUDA}"
    return {f"context:{name}": cuda if name.startswith("nvidia/cuda:") else _PYTHON for name in sorted(named)}
