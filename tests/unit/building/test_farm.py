"""The parts of a build on a farm that need no farm."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cogkit.builders.records import Node
from cogkit.building import farm, values
from cogkit.building.observer import SilentObserver
from cogkit.buildkit.exports import Export
from cogkit.buildkit.status import Instant, SolveStatus, Vertex, VertexStatus


class Heard(SilentObserver):
    def __init__(self) -> None:
        self.vertexes: list[Vertex] = []

    def on_status(self, status: SolveStatus) -> None:
        self.vertexes += status.vertexes


def image(**attrs: str) -> Export:
    return Export("image", {key.replace("_", "-"): value for key, value in attrs.items()})


def test_steps_of_one_platform_bear_its_name() -> None:
    heard = Heard()
    watch = farm._Watch(heard, "linux/arm64")
    watch.on_status(SolveStatus(vertexes=(Vertex("sha256:1", "[1/2] RUN x"), Vertex("sha256:2", "exporting to image"))))
    assert [each.name for each in heard.vertexes] == ["[linux/arm64 1/2] RUN x", "[linux/arm64] exporting to image"]


def test_what_still_runs_when_a_node_is_given_up_is_cancelled_in_the_view() -> None:
    heard = Heard()
    watch = farm._Watch(heard, None)
    now = Instant.at(1)
    watch.on_status(
        SolveStatus(
            vertexes=(
                Vertex("sha256:1", "done", started=now, completed=now),
                Vertex("sha256:2", "runs", started=now),
                Vertex("sha256:3", "waits"),
            )
        )
    )
    heard.vertexes.clear()
    watch.end()
    (vertex,) = heard.vertexes
    assert (vertex.name, vertex.error, vertex.completed is not None) == ("runs", "context canceled", True)


def test_a_push_that_has_begun_is_noticed() -> None:
    watch = farm._Watch(SilentObserver(), None)
    now = Instant.at(1)
    watch.on_status(SolveStatus(statuses=(VertexStatus("exporting layers", "sha256:1", now),)))
    assert not watch.pushed
    watch.on_status(SolveStatus(statuses=(VertexStatus("pushing layers", "sha256:1", now),)))
    assert watch.pushed


@pytest.mark.parametrize(
    ("exports", "joined"),
    [
        ([image(name="a/b:1", push="true")], True),
        ([image(name="a/b:1")], False),
        ([image(push="true")], False),
        ([image(name="a/b", push="true", push_by_digest="true")], False),
        ([image(name="a/b:1", push="true"), image(name="c/d:1", push="true")], False),
        ([], False),
    ],
)
def test_only_one_image_that_is_pushed_by_name_can_be_joined(exports: list[Export], joined: bool) -> None:
    assert farm._can_be_joined(exports) is joined


def test_parts_are_pushed_by_digest_to_each_repository_once() -> None:
    export = image(name="r.example.com/a:1,r.example.com/a:2,r.example.com/b:1", push="true")
    part = farm._pushed_by_digest(export, export.attrs["name"].split(","))
    assert part.attrs["name"] == "r.example.com/a,r.example.com/b"
    assert part.attrs["push-by-digest"] == "true"


def test_the_platform_of_a_mixed_farm_is_this_machines_if_it_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    amd, arm = Node("a", "x", platforms=("linux/amd64",)), Node("b", "y", platforms=("linux/arm64",))
    monkeypatch.setattr(values, "local_platform", lambda: "linux/arm64")
    assert farm._default_platform([amd, arm]) == ("linux/arm64",)
    monkeypatch.setattr(values, "local_platform", lambda: "linux/s390x")
    assert farm._default_platform([amd, arm]) == ("linux/amd64",)
    assert farm._default_platform([amd, amd]) == ()
    assert farm._default_platform([Node("c", "z")]) == ()


def test_a_project_of_a_git_repository_has_one_name_in_every_clone(tmp_path: Path) -> None:
    def clone(name: str) -> Path:
        folder = tmp_path / name
        (folder / "models" / "one").mkdir(parents=True)
        for words in (["init", "-q"], ["remote", "add", "origin", "https://git.example.com/team/models"]):
            subprocess.run(["git", "-C", folder, *words], check=True, timeout=60)
        return folder / "models" / "one"

    first, second = clone("first"), clone("second")
    assert farm.project_name(first) == farm.project_name(second)
    assert farm.project_name(first) != farm.project_name(first.parent)


def test_other_projects_are_known_by_their_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert farm.project_name(tmp_path / "a") != farm.project_name(tmp_path / "b")
    assert farm.project_name(tmp_path / "a") == farm.project_name(tmp_path / "a")
