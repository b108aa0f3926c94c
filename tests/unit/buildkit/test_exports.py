"""Output files appear whole or not at all, and what cannot work is told before the build."""

from __future__ import annotations

import os
import pty
import resource
import signal
import stat as stat_module
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cogkit import atomic_file
from cogkit.buildkit.exports import Export, OutputFile, check_exports
from cogkit.errors import CogkitError, OutputError, UsageError

as_root = os.geteuid() == 0


@pytest.fixture(params=["unnamed file", "temporary name"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to write a file until it is whole; the second is for systems without O_TMPFILE."""
    if request.param == "temporary name":
        monkeypatch.setattr(atomic_file, "open_unnamed", lambda directory: None)
    return str(request.param)


def write(target: Path, *parts: bytes) -> None:
    writer = OutputFile(target).open()
    for part in parts:
        writer.write([part])
    writer.finish()
    writer.publish()


def test_a_file_has_its_name_only_when_it_is_published(tmp_path: Path, way: str) -> None:
    writer = OutputFile(tmp_path / "out.tar").open()
    writer.write([b"con", memoryview(b"tents")])
    writer.finish()
    assert not (tmp_path / "out.tar").exists()
    if way == "unnamed file":
        assert list(tmp_path.iterdir()) == [], "so even a killed process leaves nothing"
    else:
        assert [path.name.startswith(".") for path in tmp_path.iterdir()] == [True]
    writer.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["out.tar"]
    assert (tmp_path / "out.tar").read_bytes() == b"contents"
    assert writer.written == 8


@pytest.mark.parametrize("finished", [False, True])
def test_a_discarded_file_leaves_the_old_one(tmp_path: Path, way: str, finished: bool) -> None:
    (tmp_path / "out").write_text("old")
    writer = OutputFile(tmp_path / "out").open()
    writer.write([b"new"])
    if finished:
        writer.finish()
    writer.discard()
    writer.discard()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out", "old")]


def test_discarding_a_published_file_does_nothing(tmp_path: Path, way: str) -> None:
    writer = OutputFile(tmp_path / "out").open()
    writer.finish()
    writer.publish()
    writer.discard()
    assert (tmp_path / "out").exists()


def test_no_descriptor_stays_open(tmp_path: Path, way: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    write(tmp_path / "a", b"x")
    OutputFile(tmp_path / "b").open().discard()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o007])
def test_a_new_file_gets_the_mode_that_the_umask_leaves(tmp_path: Path, way: str, umask: int) -> None:
    old = os.umask(umask)
    try:
        write(tmp_path / "out", b"x")
    finally:
        os.umask(old)
    assert stat_module.S_IMODE((tmp_path / "out").stat().st_mode) == 0o666 & ~umask


def test_a_replaced_file_keeps_its_mode(tmp_path: Path, way: str) -> None:
    (tmp_path / "out").write_text("old")
    (tmp_path / "out").chmod(0o640)
    write(tmp_path / "out", b"new")
    assert stat_module.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640
    assert (tmp_path / "out").read_text() == "new"


def test_what_is_written_too_late_goes_nowhere(tmp_path: Path, way: str) -> None:
    writer = OutputFile(tmp_path / "out").open()
    writer.discard()
    with (tmp_path / "other").open("wb"), (tmp_path / "another").open("wb"), pytest.raises(OutputError):
        writer.write([b"late"])
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0, 0]


def test_a_file_is_private_until_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_file, "open_unnamed", lambda directory: None)
    writer = OutputFile(tmp_path / "out").open()
    assert [stat_module.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()] == [0o600]
    writer.discard()


def test_missing_directories_are_made_as_buildx_does(tmp_path: Path) -> None:
    OutputFile(tmp_path / "a" / "b" / "out").check("tar")
    assert not (tmp_path / "a").exists(), "a check changes nothing"
    write(tmp_path / "a" / "b" / "out", b"x")
    assert (tmp_path / "a" / "b" / "out").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["real", "missing"])
def test_a_link_is_followed_and_stays(tmp_path: Path, way: str, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real").write_text("old")
    (tmp_path / "out").symlink_to(f"elsewhere/{target}")
    OutputFile(tmp_path / "out").check("oci")
    write(tmp_path / "out", b"new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere" / target).read_text() == "new"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_dev_null_is_written_through(tmp_path: Path) -> None:
    OutputFile("/dev/null").check("tar")
    write(Path("/dev/null"), b"x")
    assert stat_module.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_named_pipe_is_written_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    OutputFile(tmp_path / "pipe").check("tar")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(tmp_path / "pipe", b"through ", b"the pipe")
    reader.join(5)
    assert got == [b"through the pipe"]
    assert stat_module.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_names_of_open_files_are_written_through(tmp_path: Path) -> None:
    """``dest=/dev/stdout > file``: the shell's file, not a new one in its place."""
    script = (
        "from cogkit.buildkit.exports import OutputFile\n"
        "w = OutputFile('/dev/stdout').open(); w.write([b'x']); w.finish(); w.publish()\n"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
        assert os.fstat(out.fileno()).st_ino == (tmp_path / "out").stat().st_ino
    assert (tmp_path / "out").read_bytes() == b"x"


def test_stdout_gets_the_bytes_after_what_was_printed_before(tmp_path: Path) -> None:
    script = (
        "from cogkit.buildkit.exports import OutputFile\n"
        "print('text', end=' '); OutputFile('-').check('tar')\n"
        "w = OutputFile('-').open(); w.write([b'bytes']); w.finish(); w.publish(); print(' text', end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"text bytes text"


def test_a_reader_that_goes_away_is_told_with_what_it_got() -> None:
    script = (
        "from cogkit.buildkit.exports import OutputFile\n"
        "from cogkit.errors import CogkitError\n"
        "w = OutputFile('-').open()\n"
        "try:\n"
        "    while True: w.write([bytes(1000)])\n"
        "except CogkitError as error: raise SystemExit(str(error))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1000)
    process.stdout.close()
    text = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(10) == 1
    assert text.startswith("the reader of 'standard output' went away after ") and text.endswith(" bytes\n")


def test_stdout_on_a_terminal_is_refused_as_buildx_does() -> None:
    script = (
        "from cogkit.buildkit.exports import OutputFile\n"
        "from cogkit.errors import UsageError\n"
        "import os\n"
        "try: OutputFile('-').check('oci')\n"
        "except UsageError as error: os.write(2, str(error).encode())\n"
    )
    controller, terminal = pty.openpty()
    try:
        done = subprocess.run([sys.executable, "-c", script], stdout=terminal, stderr=subprocess.PIPE, check=True)
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.stderr == b"dest file is required for oci exporter: refusing to write to the terminal"


@pytest.fixture
def file_size_limit() -> Iterator[int]:
    """The nearest thing to a full disk that needs no mount; the real one is in tests/e2e/test_outputs.py."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    yield 10_000
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_limit_met_in_the_middle_is_told_and_leaves_nothing(tmp_path: Path, way: str, file_size_limit: int) -> None:
    writer = OutputFile(tmp_path / "out").open()
    with pytest.raises(OutputError, match=r"'.*/out' grew larger .* after 10,000 bytes"):
        writer.write([b"x" * 6000, b"y" * 6000])
    writer.discard()
    assert list(tmp_path.iterdir()) == []


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
    with pytest.raises(UsageError, match="more than one output goes to"):
        check_exports([tar(tmp_path / "out"), tar(tmp_path / "link")])
    check_exports([tar(tmp_path / "out"), tar(tmp_path / "other"), local(tmp_path / "dir"), Export("image")])


def test_only_one_output_goes_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    with pytest.raises(UsageError, match="more than one output goes to standard output"):
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
