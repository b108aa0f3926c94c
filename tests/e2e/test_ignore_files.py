"""Which ignore file holds: ``cogkit context`` says what ``cogkit build`` does, and buildctl does the same."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunBuildctl, RunCogkit
from tests.e2e.test_build import COG_YAML, RUN_PY
from tests.real.tree import Node, Symlink

ALL = "FROM scratch\nCOPY . /\n"


@dataclass(frozen=True)
class Form:
    """A project whose file ``secret`` is left out, or not.

    Attributes:
        tree: Beside ``secret``.
        sent: Whether ``secret`` is sent.
        file: ``-f``, relative to the project's folder.
        warned: Words of the warning.
        as_buildctl: Whether buildctl does the same; not where it cannot find the Dockerfile.
    """

    tree: Mapping[str, Node]
    sent: bool = False
    file: str | None = None
    warned: str = ""
    as_buildctl: bool = True
    outside: Mapping[str, Node] = field(default_factory=dict)


FORMS = {
    "none": Form({"Dockerfile": ALL}, sent=True),
    "of the context": Form({"Dockerfile": ALL, ".dockerignore": "secret\n"}),
    "with a mark and carriage returns": Form({"Dockerfile": ALL, ".dockerignore": "\ufeffsecret\r\n"}),
    "of the Dockerfile": Form({"Dockerfile": ALL, "Dockerfile.dockerignore": "secret\n", ".dockerignore": ""}),
    "the Dockerfile's goes first": Form(
        {"Dockerfile": ALL, "Dockerfile.dockerignore": "x\n", ".dockerignore": "secret\n"}, sent=True
    ),
    "an empty one of the Dockerfile": Form(
        {"Dockerfile": ALL, "Dockerfile.dockerignore": "", ".dockerignore": "secret\n"}, sent=True
    ),
    "beside a link": Form(
        {"Dockerfile": ALL, "link": Symlink("Dockerfile"), "link.dockerignore": "secret\n"}, file="link"
    ),
    "of what a link leads to": Form(
        {"Dockerfile": ALL, "link": Symlink("Dockerfile"), "Dockerfile.dockerignore": "secret\n"},
        file="link",
        sent=True,
    ),
    "Dockerfile is a link": Form(
        {
            "Dockerfile": Symlink("docker/prod"),
            "docker/prod": ALL,
            "docker/prod.dockerignore": "nothing",
            "Dockerfile.dockerignore": "secret\n",
        }
    ),
    "beside a link that leads out": Form(
        {"Dockerfile": Symlink("../far/prod"), "Dockerfile.dockerignore": "secret\n"},
        outside={"far/prod": ALL, "far/prod.dockerignore": "nothing"},
        as_buildctl=False,
    ),
    "in another folder": Form(
        {".dockerignore": "nothing"},
        file="../far/prod",
        outside={"far/prod": ALL, "far/prod.dockerignore": "secret\n"},
        as_buildctl=False,
    ),
    "of the Dockerfile, a link": Form(
        {"Dockerfile": ALL, "Dockerfile.dockerignore": Symlink("ignores"), "ignores": "secret\n"}
    ),
    "of the Dockerfile, a link that leads out": Form(
        {"Dockerfile": ALL, "Dockerfile.dockerignore": Symlink("../far/ignores")},
        outside={"far/ignores": "secret\n"},
        as_buildctl=False,
    ),
    "a link": Form({"Dockerfile": ALL, ".dockerignore": Symlink("sub/ignores"), "sub/ignores": "secret\n"}),
    "a link from the root": Form({"Dockerfile": ALL, ".dockerignore": Symlink("/ignores"), "ignores": "secret\n"}),
    "a link that leads out": Form(
        {"Dockerfile": ALL, ".dockerignore": Symlink("../far/ignores")},
        outside={"far/ignores": "secret\n"},
        sent=True,
        warned="leads out of the context",
    ),
    "a link to nothing": Form({"Dockerfile": ALL, ".dockerignore": Symlink("gone")}, sent=True, warned="not exist"),
    "a link to a name with brackets": Form(
        {"Dockerfile": ALL, ".dockerignore": Symlink("ign[1]"), "ign[1]": "secret\n"}, sent=True, warned="builds see"
    ),
    "brackets in the Dockerfile's name": Form(
        {"Dockerfile[1]": ALL, "Dockerfile[1].dockerignore": "secret\n"}, file="Dockerfile[1]", as_buildctl=False
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_context_build_and_buildctl_agree_on_the_ignore_file(
    form: Form,
    run_cogkit: RunCogkit,
    buildctl: RunBuildctl,
    context_tree: MakeTree,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    # What it holds makes the tree another one than those of the other forms, for a daemon that knows them.
    project = context_tree({**form.tree, "secret": "s", "form": request.node.name}, name="p/project")
    context_tree(form.outside, name="p")
    chosen = [] if form.file is None else ["-f", project / form.file]
    shown = run_cogkit("context", project, *chosen, "--json")
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout)
    built = run_cogkit("build", project, *chosen, "-o", f"type=local,dest={tmp_path}/out")
    assert built.returncode == 0, built.stderr
    sent = {file["path"] for file in told["files"]}
    assert ("secret" in sent) == form.sent
    assert _files(tmp_path / "out") == sent
    for said in (shown, built):
        assert form.warned in said.stderr
        assert bool(form.warned) == ("nothing is left out" in said.stderr), said.stderr
    if form.as_buildctl:
        buildctl(
            *("build", "--frontend", "dockerfile.v0", "--opt", f"filename={form.file or 'Dockerfile'}"),
            *("--local", f"context={project}", "--local", f"dockerfile={project}"),
            *("--output", f"type=local,dest={tmp_path}/theirs"),
        )
        assert _files(tmp_path / "theirs") == sent


def test_a_named_contexts_ignore_file_that_leads_out_is_warned_of(
    run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path
) -> None:
    context_tree({"ignores": "secret\n"}, name="far")
    named = context_tree({".dockerignore": Symlink("../far/ignores"), "secret": "s"}, name="named")
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY --from=other . /\n"})
    done = run_cogkit("build", project, "--build-context", f"other={named}", "-o", f"type=local,dest={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert f"{named}/.dockerignore is a link to ../far/ignores, which leads out of the context" in done.stderr
    assert "secret" in _files(tmp_path / "out")


def test_a_pattern_that_cannot_be_read_is_named_with_its_line(
    run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": ALL, ".dockerignore": "fine\n[a-\n"})
    named = context_tree({".dockerignore": "\n\n[b-\n", "x": ""}, name="named")
    for command in (("context", project), ("build", project)):
        done = run_cogkit(*command)
        assert (done.returncode, f"at: {project}/.dockerignore:2" in done.stderr) == (2, True), done.stderr
        assert "error: the pattern '[a-' cannot be read: syntax error in pattern" in done.stderr
    (project / ".dockerignore").unlink()
    (project / "Dockerfile").write_text("FROM scratch\nCOPY --from=code . /\n")
    done = run_cogkit("build", project, "--build-context", f"code={named}")
    assert (done.returncode, f"at: {named}/.dockerignore:3" in done.stderr) == (2, True), done.stderr


def test_a_predictor_that_is_left_out_is_told_before_the_build(run_cogkit: RunCogkit, context_tree: MakeTree) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY, ".dockerignore": "# all\n*.py\n"})
    done = run_cogkit("build", project, env={"BUILDKIT_HOST": "unix:///nonexistent.sock"})
    assert done.returncode == 3
    assert f"left out by the pattern '*.py' ({project}/.dockerignore:2): the image will not have it" in done.stderr


def _files(root: Path) -> set[str]:
    return {os.path.relpath(os.path.join(at, name), root) for at, _, names in os.walk(root) for name in names}
