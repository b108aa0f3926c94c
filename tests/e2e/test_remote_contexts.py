"""Contexts that the builder fetches itself, and Dockerfiles from the web, with real Git and a real daemon."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.e2e.test_build import names_in, succeeded
from tests.e2e.test_secrets_and_ssh import agent
from tests.e2e.test_stdin_and_call import tar_of
from tests.real.ssh_port import SshPort
from tests.real.web import WebServer, git

__all__ = ["agent"]  # a fixture

ALL = "FROM scratch\nCOPY . /\n"
OWN = "FROM scratch\nCOPY . /own/\n"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    with WebServer(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture
def repository(web: WebServer, tmp_path: Path) -> str:
    """A repository of the test's own."""
    return web.add_repository(
        tmp_path.name,
        {"Dockerfile": ALL, "other": "FROM scratch AS named\n", "top": "t", "sub/Dockerfile": ALL, "sub/below": "b"},
    )


def built(run_cogkit: RunCogkit, tmp_path: Path, *arguments: str | Path, cwd: Path | None = None) -> set[str]:
    """The names in the result of a build."""
    out = tmp_path / "out.tar"
    succeeded(run_cogkit("build", *arguments, "-o", f"type=tar,dest={out}", cwd=cwd))
    return names_in(out)


@pytest.mark.parametrize(
    ("fragment", "names"),
    [
        ("", {"Dockerfile", "other", "top", "sub", "sub/Dockerfile", "sub/below"}),
        ("#main:sub", {"Dockerfile", "below"}),
        ("#:sub", {"Dockerfile", "below"}),
    ],
)
def test_a_git_repository_is_the_context(
    run_cogkit: RunCogkit, tmp_path: Path, repository: str, fragment: str, names: set[str]
) -> None:
    assert built(run_cogkit, tmp_path, f"{repository}{fragment}") == names


@pytest.mark.needs_newer_buildkit("queries in the URL of a Git repository")
def test_a_query_says_what_of_the_repository_is_meant(run_cogkit: RunCogkit, tmp_path: Path, repository: str) -> None:
    assert built(run_cogkit, tmp_path, "--context", f"{repository}?ref=main&subdir=sub") == {"Dockerfile", "below"}


