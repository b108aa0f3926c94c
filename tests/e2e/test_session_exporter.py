"""Outputs that the client chooses when the build is done, with the real daemon."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cogkit.buildkit import AsyncClient, Export, LocalMount, OutputFile, SolveRequest, SolveResult
from cogkit.buildkit.errors import BuildError
from cogkit.buildkit.session.services.exporter import ChooseExports
from cogkit.errors import OutputError, UsageError
from tests.conftest import MakeTree
from tests.e2e.test_build import names_in
from tests.real.buildkitd import Buildkitd
from tests.real.tools import BuildKitRelease

newer = pytest.mark.needs_newer_buildkit("exports that the session chooses")


def solve(buildkitd: Buildkitd, project: Path, choose: ChooseExports, exports: tuple[Export, ...] = ()) -> SolveResult:
    async def play() -> SolveResult:
        mounts = tuple(LocalMount(name, project) for name in ("context", "dockerfile"))
        request = SolveRequest("dockerfile.v0", mounts=mounts, exports=exports)
        async with await AsyncClient.connect(buildkitd.address) as client:
            return await client.solve(request, choose_exports=choose)

    return asyncio.run(asyncio.wait_for(play(), 60))


@pytest.fixture
def project(context_tree: MakeTree) -> Path:
    return context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})


@newer
def test_exports_are_chosen_by_what_was_built_and_go_beside_those_asked_for(
    buildkitd: Buildkitd, project: Path, tmp_path: Path
) -> None:
    seen: dict[str, bytes] = {}

    async def choose(metadata: Mapping[str, bytes], refs: Sequence[str]) -> Sequence[Export]:
        seen.update(metadata)
        assert len(refs) == 1
        return [
            Export("tar", file=OutputFile(tmp_path / "chosen.tar")),
            Export("local", directory=tmp_path / "chosen"),
        ]

    asked_for = (Export("tar", file=OutputFile(tmp_path / "asked.tar")),)
    solve(buildkitd, project, choose, asked_for)
    assert b'"rootfs"' in seen["containerimage.config"]
    assert names_in(tmp_path / "chosen.tar") == names_in(tmp_path / "asked.tar") == {"file"}
    assert (tmp_path / "chosen" / "file").read_text() == "x"


@newer
def test_choosing_nothing_leaves_the_result_in_the_cache(buildkitd: Buildkitd, project: Path) -> None:
    async def choose(metadata: Mapping[str, bytes], refs: Sequence[str]) -> Sequence[Export]:
        return []

    assert solve(buildkitd, project, choose).digest is None


@newer
@pytest.mark.parametrize(
    ("export", "error"),
    [
        (Export("tar"), UsageError),
        (Export("oci", {"tar": "false"}, directory=Path("x")), UsageError),
        (Export("tar", file=OutputFile("/dev/null/x")), OutputError),
    ],
)
def test_choice_that_makes_no_sense_fails_the_build_with_its_reason(
    export: Export, error: type[Exception], buildkitd: Buildkitd, project: Path
) -> None:
    async def choose(metadata: Mapping[str, bytes], refs: Sequence[str]) -> Sequence[Export]:
        return [export]

    with pytest.raises(error):
        solve(buildkitd, project, choose)


def test_daemon_that_does_not_ask_is_an_error_and_no_lost_result(
    buildkitd: Buildkitd, project: Path, tmp_path: Path, buildkit_release: BuildKitRelease
) -> None:
    async def choose(metadata: Mapping[str, bytes], refs: Sequence[str]) -> Sequence[Export]:
        return [Export("tar", file=OutputFile(tmp_path / "chosen.tar"))]

    if buildkit_release.name == "current":
        solve(buildkitd, project, choose)
        assert (tmp_path / "chosen.tar").exists()
        return
    with pytest.raises(BuildError, match="did not ask where the result goes"):
        solve(buildkitd, project, choose)
    assert not (tmp_path / "chosen.tar").exists()
