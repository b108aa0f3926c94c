"""The commit and the remote are recorded with the build."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import succeeded
from tests.real.web import git

REMOTE = "https://example.com/code.git"


def test_provenance_has_the_revision_and_the_places(
    run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path
) -> None:
    project = context_tree({"app/Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message=one")
    git(project, "remote", "add", "origin", REMOTE)
    revision = git(project, "rev-parse", "HEAD")
    succeeded(
        run_cogkit("build", project / "app", "--provenance", "mode=max", "-o", f"type=tar,dest={tmp_path}/out.tar")
    )
    with tarfile.open(tmp_path / "out.tar") as tar:
        file = tar.extractfile("provenance.json")
        assert file is not None
        statement = json.load(file)
    vcs = _all(statement, "vcs")
    assert {"source": REMOTE, "revision": revision}.items() <= vcs[0].items()
    assert vcs[0]["localdir:context"] == "app"


def test_builds_of_what_is_in_no_repository_say_nothing_of_one(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
    (project / ".git").mkdir()
    done = succeeded(run_cogkit("build", project))
    assert "warning: the commit is not recorded with the build: fatal: not a git repository" in done.stderr


def _all(value: object, key: str) -> list[dict[str, str]]:
    """Every value of a key, however deep it is."""
    if isinstance(value, list):
        return [found for each in value for found in _all(each, key)]
    if not isinstance(value, dict):
        return []
    own = [value[key]] if isinstance(value.get(key), dict) else []
    return own + [found for each in value.values() for found in _all(each, key)]