def test_a_named_context_may_be_a_git_repository(
    run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path, repository: str
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY --from=code . /\n"})
    assert built(run_cogkit, tmp_path, project, "--build-context", f"code={repository}#main:sub") == {
        "Dockerfile",
        "below",
    }


@pytest.mark.needs_newer_buildkit("queries in the URL of a Git repository")
def test_a_named_context_may_be_a_git_repository_with_a_query(
    run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path, repository: str
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY --from=code . /\n"})
    named = f"code={repository}?ref=main&subdir=sub"
    assert built(run_cogkit, tmp_path, project, "--build-context", named) == {"Dockerfile", "below"}


def test_a_branch_that_is_not_there_is_told(run_cogkit: RunCogkit, repository: str) -> None:
    done = run_cogkit("build", f"{repository}#gone")
    assert done.returncode == 1
    assert "gone" in done.stderr and "Traceback" not in done.stderr


def test_the_dockerfile_of_a_repository_may_be_another(
    run_cogkit: RunCogkit, start_cogkit: StartCogkit, context_tree: MakeTree, tmp_path: Path, repository: str
) -> None:
    here = context_tree({"mine": OWN, "other": OWN})
    shown = succeeded(run_cogkit("build", "--call", "targets", "-f", "other", repository, cwd=here))
    assert "named (default)" in shown.stdout  # a relative path is one of the repository
    names = {"own", *(f"own/{name}" for name in ("Dockerfile", "other", "top", "sub", "sub/Dockerfile", "sub/below"))}
    assert built(run_cogkit, tmp_path, "-f", here / "mine", repository) == names
    piped = start_cogkit(
        *("build", "-f", "-", repository, "-o", f"type=tar,dest={tmp_path}/piped.tar"), stdin=subprocess.PIPE
    )
    _, stderr = piped.communicate(OWN.encode(), timeout=120)
    assert piped.returncode == 0, stderr
    assert names_in(tmp_path / "piped.tar") == names


def test_an_archive_on_the_web_is_the_context(run_cogkit: RunCogkit, tmp_path: Path, web: WebServer) -> None:
    web.files["/archive.tar.gz"] = tar_of({"Dockerfile": ALL.encode(), "file": b"x"}, "w:gz")
    assert built(run_cogkit, tmp_path, f"{web.url}/archive.tar.gz") == {"Dockerfile", "file"}


def test_a_dockerfile_on_the_web_is_built_alone(run_cogkit: RunCogkit, web: WebServer) -> None:
    web.files["/alone"] = b"FROM scratch AS lonely\nLABEL a=b\n"
    shown = succeeded(run_cogkit("build", "--call", "targets", f"{web.url}/alone"))
    assert "lonely (default)" in shown.stdout


def test_a_dockerfile_from_the_web_is_built_in_a_folder_or_a_repository(
    run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path, web: WebServer, repository: str
) -> None:
    web.files["/own"] = OWN.encode()
    project = context_tree({"kept": "k", "skipped": "s", ".dockerignore": "skipped\n"})
    with_login = f"{web.url.replace('://', '://name:pass%20word@')}/own"
    assert built(run_cogkit, tmp_path, "-f", with_login, project) == {"own", "own/.dockerignore", "own/kept"}
    assert web.logins[-1] == "Basic bmFtZTpwYXNzIHdvcmQ="
    assert "own/below" in built(run_cogkit, tmp_path, "-f", f"{web.url}/own", f"{repository}#main:sub")


def test_what_is_not_on_the_web_is_told_without_the_password(run_cogkit: RunCogkit, web: WebServer) -> None:
    done = run_cogkit("build", "-f", f"{web.url.replace('://', '://name:secret@')}/gone", ".")
    assert done.returncode == 1
    assert "error: the Dockerfile cannot be fetched from 127.0.0.1" in done.stderr and "404" in done.stderr
    assert "secret" not in done.stderr


def test_a_web_page_is_told_from_the_repository_that_was_meant(run_cogkit: RunCogkit, web: WebServer) -> None:
    web.files["/owner/code"] = b"<!DOCTYPE html>\n<html></html>\n"
    done = run_cogkit("build", f"{web.url}/owner/code")
    assert done.returncode == 1
    assert f"hint: if {web.url}/owner/code is a Git repository, its name must end in .git" in done.stderr


def test_commands_that_need_a_folder_say_so(run_cogkit: RunCogkit, web: WebServer) -> None:
    for command in ("context", "dockerfile", "doctor"):
        done = run_cogkit(command, f"{web.url}/x.git")
        assert done.returncode == 2
        assert f"the context {web.url}/x.git is not on this machine" in done.stderr


def test_a_repository_by_ssh_gets_the_users_agent_unasked(
    agent: Path, run_cogkit: RunCogkit, tmp_path: Path, web: WebServer
) -> None:
    web.add_repository(f"{tmp_path.name}-ssh", {"Dockerfile": ALL, "file": "x"})
    place = web.repositories / f"{tmp_path.name}-ssh.git"
    with SshPort(tmp_path / "sshd", tmp_path / "key.pub") as server:
        url = f"ssh://root@127.0.0.1:{server.port}{place}"
        refused = run_cogkit("build", url, env={"SSH_AUTH_SOCK": None})
        assert refused.returncode == 1 and "Traceback" not in refused.stderr
        out = tmp_path / "out.tar"
        succeeded(run_cogkit("build", url, "-o", f"type=tar,dest={out}", env={"SSH_AUTH_SOCK": str(agent)}))
    assert names_in(out) == {"Dockerfile", "file"}


# ---- pipes and archives


def test_a_dockerfile_may_come_out_of_a_pipe(
    run_cogkit: RunCogkit, start_cogkit: StartCogkit, context_tree: MakeTree, tmp_path: Path
) -> None:
    project = context_tree({"kept": "k"})
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/stdin", "/dev/fd/0", tmp_path / "pipe"):
        out = f"type=tar,dest={tmp_path}/out.tar"
        process = start_cogkit("build", "-f", name, project, "-o", out, stdin=subprocess.PIPE)
        if isinstance(name, Path):
            # Opening it waits for the reader; one that never comes must not hold us.
            subprocess.run(["sh", "-c", 'cat > "$0"', name], input=OWN.encode(), check=True, timeout=120)
        _, stderr = process.communicate(OWN.encode(), timeout=120)
        assert process.returncode == 0, stderr
        assert names_in(tmp_path / "out.tar") == {"own", "own/kept"}


@pytest.mark.parametrize("form", ["a PAX tar", "git archive", "zstd", "lz4"])
def test_archives_of_every_kind_are_contexts(start_cogkit: StartCogkit, tmp_path: Path, form: str) -> None:
    name = "ü" * 60
    content = tar_of({name: b"x", "Dockerfile": ALL.encode()})
    if form == "git archive":
        (tmp_path / "work").mkdir()
        (tmp_path / "work/Dockerfile").write_text(ALL)
        (tmp_path / "work" / name).write_text("x")
        git(tmp_path / "work", "init", "--quiet")
        git(tmp_path / "work", "add", "--all")
        git(tmp_path / "work", "commit", "--quiet", "--message=one")
        git(tmp_path / "work", "archive", "--output=../archive", "HEAD")
        content = (tmp_path / "archive").read_bytes()
    elif form != "a PAX tar":
        content = subprocess.run([form, "-c"], input=content, capture_output=True, check=True, timeout=120).stdout
    process = start_cogkit("build", "-", "-o", f"type=tar,dest={tmp_path}/out.tar", stdin=subprocess.PIPE)
    _, stderr = process.communicate(content, timeout=120)
    assert process.returncode == 0, stderr
    assert names_in(tmp_path / "out.tar") == {"Dockerfile", name}
