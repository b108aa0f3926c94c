"""Output files appear whole or not at all, and what is not a regular file of ours is never removed."""

from __future__ import annotations

import os
import pty
import resource
import signal
import socket
import stat as stat_module
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cogkit import atomic_file, output_file
from cogkit.errors import CogkitError, OutputError
from cogkit.output_file import OutputFile
from tests.open_files import open_below

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
    if way == "unnamed file" and hasattr(os, "O_TMPFILE"):
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
    write(tmp_path / "a", b"x")
    OutputFile(tmp_path / "b").open().discard()
    assert open_below(tmp_path) == []


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
    OutputFile(tmp_path / "a" / "b" / "out").check("the tar exporter")
    assert not (tmp_path / "a").exists(), "a check changes nothing"
    write(tmp_path / "a" / "b" / "out", b"x")
    assert (tmp_path / "a" / "b" / "out").read_bytes() == b"x"


@pytest.mark.parametrize("target", ["real", "missing"])
def test_a_link_is_followed_and_stays(tmp_path: Path, way: str, target: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real").write_text("old")
    (tmp_path / "out").symlink_to(f"elsewhere/{target}")
    OutputFile(tmp_path / "out").check("the oci exporter")
    write(tmp_path / "out", b"new")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "elsewhere" / target).read_text() == "new"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_dev_null_is_written_through(tmp_path: Path) -> None:
    OutputFile("/dev/null").check("the tar exporter")
    write(Path("/dev/null"), b"x")
    assert stat_module.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_named_pipe_is_written_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    OutputFile(tmp_path / "pipe").check("the tar exporter")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write(tmp_path / "pipe", b"through ", b"the pipe")
    reader.join(60)
    assert got == [b"through the pipe"]
    assert stat_module.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_names_of_open_files_are_written_through(tmp_path: Path) -> None:
    """``dest=/dev/stdout > file``: the shell's file, not a new one in its place."""
    script = (
        "from cogkit.output_file import OutputFile\n"
        "w = OutputFile('/dev/stdout').open(); w.write([b'x']); w.finish(); w.publish()\n"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", script], stdout=out, check=True)
        assert os.fstat(out.fileno()).st_ino == (tmp_path / "out").stat().st_ino
    assert (tmp_path / "out").read_bytes() == b"x"


def test_stdout_gets_the_bytes_after_what_was_printed_before(tmp_path: Path) -> None:
    script = (
        "from cogkit.output_file import OutputFile\n"
        "print('text', end=' '); OutputFile('-').check('the tar exporter')\n"
        "w = OutputFile('-').open(); w.write([b'bytes']); w.finish(); w.publish(); print(' text', end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"text bytes text"


def test_a_reader_that_goes_away_is_told_with_what_it_got() -> None:
    script = (
        "from cogkit.output_file import OutputFile\n"
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
    assert process.wait(60) == 1
    assert text.startswith("the reader of 'standard output' went away after ") and text.endswith(" bytes\n")


def test_stdout_on_a_terminal_is_refused_as_buildx_does() -> None:
    script = (
        "from cogkit.output_file import OutputFile\n"
        "from cogkit.errors import UsageError\n"
        "import os\n"
        "try: OutputFile('-').check('the oci exporter')\n"
        "except UsageError as error: os.write(2, str(error).encode())\n"
    )
    controller, terminal = pty.openpty()
    try:
        done = subprocess.run([sys.executable, "-c", script], stdout=terminal, stderr=subprocess.PIPE, check=True)
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.stderr == b"dest file is required for the oci exporter: refusing to write to the terminal"


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


# ------------------------------------------------------------------------------------------- what a path may lead to


def forget(path: Path | str) -> None:
    OutputFile(path).forget()


def refused(path: Path | str, *, make_parents: bool = True) -> str:
    """What is said of a place before the build; nothing is changed there."""
    with pytest.raises(CogkitError) as caught:
        OutputFile(path, make_parents=make_parents).check("the test")
    assert caught.value.hint
    with pytest.raises(OutputError):
        OutputFile(path, make_parents=make_parents).open().discard()
    return str(caught.value)


def test_what_an_earlier_run_wrote_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("old")
    forget(tmp_path / "id")
    forget(tmp_path / "id")
    assert list(tmp_path.iterdir()) == []


def test_a_link_stays_when_what_it_leads_to_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "id").symlink_to("link")
    (tmp_path / "link").symlink_to("real")
    forget(tmp_path / "id")
    assert not (tmp_path / "real").exists()
    write(tmp_path / "id", b"new")
    assert (tmp_path / "real").read_text() == "new"
    assert [os.readlink(tmp_path / name) for name in ("id", "link")] == ["link", "real"]


def test_all_names_of_a_file_keep_the_same_content(tmp_path: Path, way: str) -> None:
    (tmp_path / "one").write_text("old and long")
    os.link(tmp_path / "one", tmp_path / "two")
    OutputFile(tmp_path / "one").check("the test")
    writer = OutputFile(tmp_path / "one").open()
    writer.write([b"n", b"ew"])
    writer.finish()
    assert (tmp_path / "two").read_text() == "old and long", "it is filled when all is there"
    writer.publish()
    writer.discard()
    assert (tmp_path / "one").samefile(tmp_path / "two")
    assert (tmp_path / "two").read_text() == "new"
    forget(tmp_path / "one")
    assert (tmp_path / "one").samefile(tmp_path / "two")
    assert (tmp_path / "two").read_text() == ""
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_a_file_filled_in_place_keeps_its_content_when_the_build_fails(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("old")
    os.link(tmp_path / "one", tmp_path / "two")
    writer = OutputFile(tmp_path / "one").open()
    writer.write([b"new"])
    writer.finish()
    writer.discard()
    writer.publish()
    assert (tmp_path / "two").read_text() == "old"


@pytest.mark.skipif(not as_root, reason="only root can give a file to another user")
def test_a_file_of_another_user_stays_theirs(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    os.chown(tmp_path / "out", 12345, 12345)
    before = (tmp_path / "out").stat()
    OutputFile(tmp_path / "out").check("the test")
    write(tmp_path / "out", b"new")
    after = (tmp_path / "out").stat()
    assert (after.st_ino, after.st_uid, after.st_gid) == (before.st_ino, 12345, 12345)
    forget(tmp_path / "out")
    assert (tmp_path / "out").stat().st_size == 0


@pytest.mark.skipif(not as_root, reason="only root can give a file to another user")
@pytest.mark.parametrize("kind", ["file", "link", "pipe"])
def test_what_others_put_where_everybody_writes_is_refused(tmp_path: Path, kind: str) -> None:
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    shared.mkdir()
    shared.chmod(0o1777)
    victim.write_text("precious")
    match kind:
        case "file":
            (shared / "id").write_text("theirs")
        case "link":
            (shared / "id").symlink_to(victim)
        case "pipe":
            os.mkfifo(shared / "id")
    os.chown(shared / "id", 12345, 12345, follow_symlinks=False)
    assert "belongs to another user, and everybody may write to its folder" in refused(shared / "id")
    with pytest.raises(OutputError, match="belongs to another user"):
        forget(shared / "id")
    assert victim.read_text() == "precious"
    assert os.lstat(shared / "id").st_uid == 12345


def test_a_file_of_ours_where_everybody_writes_is_replaced(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    (tmp_path / "id").write_text("old")
    forget(tmp_path / "id")
    write(tmp_path / "id", b"new")
    write(tmp_path / "id", b"newer")
    assert (tmp_path / "id").read_text() == "newer"


def test_a_file_that_is_a_mount_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a container has them, ``docker run -v /host/id:/id``; a rename onto one fails."""
    (tmp_path / "id").write_text("old")
    before = (tmp_path / "id").stat().st_ino
    monkeypatch.setattr(output_file, "_mount", lambda path: path)
    write(tmp_path / "id", b"new")
    assert (tmp_path / "id").stat().st_ino == before
    assert (tmp_path / "id").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="the system does not tell")
def test_a_mount_is_known_by_the_system() -> None:
    assert output_file._mount("/proc/self/status") != output_file._mount("/")
    assert output_file._mount("/") == output_file._mount("/")


def test_a_folder_that_may_not_be_written_is_no_hindrance_for_a_file_that_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "id").write_text("old")
    tmp_path.chmod(0o555)
    if as_root:  # whom no mode holds back; the kernel's answer to others is played
        real = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: real(path, mode) and Path(path) != tmp_path)
    OutputFile(tmp_path / "id").check("the test")
    write(tmp_path / "id", b"new")
    tmp_path.chmod(0o755)
    assert (tmp_path / "id").read_text() == "new"


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match=f"cannot write '{tmp_path}/a': Too many levels of symbolic links"):
        OutputFile(tmp_path / "a").check("the test")


def test_a_missing_folder_is_not_made_where_it_is_not_wanted(tmp_path: Path) -> None:
    assert f"'{tmp_path}/no' does not exist" in refused(tmp_path / "no" / "id", make_parents=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/dev/no-such-device", "/proc/no-such-file", "/proc/self/fd/987654"])
def test_nothing_is_made_in_the_folders_of_the_system(path: str) -> None:
    with pytest.raises(OutputError):
        OutputFile(path).check("the test")
    with pytest.raises(OutputError):
        OutputFile(path).open()
    assert not os.path.lexists(path)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_what_is_no_regular_file_is_never_removed(tmp_path: Path, kind: str) -> None:
    """No test of this kind touches the devices of the machine: as root, a fault would remove them."""
    if kind == "pipe":
        os.mkfifo(tmp_path / "real")
    else:
        os.mknod(tmp_path / "real", stat_module.S_IFSOCK | 0o600)
    (tmp_path / "link").symlink_to("real")
    before = os.lstat(tmp_path / "real")
    for name in ("real", "link"):
        OutputFile(tmp_path / name).check("the test")
        forget(tmp_path / name)
    assert os.lstat(tmp_path / "real").st_ino == before.st_ino
    assert os.readlink(tmp_path / "link") == "real"


def in_a_process(code: str, **streams: object) -> subprocess.CompletedProcess[bytes]:
    script = "from cogkit.output_file import OutputFile\nfrom cogkit.errors import CogkitError\n" + code
    return subprocess.run([sys.executable, "-c", script], check=False, timeout=120, **streams)  # type: ignore[call-overload,no-any-return]


WRITE = """
import sys
file = OutputFile(sys.argv[1] if len(sys.argv) > 1 else {path!r})
try:
    file.check('the test'); file.forget()
    writer = file.open(); writer.write([b'new']); writer.finish(); writer.publish()
except CogkitError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("path", ["/dev/fd/1", "/proc/self/fd/1", "link"])
def test_the_file_behind_a_descriptor_is_neither_removed_nor_emptied(tmp_path: Path, path: str) -> None:
    """``cogkit build --iidfile /dev/stdout >>log`` adds to the log."""
    (tmp_path / "link").symlink_to("/proc/self/fd/1")
    (tmp_path / "log").write_text("before ")
    with (tmp_path / "log").open("ab") as log:
        done = in_a_process(WRITE.format(path=path), stdout=log, stderr=subprocess.PIPE, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "log").read_text() == "before new"
    assert os.readlink(tmp_path / "link") == "/proc/self/fd/1"


def test_a_socket_behind_a_descriptor_is_written(tmp_path: Path) -> None:
    """As services have them for standard output; opening their name fails."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        done = in_a_process(WRITE.format(path="/proc/self/fd/1"), stdout=theirs, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr) == (0, b"")
        assert ours.recv(100) == b"new"


def test_a_descriptor_of_our_own_is_no_place(tmp_path: Path) -> None:
    """The number may be that of a connection, or of a file that was opened to be read."""
    (tmp_path / "own").write_text("own")
    code = f"own = open({str(tmp_path / 'own')!r}, 'a'); path = f'/dev/fd/{{own.fileno()}}'\n"
    done = in_a_process(code + WRITE.replace("{path!r}", "path"), stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"there is no open file of that number" in done.stderr
    assert (tmp_path / "own").read_text() == "own"
    with (tmp_path / "own").open("rb") as given:
        done = in_a_process(WRITE.format(path="/proc/self/fd/0"), stdin=given, stderr=subprocess.PIPE)
    assert done.returncode == 1 and b"open for reading only" in done.stderr
