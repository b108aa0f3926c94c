"""The report on a context: what is sent, what keeps the rest here, and where to look for what is big."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogkit.building.context_report import ContextReport, LeftOut, SentFile, report_context
from cogkit.building.options import BuildOptions
from cogkit.buildkit.fsutil.walk import MountError
from cogkit.cli.ui.context_view import as_json, as_text
from cogkit.errors import ConfigError
from tests.unit.buildkit.fsutil.test_walk import shared_root, unprivileged

__all__ = ["shared_root"]


def make(root: Path, **files: str | bytes) -> Path:
    for name, content in {"Dockerfile": "FROM scratch", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def report_of(root: Path, file: str | None = None) -> ContextReport:
    return report_context(BuildOptions(context=root, file=file))


def paths(report: ContextReport) -> list[str]:
    return [file.path for file in report.files]


def test_without_an_ignore_file_everything_but_dot_cog_is_sent(tmp_path: Path) -> None:
    root = make(tmp_path, **{"a/b": "12", ".cog/x": "3", ".cog-backup/y": "4", "sub/.cog/z": "5"})
    report = report_of(root)
    assert paths(report) == [".cog-backup/y", "Dockerfile", "a/b", "sub/.cog/z"]
    assert report.ignore_file is None
    assert report.hidden == (".cog",)
    assert report.size == 2 + 1 + 1 + 12


def test_dot_cog_stays_out_even_when_the_ignore_file_asks_for_it(tmp_path: Path) -> None:
    root = make(tmp_path, **{".dockerignore": "*\n!.cog\n!.cog/x\n", ".cog/x": "3"})
    report = report_of(root)
    assert paths(report) == []
    assert report.hidden == (".cog",)


def test_each_pattern_is_told_what_it_keeps_here(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        **{
            ".dockerignore": "# comment\n*.log\n\n  node_modules/  \n/secret\n",
            "a.log": "12345",
            "sub/b.log": "1",
            "node_modules/m/x.js": "123",
            "node_modules/m/y.js": "4567",
            "secret": "!",
        },
    )
    report = report_of(root)
    assert paths(report) == [".dockerignore", "Dockerfile", "sub/b.log"]
    assert report.left_out == (
        LeftOut("node_modules", 4, ("node_modules/",), files=2, size=7),
        LeftOut("*.log", 2, ("a.log",), files=1, size=5),
        LeftOut("secret", 5, ("secret",), files=1, size=1),
    )


def test_the_last_pattern_that_matches_has_the_word(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        **{
            ".dockerignore": "data\n!data/keep\ndata/keep/*.tmp\n",
            "data/a": "1",
            "data/keep/b": "2",
            "data/keep/c.tmp": "3",
        },
    )
    report = report_of(root)
    assert paths(report) == [".dockerignore", "Dockerfile", "data/keep/b"]
    assert {(each.pattern, each.paths) for each in report.left_out} == {
        ("data", ("data/a",)),
        ("data/keep/*.tmp", ("data/keep/c.tmp",)),
    }
    assert {folder.path for folder in report.folders} == {"data", "data/keep"}


def test_a_folder_looked_into_in_vain_is_not_sent(tmp_path: Path) -> None:
    root = make(tmp_path, **{".dockerignore": "data\n!data/**/keep\n", "data/a/b/c": "1"})
    report = report_of(root)
    assert report.folders == ()
    assert [each.paths for each in report.left_out] == [("data/a/b/c",)]


def test_the_dockerfiles_own_ignore_file_goes_before_the_contexts(tmp_path: Path) -> None:
    root = make(tmp_path, **{".dockerignore": "a", "Dockerfile.dockerignore": "b", "a": "", "b": ""})
    report = report_of(root)
    assert report.ignore_file == root / "Dockerfile.dockerignore"
    assert "a" in paths(report) and "b" not in paths(report)


def test_a_cog_project_is_found_from_below(tmp_path: Path) -> None:
    root = make(tmp_path, **{"cog.yaml": "build: {}\n", "sub/x": ""})
    assert report_context(BuildOptions(context=root / "sub")).root == root


def test_links_and_special_files_cost_nothing_and_a_hard_link_counts_once(tmp_path: Path) -> None:
    root = make(tmp_path, a="12345")
    os.link(root / "a", root / "b")
    os.symlink("a", root / "c")
    os.symlink("nowhere", root / "d")
    os.mkfifo(root / "e")
    report = report_of(root)
    expected = [SentFile("Dockerfile", 12), SentFile("a", 5), SentFile("b", 0)]
    assert list(report.files) == [*expected, SentFile("c", 0), SentFile("d", 0), SentFile("e", 0)]


def test_a_link_to_a_folder_is_not_walked(tmp_path: Path) -> None:
    root = make(tmp_path / "project")
    make(tmp_path / "elsewhere", x="1")
    os.symlink(tmp_path / "elsewhere", root / "link")
    assert paths(report_of(root)) == ["Dockerfile", "link"]


def test_names_in_any_bytes_are_reported(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / os.fsdecode(b"caf\xe9\n\x1b[2J")).write_text("1")
    report = report_of(root)
    assert paths(report)[1] == os.fsdecode(b"caf\xe9\n\x1b[2J")
    assert "caf\\udce9\\n\\u001b[2J" in as_json(report)
    assert "\x1b" not in as_text(report) and "caf\ufffd" in as_text(report)


def test_a_bad_pattern_names_the_ignore_file(tmp_path: Path) -> None:
    root = make(tmp_path, **{".dockerignore": "ok\n\n[a-\n"})
    with pytest.raises(ConfigError, match=r"the pattern '\[a-' cannot be read: syntax error in pattern") as caught:
        report_of(root)
    assert caught.value.where == f"{root / '.dockerignore'}:3"
    (root / ".dockerignore").write_text("ok\n" + "x" * 70_000)
    with pytest.raises(ConfigError, match="too long") as caught:
        report_of(root)
    assert caught.value.where == f"{root / '.dockerignore'}:2"


def test_only_folders_that_say_something_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, **{"a/b/c/big": "x" * 900, "a/b/c/more": "x" * 100, "a/small": "y", "z/w": "1234"})
    assert [folder.path for folder in report_of(root).notable_folders(5)] == ["a/b/c", "z"]
    assert [folder.path for folder in report_of(root).notable_folders(1)] == ["a/b/c"]


def test_the_text_is_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, str | bytes] = {f"logs/{number}.log": "x" * 10 for number in range(5)}
    files |= {".dockerignore": "logs/*.log\n", ".cog/x": "", "models/w.bin": b"0" * 1_500_000}
    root = make(tmp_path, **files)
    monkeypatch.chdir(root)
    assert as_text(report_of(root)) == (
        ".: 1.5MB, 3 files in 2 folders\n\n"
        "biggest folders\n"
        "     1.5MB         1 file  models/\n\n"
        "biggest files\n"
        "     1.5MB  models/w.bin\n"
        "       12B  Dockerfile\n"
        "       11B  .dockerignore\n\n"
        "left out\n"
        "       50B        5 files  logs/*.log (.dockerignore:1): logs/0.log, logs/1.log, logs/2.log, … 2 more\n\n"
        "never sent\n"
        "  .cog/\n"
    )


def test_an_unreadable_folder_is_treated_as_a_build_treats_it(shared_root: Path) -> None:
    root = make(shared_root, **{".dockerignore": "*\n!no/x\n", "no/x": "1", "ok": ""})
    (root / "no").chmod(0)
    with unprivileged(), pytest.raises(MountError, match="permission denied: cannot read 'no'") as caught:
        report_of(root)
    assert caught.value.hint is not None and str(root / ".dockerignore") in caught.value.hint
    (root / ".dockerignore").write_text("no\n!other/x\n")
    with unprivileged():
        assert [each.paths for each in report_of(root).left_out] == [("no/",)]
    (root / "no").chmod(0o700)
