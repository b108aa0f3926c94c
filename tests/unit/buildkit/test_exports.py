"""What cannot work is told before the build."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogkit.buildkit.exports import Export, check_exports
from cogkit.errors import CogkitError, OutputError, UsageError
from cogkit.output_file import OutputFile

as_root = os.geteuid() == 0


def refusal(output: Export) -> CogkitError:
    with pytest.raises((OutputError, UsageError)) as caught:
        output.check()
    assert caught.value.hint
    return caught.value


def tar(path: Path | str) -> Export:
    return Export("tar", file=OutputFile(path))


def local(path: Path | str) -> Export:
    return Export("local", directory=Path(path))


def test_a_directory_is_no_output_file(tmp_path: Path) -> None:
    assert str(tmp_path) in str(refusal(tar(tmp_path)))
    assert "is a directory" in str(refusal(tar(tmp_path)))
    assert "is a directory" in str(refusal(tar(f"{tmp_path}/new/")))


def test_a_file_is_no_output_directory(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    assert f"'{tmp_path}/f' is not a directory" in str(refusal(local(tmp_path / "f")))


@pytest.mark.parametrize("make", [tar, local])
def test_a_file_among_the_parents_is_told(tmp_path: Path, make: type[Export]) -> None:
    (tmp_path / "f").write_text("")
    assert f"'{tmp_path}/f' is not a directory" in str(refusal(make(tmp_path / "f" / "a" / "b")))  # type: ignore[arg-type]


def test_an_empty_name_is_told() -> None:
    assert "needs a file to write" in str(refusal(tar("")))


def test_stdout_is_no_directory() -> None:
    assert "cannot be standard output" in str(refusal(local("-")))


@pytest.mark.parametrize("make", [tar, local])
@pytest.mark.parametrize("below", [".", "new", "new/er"])
def test_a_directory_that_may_not_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: type[Export], below: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    if as_root:  # whom no mode holds back; the kernel's answer to others is played
        real = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and Path(path) != closed)
    target = closed / below / "out" if make is tar else closed / below
    assert f"'{closed}' is not writable" in str(refusal(make(target)))  # type: ignore[arg-type]


def test_a_file_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replacing it would work where its directory is writable, but is not what its mode says."""
    out = tmp_path / "out"
    out.write_text("")
    out.chmod(0o444)
    if as_root:
        real = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and Path(path) != out)
    assert "is not writable" in str(refusal(tar(out)))


def test_two_outputs_do_not_share_a_destination(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(UsageError, match="go to the same place"):
        check_exports([tar(tmp_path / "out"), tar(tmp_path / "link")])
    check_exports([tar(tmp_path / "out"), tar(tmp_path / "other"), local(tmp_path / "dir"), Export("image")])


def test_only_one_output_goes_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    with pytest.raises(UsageError, match=r"and the tar output on standard output go to"):
        check_exports([tar("-"), tar("-")])


@pytest.mark.parametrize(("value", "refused"), [("true", False), ("1", False), ("false", True), ("", True)])
def test_allow_git_is_read_as_a_flag(value: str, refused: bool) -> None:
    assert (".git" in Export("local", {"allow-git": value}).refused_names) == refused


def test_more_names_can_be_protected() -> None:
    export = Export("local", {"allow-git": "true"}, protected_names=frozenset({".git", ".cog"}))
    assert export.refused_names == {".cog"}


@pytest.mark.parametrize(("mode", "mirror"), [("delete", True), (" Delete ", True), ("copy", False), ("", False)])
def test_mode_is_read_as_buildkit_does(mode: str, mirror: bool) -> None:
    assert Export("local", {"mode": mode}).mirror == mirror
