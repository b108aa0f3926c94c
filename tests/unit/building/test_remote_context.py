"""Which texts are contexts that the builder fetches, told as BuildKit and buildx tell them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogkit.building import session_services
from cogkit.building.definition import EMPTY_CONTEXT, Definition
from cogkit.building.options import BuildOptions, NamedContext, SshSpec
from cogkit.building.plan import plan_frontend
from cogkit.building.remote_context import has_git_query, is_git_over_ssh, is_git_url, is_remote_url

GIT = [
    "https://example.com/x.git",
    "http://example.com/a/x.git#main:sub",
    "https://example.com/x.git?ref=main&subdir=sub",
    "HTTPS://example.com/x.git",
    "git://example.com/x",
    "ssh://git@example.com:2222/x",
    "git@example.com:x.git",
    "git@example.com:x#v1:sub",
    "github.com/a/b",
]
OTHERS = ["https://example.com/x.tar.gz", "https://example.com/x.git/archive", "http://example.com/x?a=b.git"]
FOLDERS = [
    ".",
    "..",
    "./git@example.com:x",
    "../x.git",
    "x.git",
    "/x.git",
    "a@b",
    "ftp://example.com/x.git",
    "file:///x",
]


@pytest.mark.parametrize("url", GIT)
def test_git_repositories(url: str) -> None:
    assert is_git_url(url) and is_remote_url(url)


@pytest.mark.parametrize("url", OTHERS)
def test_other_addresses_on_the_web(url: str) -> None:
    assert is_remote_url(url) and not is_git_url(url)


@pytest.mark.parametrize("name", FOLDERS)
def test_anything_else_is_a_folder(name: str) -> None:
    assert not is_remote_url(name) and not is_git_over_ssh(name)


def test_only_repositories_by_ssh_need_an_agent() -> None:
    assert [url for url in GIT if is_git_over_ssh(url)] == [
        "ssh://git@example.com:2222/x",
        "git@example.com:x.git",
        "git@example.com:x#v1:sub",
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com/x.git?ref=main", True),
        ("https://example.com/x.git#main", False),
        ("https://example.com/x.tar?ref=main", False),
        ("git@example.com:x.git?ref=main#x", True),
        ("git@example.com:x.git#a?b", False),
        ("ssh://git@example.com/x?tag=1", True),
        ("http://[/x.git?a", False),
    ],
)
def test_only_queries_of_repositories_need_a_frontend_that_reads_them(url: str, expected: bool) -> None:
    assert has_git_query(url) == expected
    given = Definition("Dockerfile", b"")
    main = plan_frontend(BuildOptions(), context=url, dockerfile=None, filename="Dockerfile")
    assert main.attrs.get("frontend.caps") == ("moby.buildkit.frontend.gitquerystring" if expected else None)
    options = BuildOptions(build_contexts=(NamedContext("code", url, local=False),))
    named = plan_frontend(options, context=EMPTY_CONTEXT, dockerfile=given.mount, filename="Dockerfile")
    assert ("moby.buildkit.frontend.gitquerystring+forward" in named.attrs["frontend.caps"]) == expected


def test_a_dockerfile_beside_a_remote_context_is_told_of() -> None:
    given = Definition("mine", b"FROM scratch")
    plan = plan_frontend(
        BuildOptions(), context="https://example.com/x.git", dockerfile=given.mount, filename=given.filename
    )
    assert plan.attrs == {"context": "https://example.com/x.git", "dockerfilekey": "dockerfile", "filename": "mine"}
    assert [mount.name for mount in plan.mounts] == ["dockerfile"]


def test_the_users_agent_is_offered_for_a_repository_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
    by_ssh = BuildOptions(context="git@example.com:x.git")
    assert session_services._agent_for_git(by_ssh) == (SshSpec("default"),)
    assert session_services._agent_for_git(BuildOptions(context="https://example.com/x.git")) == ()
    assert session_services._agent_for_git(BuildOptions()) == ()
    monkeypatch.delenv("SSH_AUTH_SOCK")
    assert session_services._agent_for_git(by_ssh) == ()
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nonexistent/agent")
    (tmp_path / "git@example.com:x.git").mkdir()
    assert session_services._agent_for_git(by_ssh) == ()
