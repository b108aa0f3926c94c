"""What a builder keeps and remembers, shown and cleaned up by commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.real.buildkitd import Buildkitd
from tests.real.registry import Registry
from tests.real.tools import BuildKitRelease

SCRATCH = {"Dockerfile": "FROM scratch\nCOPY a /a\n", "a": "content"}


@pytest.fixture(autouse=True)
def own_list(tmp_path: Path, cogkit_env: dict[str, str | None]) -> None:
    """A list of builders of the test's own."""
    cogkit_env["XDG_CONFIG_HOME"] = str(tmp_path / "config")


def answer(run_cogkit: RunCogkit, *arguments: str | Path) -> Any:
    done = run_cogkit(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def built(run_cogkit: RunCogkit, project: Path, name: str) -> str:
    """Build, and return the build's name at the builder."""
    metadata = project.parent / f"{name}.json"
    done = run_cogkit("build", "-o", f"type=image,name={name}", "--metadata-file", metadata, project)
    assert done.returncode == 0, done.stderr
    ref = json.loads(metadata.read_text())["cogkit.build.ref"]
    assert isinstance(ref, str)
    return ref


def test_a_build_is_listed_shown_replayed_and_forgotten(
    run_cogkit: RunCogkit, context_tree: MakeTree, base_images: Registry
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo words of state-history\n"})
    ref = built(run_cogkit, project, "state-history")
    listed = {each["ref"]: each for each in answer(run_cogkit, "history", "ls")}
    assert listed[ref]["status"] == "done"
    assert ref[:12] in run_cogkit("history", "ls").stdout
    shown = answer(run_cogkit, "history", "inspect", ref[:20])
    assert (shown["ref"], shown["error"], shown["frontend"]) == (ref, None, "dockerfile.v0")
    assert shown["frontend_attrs"]["filename"] == "Dockerfile"
    assert f"Ref:      {ref}" in run_cogkit("history", "inspect", ref).stdout
    logs = run_cogkit("history", "logs", ref)
    assert logs.returncode == 0, logs.stderr
    assert "words of state-history" in logs.stdout
    assert answer(run_cogkit, "history", "rm", ref) == [ref]
    assert ref not in {each["ref"] for each in answer(run_cogkit, "history", "ls")}


def test_a_failed_build_is_remembered_with_its_error(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY state-missing /\n"})
    assert run_cogkit("build", "-o", "type=image,name=state-failed", project).returncode == 1
    failed = [each for each in answer(run_cogkit, "history", "ls") if "state-missing" in (each["error"] or "")]
    assert failed and all(each["status"] == "failed" for each in failed)


def test_a_build_that_is_not_known_is_said(run_cogkit: RunCogkit) -> None:
    for command in ("logs", "inspect", "rm"):
        done = run_cogkit("history", command, "no-such-build")
        assert done.returncode == 2
        assert "the builder does not know a build 'no-such-build'" in done.stderr
        assert "hint: `cogkit history ls`" in done.stderr
    nothing = run_cogkit("history", "rm")
    assert (nothing.returncode, "say which builds to remove" in nothing.stderr) == (2, True)


def test_the_cache_is_shown_and_pruned(
    private_buildkitd: Buildkitd, run_cogkit: RunCogkit, context_tree: MakeTree, buildkit_release: BuildKitRelease
) -> None:
    addr = ("--addr", private_buildkitd.address)
    project = context_tree(SCRATCH)
    done = run_cogkit("build", *addr, "-o", "type=image,name=state-cache", project)
    assert done.returncode == 0, done.stderr
    records = answer(run_cogkit, "du", *addr)
    assert any(record["type"] == "source.local" for record in records)
    local = answer(run_cogkit, "du", *addr, "--filter", "type==source.local")
    assert local and {record["type"] for record in local} == {"source.local"}
    if buildkit_release.name == "current":  # older ones do not know the age in this question
        assert answer(run_cogkit, "du", *addr, "--unused-for", "1h") == []
    assert answer(run_cogkit, "prune", *addr, "--keep-duration", "1h") == []
    text = run_cogkit("du", *addr, "--verbose").stdout
    assert "Type:        source.local" in text and "Total:" in text
    gone = answer(run_cogkit, "prune", *addr, "--filter", "type==source.local")
    assert {record["id"] for record in gone} <= {record["id"] for record in local}
    answer(run_cogkit, "history", "rm", "--all", *addr)
    assert answer(run_cogkit, "prune", *addr, "--all")
    assert answer(run_cogkit, "du", *addr) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["prune", "--keep-duration", "long"], "--keep-duration long: not a duration"),
        (["prune", "--max-used-space", "much"], "--max-used-space much: not a size"),
        (["du", "--unused-for", "7"], "--unused-for 7: not a duration"),
        (["du", "--builder", "nobody"], "there is no builder 'nobody'"),
        (["builder", "create", "x", "host:1234"], "has no scheme"),
        (["builder", "create", "x", "tcp://h:1", "--label", "y"], "--label y: not a label"),
        (["builder", "create", "x", "tcp://h:1", "--append"], "there is no builder 'x'"),
        (["builder", "rm", "default"], "'default' is not a builder"),
        (["builder", "use", "nobody"], "there is no builder 'nobody'"),
        (["builder", "create", "x", "tcp://h:1", "--tlscacert", "/nonexistent"], "cannot be read"),
    ],
)
@pytest.mark.one_release_is_enough
def test_mistakes_are_said(run_cogkit: RunCogkit, arguments: list[str], words: str) -> None:
    done = run_cogkit(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "hint:" in done.stderr


def test_a_builder_that_has_a_name(
    buildkitd: Buildkitd, run_cogkit: RunCogkit, context_tree: MakeTree, cogkit_env: dict[str, str | None]
) -> None:
    cogkit_env["BUILDKIT_HOST"] = None
    assert run_cogkit("builder", "create", "ours", buildkitd.address, "--label", "kind=test").returncode == 0
    project = context_tree(SCRATCH)
    done = run_cogkit("build", "--builder", "ours", "-o", "type=image,name=state-named", project)
    assert done.returncode == 0, done.stderr
    assert run_cogkit("builder", "use", "ours").returncode == 0
    assert run_cogkit("build", "-o", "type=image,name=state-named", project).returncode == 0
    shown = answer(run_cogkit, "info")
    assert (shown["builder"], shown["nodes"][0]["address"]) == ("ours", buildkitd.address)
    listed = {each["name"]: each for each in answer(run_cogkit, "builder", "ls")}
    assert listed["ours"]["chosen"] is True
    assert listed["ours"]["nodes"][0]["status"] == "running"
    inspected = answer(run_cogkit, "builder", "inspect", "ours")
    assert inspected["nodes"][0]["labels"] == {"kind": "test"}
    assert inspected["nodes"][0]["platforms"]
    assert run_cogkit("builder", "rm", "ours").returncode == 0
    gone = run_cogkit("build", "--builder", "ours", project)
    assert (gone.returncode, "there is no builder 'ours'" in gone.stderr) == (2, True)


def test_a_builder_that_does_not_answer_is_shown_as_such(run_cogkit: RunCogkit, tmp_path: Path) -> None:
    assert run_cogkit("builder", "create", "gone", f"unix://{tmp_path}/none.sock").returncode == 0
    listed = {each["name"]: each for each in answer(run_cogkit, "builder", "ls")}
    assert listed["gone"]["nodes"][0]["status"] == "unreachable"
    inspected = run_cogkit("builder", "inspect", "gone")
    assert inspected.returncode == 3
    assert "there is no such socket" in inspected.stdout
    built = run_cogkit("du", "--builder", "gone")
    assert built.returncode == 3


@pytest.mark.one_release_is_enough
def test_a_list_that_is_broken_by_hand_is_said_with_its_line(
    run_cogkit: RunCogkit, tmp_path: Path, cogkit_env: dict[str, str | None]
) -> None:
    cogkit_env["BUILDKIT_HOST"] = None
    path = tmp_path / "config" / "cogkit" / "builders.toml"
    path.parent.mkdir(parents=True)
    path.write_text('[builders.a]\naddress = "tcp://a:1"\n\n[builders.a]\naddress = "tcp://b:1"\n')
    for command in (["builder", "ls"], ["builder", "use", "a"], ["info"]):
        done = run_cogkit(*command)
        assert done.returncode == 2
        assert "there are two builders with the name 'a'" in done.stderr
        assert f"{path}:4:" in done.stderr


@pytest.mark.one_release_is_enough
def test_a_build_that_still_runs_can_be_followed_and_not_removed(
    run_cogkit: RunCogkit, start_cogkit: StartCogkit, context_tree: MakeTree, base_images: Registry, eventually: Any
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN echo begun-state-running && sleep 600\n"})
    build = start_cogkit("build", "--no-cache", "-o", "type=image,name=state-running", project)
    running: list[str] = []

    def begun() -> bool:
        running[:] = [
            each["ref"]
            for each in answer(run_cogkit, "history", "ls")
            if each["status"] == "running"
            and each["exports"]
            and each["exports"][0]["attrs"].get("name") == "state-running"
        ]
        return bool(running)

    eventually(begun, within=90, what="that the build is listed")
    refused = run_cogkit("history", "rm", running[0])
    assert (refused.returncode, "still runs" in refused.stderr) == (1, True)
    follower = start_cogkit("history", "logs", running[0])
    assert follower.stdout is not None
    assert any(b"begun-state-running" in line for line in iter(follower.stdout.readline, b""))
    build.terminate()
    build.communicate(timeout=120)
    follower.communicate(timeout=120)
