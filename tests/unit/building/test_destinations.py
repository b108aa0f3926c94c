"""The outputs of a build do not destroy each other, nor what it reads; it is said before a builder is asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cogkit.building.destinations import check_destinations
from cogkit.building.options import BuildOptions, CogOptions, NamedContext, OutputSpec, SshSpec
from cogkit.building.plan import plan_exports
from cogkit.buildkit.connect.address import TlsConfig
from cogkit.buildkit.request import CacheEntry
from cogkit.buildkit.session.services.secrets import SecretSource
from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import CogkitError, OutputError, UsageError
from cogkit.project.discover import Project, ProjectKind

as_root = os.geteuid() == 0

Refusal = Callable[..., CogkitError]
MIRROR = OutputSpec("local", "out", {"mode": "delete"})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "src" / "Dockerfile").write_text("FROM scratch\n")
    return Project(ProjectKind.DOCKERFILE, tmp_path / "src", dockerfile_path=tmp_path / "src" / "Dockerfile")


def check(project: Project, **given: Any) -> None:
    options = BuildOptions(**given)
    exports = plan_exports(options, names=(), default_image=False, project_root=project.root)
    check_destinations(options, project, exports)


@pytest.fixture
def refusal(project: Project) -> Refusal:
    def refuse(**given: Any) -> CogkitError:
        with pytest.raises((UsageError, OutputError)) as caught:
            check(project, **given)
        assert caught.value.hint
        return caught.value

    return refuse


def cache(folder: str) -> CacheEntry:
    return CacheEntry("local", {"dest": folder})


def tar(path: str) -> OutputSpec:
    return OutputSpec("tar", path)


@pytest.mark.parametrize(
    ("given", "one", "other"),
    [
        ({"outputs": (tar("x"),), "iidfile": Path("x")}, "-o type=tar,dest=x", "--iidfile x"),
        ({"outputs": (tar("x"),), "metadata_file": Path("./x")}, "-o type=tar,dest=x", "--metadata-file x"),
        ({"iidfile": Path("z"), "ref_file": Path("z")}, "--iidfile z", "--ref-file z"),
        ({"iidfile": Path("z"), "metadata_file": Path("src/../z")}, "--iidfile z", "--metadata-file src/../z"),
        (
            {"outputs": (OutputSpec("local", "d"), OutputSpec("local", "d"))},
            "-o type=local,dest=d",
            "-o type=local,dest=d",
        ),
        (
            {"outputs": (OutputSpec("oci", "d", {"tar": "false"}),), "cache_to": (cache("d"),)},
            "-o type=oci,dest=d",
            "--cache-to type=local,dest=d",
        ),
        (
            {"outputs": (tar("x"),), "cache_to": (cache("x"),)},
            "-o type=tar,dest=x",
            "--cache-to type=local,dest=x",
        ),
        (
            {"cache_to": (cache("c"), cache("c/"))},
            "--cache-to type=local,dest=c",
            "--cache-to type=local,dest=c/",
        ),
    ],
)
def test_two_outputs_with_one_destination_are_refused(
    refusal: Refusal, given: dict[str, Any], one: str, other: str
) -> None:
    error = refusal(**given)
    assert str(error) == f"{one} and {other} go to the same place"
    assert exit_code_of(error) == 2


@pytest.mark.parametrize(
    "given",
    [
        {"iidfile": Path("out/id")},
        {"metadata_file": Path("out/sub/meta.json")},
        {"cache_to": (cache("out/cache"),)},
    ],
)
def test_outputs_where_the_rest_is_deleted_are_refused(refusal: Refusal, given: dict[str, Any]) -> None:
    error = refusal(outputs=(MIRROR,), **given)
    assert "-o type=local,dest=out deletes what the result does not have" in str(error)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "the Dockerfile"),
        ({"secrets": (SecretSource("token", path=Path("input")),)}, "the secret token"),
        ({"ssh": (SshSpec("default", (Path("input"),)),)}, "a key of --ssh default"),
        ({"tls": TlsConfig(key=Path("input"))}, "a file of the TLS connection"),
        ({"cog": CogOptions(openapi_schema=Path("input"))}, "the file of --openapi-schema"),
    ],
)
def test_an_output_over_an_input_is_refused(refusal: Refusal, given: dict[str, Any], said: str) -> None:
    Path("input").write_text("")
    target = Path("input") if given else Path("src/Dockerfile")
    assert str(refusal(iidfile=target, **given)) == f"--iidfile {target} would overwrite {said}"
    assert "would overwrite" in str(refusal(outputs=(tar(str(target)),), **given))


def test_ignore_files_and_configurations_are_inputs_too(tmp_path: Path, project: Project, refusal: Refusal) -> None:
    for name in (".dockerignore", "Dockerfile.dockerignore"):
        (project.root / name).write_text("")
        assert "ignore" in str(refusal(metadata_file=project.root / name))
    (project.root / "cog.yaml").write_text("")
    cog = Project(ProjectKind.COG, project.root, config_path=project.root / "cog.yaml")
    with pytest.raises(UsageError, match="would overwrite the project's configuration"):
        check(cog, iidfile=project.root / "cog.yaml")


def test_an_input_where_the_rest_is_deleted_is_refused(refusal: Refusal) -> None:
    Path("out/input").mkdir()
    contexts = (NamedContext("more", "out/input", local=True),)
    assert "would delete the context more" in str(refusal(outputs=(MIRROR,), build_contexts=contexts))
    reading = (CacheEntry("local", {"src": "out/input"}),)
    assert "would delete a cache that is read" in str(refusal(outputs=(MIRROR,), cache_from=reading))


def test_nothing_is_written_into_the_folder_of_cogkits_own(project: Project, refusal: Refusal) -> None:
    for path in (project.root / ".cog" / "build" / "x", project.root / ".cog" / "cog.lock"):
        assert "goes into the project's own .cog" in str(refusal(iidfile=path))
        assert "goes into the project's own .cog" in str(refusal(outputs=(tar(str(path)),)))


def test_what_is_common_is_let_be(project: Project) -> None:
    inside = str(project.root / "result.tar")
    check(project, outputs=(tar(inside), OutputSpec("local", "out")), iidfile=Path("out/id"))
    check(project, outputs=(OutputSpec("local", str(project.root)),))
    Path("cache").mkdir()
    check(project, cache_to=(cache("cache"),), cache_from=(CacheEntry("local", {"src": "cache"}),))
    check(project, cache_to=(CacheEntry("registry", {"ref": "a"}), CacheEntry("inline"), cache("new/cache")))
    check(project, outputs=(MIRROR,), iidfile=Path("id"))
    assert not Path("new").exists(), "a check changes nothing"


# --------------------------------------------------------------------------------------------- folders of local caches


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("file", "the cache's folder 'file' is not a directory"),
        ("dangling", "the cache's folder 'dangling' is a link to 'nowhere', where there is no folder"),
        ("file/sub", "'{tmp}/file' is not a directory"),
        ("/dev/null", "the cache's folder '/dev/null' is not a directory"),
        ("/proc/no-such-folder", "nothing can be made in '/proc'"),
        ("/proc/self/fd", "nothing can be made in '/proc/self/fd'"),
    ],
)
def test_a_cache_that_cannot_be_written_is_told_before_the_build(
    tmp_path: Path, refusal: Refusal, folder: str, said: str
) -> None:
    Path("file").write_text("")
    Path("dangling").symlink_to("nowhere")
    error = refusal(cache_to=(cache(folder),))
    assert f"--cache-to type=local,dest={folder}: " in str(error)
    if as_root or not folder.startswith("/proc"):
        assert said.format(tmp=tmp_path) in str(error)
    assert "dest=" not in (error.hint or "")


@pytest.mark.parametrize("folder", ["closed", "closed/new"])
def test_a_cache_in_a_folder_that_may_not_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Refusal, folder: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    if as_root:  # whom no mode holds back; the kernel's answer to others is played
        real = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and Path(path).resolve() != closed)
    assert "is not writable" in str(refusal(cache_to=(cache(folder),)))


def test_looking_leaves_no_trace(tmp_path: Path, project: Project) -> None:
    Path("cache").mkdir()
    before = Path("cache").stat().st_mtime_ns
    check(project, cache_to=(cache("cache"),), iidfile=Path("cache/id"))
    assert os.listdir("cache") == []
    assert Path("cache").stat().st_mtime_ns == before


def test_a_question_writes_no_cache(project: Project) -> None:
    from cogkit.building.call import CallSpec

    check(project, cache_to=(cache("/dev/null"),), call=CallSpec("outline", "", False))


@pytest.mark.parametrize("kind", ["tar", "local", "cache", "iidfile"])
def test_links_in_a_circle_are_told(project: Project, kind: str) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    kinds: dict[str, dict[str, Any]] = {
        "tar": {"outputs": (tar("a"),)},
        "local": {"outputs": (OutputSpec("local", "a/x", {"mode": "delete"}),)},
        "cache": {"cache_to": (cache("a"),)},
        "iidfile": {"iidfile": Path("a")},
    }
    given = kinds[kind]
    if kind == "iidfile":
        check(project, **given)  # what it is itself is looked at elsewhere
        return
    with pytest.raises((OutputError, UsageError)):
        check(project, **given)


def test_a_path_that_cannot_be_followed_is_let_be(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as ``/proc/1/fd/1``, whose link only the owner of that process may read."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os.path, "realpath", refuse)
    check(project, iidfile=Path("a"), metadata_file=Path("b"))
