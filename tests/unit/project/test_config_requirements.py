"""Requirements files: their logical lines, pins, and local wheels and archives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit.errors import ConfigError
from cogkit.project.requirements import (
    Pin,
    Requirement,
    local_artifact,
    package_name,
    parse_pin,
    parse_requirements,
    read_requirements,
    versions,
    without_refused_options,
)


def lines(text: str) -> list[tuple[str, str]]:
    return [(one.text, one.where) for one in parse_requirements(text, "r.txt")]


def test_comments_blank_lines_and_the_project_itself_are_left_out() -> None:
    assert lines("# head\n\n  six  # why\n-e .\n  -e   .\nidna\n") == [("six", "r.txt:3"), ("idna", "r.txt:6")]


def test_continued_lines_are_one_and_count_from_their_first() -> None:
    text = "six==1.16.0 \\\n  --hash=sha256:aa \\\n  --hash=sha256:bb\nidna\n"
    assert lines(text) == [("six==1.16.0   --hash=sha256:aa   --hash=sha256:bb", "r.txt:1"), ("idna", "r.txt:4")]


def test_line_endings_of_windows_do_not_reach_pip() -> None:
    assert lines("six\r\nidna \\\r\n ==3.7\r\n") == [("six", "r.txt:1"), ("idna  ==3.7", "r.txt:2")]


def test_the_last_line_needs_no_end() -> None:
    assert lines("six\nidna") == [("six", "r.txt:1"), ("idna", "r.txt:2")]
    assert lines("six \\") == [("six", "r.txt:1")]


def test_fragments_of_addresses_are_no_comments() -> None:
    url = "git+https://git.example.com/a.git@v1#subdirectory=python&egg=a"
    assert lines(f"{url}\n{url}  # comment\nsix#comment\n") == [(url, "r.txt:1"), (url, "r.txt:2"), ("six", "r.txt:3")]


def test_a_file_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_requirements(tmp_path / "r.txt", "r.txt")


def test_comments_may_be_in_any_encoding(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes("# für\nsix # für\n".encode("latin-1"))
    assert [one.text for one in read_requirements(tmp_path / "r.txt", "r.txt")] == ["six"]
    (tmp_path / "r.txt").write_bytes("# für\nsix\nfür\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        read_requirements(tmp_path / "r.txt", "r.txt")
    assert caught.value.where == "r.txt:3"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_wide_encodings_are_told(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "r.txt").write_bytes("# why\nsix\n".encode(encoding))
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_requirements(tmp_path / "r.txt", "r.txt")


@pytest.mark.parametrize(
    ("text", "left", "refused"),
    [
        ("six==1.16.0 --no-deps", "six==1.16.0", ("--no-deps",)),
        ("six -U --no-build-isolation", "six", ("-U", "--no-build-isolation")),
        ("six --no-deps ; os_name=='nt'", "six ; os_name=='nt'", ("--no-deps",)),
        ("six==1.16.0 --hash=sha256:aa", "six==1.16.0 --hash=sha256:aa", ()),
        ("six --no-depsx", "six --no-depsx", ()),
        ("torch==2.7.1 --pre", "torch==2.7.1 --pre", ()),
        ("--no-deps", "--no-deps", ()),
        ("-e git+https://example.com/a.git -U", "-e git+https://example.com/a.git -U", ()),
    ],
)
def test_options_that_pip_refuses_in_a_file_are_left_out(text: str, left: str, refused: tuple[str, ...]) -> None:
    assert without_refused_options(text) == (left, refused)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes("\ufeffsix\n".encode())
    assert [one.text for one in read_requirements(tmp_path / "r.txt", "r.txt")] == ["six"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("torch", "torch"),
        ("torch==2.7.1", "torch"),
        ("torch[opt]>=2", "torch[opt]"),
        ("ruamel.yaml==0.18", "ruamel.yaml"),
        ("mypackage>= 1.0, < 1.4 || > 2.0", "mypackage"),
        ("--extra-index-url https://x", "--extra-index-url"),
        ("", ""),
    ],
)
def test_the_name_a_line_starts_with(text: str, name: str) -> None:
    assert package_name(text) == name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("torch", []),
        ("torch==2.7.1", ["2.7.1"]),
        ("torch == 2.7.1 ; python_version<'3'", ["2.7.1", "'3'"]),
        ("torch>=2.0,<3", ["2.0", "3"]),
        ("a @ https://example.com/a.whl", ["https://example.com/a.whl"]),
    ],
)
def test_the_versions_a_line_mentions(text: str, found: list[str]) -> None:
    assert versions(text) == found


@pytest.mark.parametrize(
    ("text", "pin"),
    [
        ("torch==2.7.1", Pin("torch", "2.7.1", "", (), ())),
        ("torch==2.7.1+cu128", Pin("torch", "2.7.1+cu128", "", (), ())),
        ("ruamel.yaml==0.18.6", Pin("ruamel.yaml", "0.18.6", "", (), ())),
        ("a==1 ; python_version < '3'", Pin("a", "1", " ; python_version < '3'", (), ())),
        ("a==1; os_name=='nt'", Pin("a", "1", "; os_name=='nt'", (), ())),
        ("a==1 --hash=sha256:b", Pin("a", "1", " --hash=sha256:b", (), ())),
        ("a==1 --extra-index-url=https://x", Pin("a", "1", "", (), ("https://x",))),
        ("a==1 --extra-index-url https://x", Pin("a", "1", "", (), ("https://x",))),
        ("-f https://f --find-links=https://g a==1", Pin("a", "1", "", ("https://f", "https://g"), ())),
        ("a==1 -f https://f ; os_name=='nt'", Pin("a", "1", " ; os_name=='nt'", ("https://f",), ())),
        ("a", None),
        ("a>=1", None),
        ("a === 1", None),
        ("a===1", None),
        ("a==1,!=1.1", None),
        ("a[b]==1", None),
        ("a @ https://x/a-1.zip", None),
        ("--extra-index-url https://x", None),
        ("git+https://x/a==1", None),
        ("a==", None),
    ],
)
def test_pinned_lines_fall_into_their_parts(text: str, pin: Pin | None) -> None:
    assert parse_pin(text) == pin


@pytest.mark.parametrize(
    "path",
    [
        "./dist/PKG-0.1.0-PY3-NONE-ANY.WHL",
        "mylib.zip",
        "../pkg-0.1.0.tar.gz",
        "./dist/pkg.tgz",
        "/abs/pkg.tar.bz2",
        "./pkg.tar.xz",
        "./dist/pkg@1.0.tar.gz",
        "pkg@1.0.tar.gz",
        "./vendor/my helper-1.0.tar.gz",
        "vendor/my helper-1.0.tar.gz",
    ],
)
def test_wheels_and_archives_in_the_project(path: str) -> None:
    assert local_artifact(Requirement(f"  {path} ", "r.txt:1")) == path


@pytest.mark.parametrize(
    "text",
    [
        "",
        "torch[all]==2.5.1",
        'torch==2.5.1; python_version < "3.11"',
        "https://user:pass@example.com/pkg.whl --hash=sha256:abc",
        "https://token@file:443/pkg.whl",
        "git+https://example.com/repo.git",
        "name @ https://example.com/pkg.whl",
        "--find-links https://example.com/wheels",
        "-rhttps://example.com/requirements.txt",
        "-e git+https://example.com/repo.git",
        "--editable git+https://example.com/repo.git#egg=a",
        "-c https://example.com/constraints.txt",
        "--extra-index-url https://example.com/simple",
    ],
)
def test_what_comes_from_elsewhere_is_left_to_pip(text: str) -> None:
    assert local_artifact(Requirement(text, "r.txt:1")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file:///tmp/pkg.whl", "local file URL requirements are not supported"),
        ("FILE:///tmp/pkg.whl", "local file URL requirements are not supported"),
        ("name@file:./pkg.whl", "local file URL requirements are not supported"),
        ("--find-links ./wheels", 'local requirements option "--find-links" is not supported'),
        ("--find-links=file:///wheels", 'local requirements option "--find-links" is not supported'),
        ("-r other.txt", 'local requirements option "-r" is not supported'),
        ("-rother.txt", 'local requirements option "-r" is not supported'),
        ("-f./wheels", 'local requirements option "-f" is not supported'),
        ("--requirement other.txt", 'local requirements option "--requirement" is not supported'),
        ("./pkg.whl --hash=sha256:abc", "do not support inline options or hashes"),
        ("./pkg.whl -f https://example.com", "do not support inline options or hashes"),
        ("./pkg", "is not a supported wheel or source archive"),
        ('./pkg.whl; python_version < "3.11"', "environment markers are not supported"),
        ("./pkg.whl[extra]", "extras are not supported"),
        ("name @ ./pkg.whl", "local direct reference requirements"),
        ("name@./pkg.whl", "local direct reference requirements"),
        ("name @ pkg.whl", "local direct reference requirements"),
        ("-c constraints.txt", 'local requirements option "-c" is not supported'),
        ("--constraint=constraints.txt", 'local requirements option "--constraint" is not supported'),
        ("-e ./lib", 'local requirements option "-e" is not supported'),
        ("-e .[all]", 'local requirements option "-e" is not supported'),
        ("--editable lib", 'local requirements option "--editable" is not supported'),
        (".", "the project itself cannot be a requirement"),
        ("..", "the project itself cannot be a requirement"),
        (".[all]", "the project itself cannot be a requirement"),
        (". ; python_version > '3'", "the project itself cannot be a requirement"),
    ],
)
def test_local_requirements_of_other_forms_are_refused_before_the_build(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        local_artifact(Requirement(text, "r.txt:7"))
    assert message in caught.value.message
    assert caught.value.where == "r.txt:7"
    assert caught.value.hint


@given(st.text(alphabet="ab=<>!~ \\\n\r#;@:/.-[]", max_size=80))
def test_no_text_makes_the_parsing_fail(text: str) -> None:
    for requirement in parse_requirements(text, "r.txt"):
        parse_pin(requirement.text)
        package_name(requirement.text)
        versions(requirement.text)
