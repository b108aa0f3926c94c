"""What the kernel saw: a build writes to its destination and to cogkit's own places, whatever the daemon sends.

The other tests look at the disk afterwards; this one has ``strace`` look on, so that nothing is missed that was undone,
and nothing that happened somewhere where nobody looked.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import MakeTree
from tests.faults.attacked import OnSession
from tests.faults.hostile_daemon import Caller, HostileDaemon
from tests.faults.test_hostile_export import ATTACKS, Attack
from tests.real.cogkit_process import cogkit_environment
from tests.scripted_sender import END_OF_TREE, FIN, REQ, blob, data, directory, parse, stat, symlink
from tests.unit.http2_wire import grpc_message

pytestmark = pytest.mark.one_release_is_enough

FILE_SEND = "/moby.filesync.v1.FileSend/DiffCopy"
OPENS = ("open", "openat", "openat2", "creat")
NAMES = {
    "rename": (2,),
    "renameat": (1, 3),
    "renameat2": (1, 3),
    "link": (1,),
    "linkat": (3,),
    "symlink": (1,),
    "symlinkat": (2,),
    "mkdir": (0,),
    "mkdirat": (1,),
    "mknod": (0,),
    "mknodat": (1,),
    "unlink": (0,),
    "unlinkat": (1,),
    "rmdir": (0,),
    "truncate": (0,),
    "chmod": (0,),
    "fchmodat": (1,),
    "chown": (0,),
    "lchown": (0,),
    "fchownat": (1,),
    "utimensat": (1,),
    "setxattr": (0,),
    "lsetxattr": (0,),
}
"""System calls that change what is under a name, with the places of these names among their arguments."""

THROUGH_DESCRIPTOR = ("fchmod", "fchown", "ftruncate", "fsetxattr")
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_TMPFILE")
LINE = re.compile(r"^\d+ +(?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?:<(?P<path>.*)>)?")
ARGUMENT = re.compile(r'"(?:[^"\\]|\\.)*"(?:\.\.\.)?|[^,"{\[]+(?:\{[^}]*\}|\[[^\]]*\])?|\{[^}]*\}|\[[^\]]*\]')

HARMLESS = re.compile(r"/dev/(null|tty|shm/\S*)|(pipe|socket|anon_inode):.*|/proc/(self|\d+)/.*")


@dataclass(frozen=True)
class Change:
    """A system call that changed something."""

    call: str
    path: str


def changes(log: Path) -> Iterator[Change]:
    """What a trace says that was changed; calls that failed changed nothing."""
    for line in _whole_lines(log.read_text(errors="surrogateescape").splitlines()):
        found = LINE.match(line)
        if found is None or found["result"].startswith(("-", "?")):
            continue
        name, arguments = found["name"], _split(found["arguments"])
        if name in OPENS and WRITES.search(found["arguments"]):
            assert found["path"] is not None, line
            yield Change(name, _unquoted(found["path"]))
        elif name in THROUGH_DESCRIPTOR:
            yield Change(name, _of_descriptor(arguments[0]))
        for place in NAMES.get(name, ()):
            # utimensat without a name changes the descriptor itself.
            before = arguments[place - 1] if place else ""
            where = _of_descriptor(before) if "<" in before else os.getcwd()
            given = "" if arguments[place] == "NULL" else _unquoted(arguments[place].strip('"'))
            yield Change(name, os.path.normpath(os.path.join(where, given)))


def _split(arguments: str) -> list[str]:
    return [found for each in ARGUMENT.findall(arguments) if (found := each.strip())]


def _whole_lines(lines: Sequence[str]) -> Iterator[str]:
    """Calls that another thread's interrupted, joined again."""
    begun: dict[str, str] = {}
    for line in lines:
        thread, _, rest = line.partition(" ")
        if line.endswith("<unfinished ...>"):
            begun[thread] = line.removesuffix("<unfinished ...>").rstrip()
        elif resumed := re.match(r" *<\.\.\. \w+ resumed>(.*)", rest):
            yield begun.pop(thread, "") + resumed[1]
        else:
            yield line


def _of_descriptor(argument: str) -> str:
    """The path that ``strace -y`` shows for a descriptor."""
    return _unquoted(argument.partition("<")[2].rpartition(">")[0])


def _unquoted(text: str) -> str:
    return os.fsdecode(text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1"))


@pytest.fixture(scope="module")
def strace() -> str:
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run([program, "-f", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"this machine does not let strace look on: {tried.stderr.strip()}")
    return program


async def play(caller: Caller, attack: Attack) -> None:
    """Send a tree as `ScriptedSender` does."""
    call, answer = await caller.start(FILE_SEND, ends=False)
    taken = 0

    async def react() -> bool:
        nonlocal taken
        while taken < len(answer.messages):
            kind, id, _ = parse(answer.messages[taken])
            taken += 1
            reply = attack.answers.get(id, ()) if kind == REQ else attack.at_fin if kind == FIN else ()
            for packet in reply:
                await caller.pour(call, grpc_message(packet))
        return answer.code is not None or answer.reset

    for packet in attack.packets:
        if await react():
            return
        await caller.pour(call, grpc_message(packet))
    if attack.hang_up:
        await caller.pour(call, b"", ends=True)
    deadline = asyncio.get_running_loop().time() + 10
    while not await react():
        seen = taken
        assert asyncio.get_running_loop().time() < deadline, "the transfer does not end"
        await caller.until(lambda seen=seen: len(answer.messages) > seen or answer.code is not None)  # type: ignore[misc]


HONEST = Attack(
    "with links to the outside",
    [
        directory(b"a"),
        stat(b"a/file", size=4),
        stat(b"a/hard", linkname=b"a/file"),
        symlink(b"abs", b"/etc/passwd"),
        symlink(b"out", b"../outside"),
        stat(b"z", 0o4755, size=4, xattrs={b"user.a": b"1"}),
        END_OF_TREE,
    ],
    {1: [data(1, b"evil"), data(1)], 5: [data(5, b"evil"), data(5)]},
)
THROUGH_LINKS = Attack(
    "into what links of the transfer before, and one that stands there, lead to",
    [
        directory(b"abs"),
        stat(b"abs/cron", size=4),
        directory(b"out"),
        stat(b"out/secret", size=4),
        directory(b"stands"),
        stat(b"stands/secret", size=4),
        END_OF_TREE,
    ],
    {id: [data(id, b"evil"), data(id)] for id in (1, 3, 5)},
)


def test_nothing_is_written_outside_the_destination_and_our_own_places(
    strace: str, tmp_path: Path, context_tree: MakeTree
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\n"})
    destination, outside = tmp_path / "destination", tmp_path / "outside"
    destination.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("of nobody else")
    (destination / "stands").symlink_to("../outside")
    own = [tmp_path / name for name in ("tmp", "home", "archives")]
    for folder in own:
        folder.mkdir()
    codes: list[int | None] = []

    class Exports(OnSession):
        async def attack(self, caller: Caller) -> None:
            for attack in (HONEST, THROUGH_LINKS, HONEST, *ATTACKS.values()):
                await play(caller, attack)
            archive = [("buildkit-attachable-exporter-id", "1")]
            self.answers["archive"] = await caller.call(FILE_SEND, blob(1, b"x" * 100_000), metadata=archive)
            codes.append(self.answers["archive"].code)

    log = tmp_path / "trace"
    calls = ",".join((*OPENS, *NAMES, *THROUGH_DESCRIPTOR))
    env = {"HOME": str(own[1]), "TMPDIR": str(own[0]), "XDG_CONFIG_HOME": None, "PYTHONDONTWRITEBYTECODE": "1"}
    with HostileDaemon(Exports) as daemon:
        done = subprocess.run(
            [
                *(strace, "-f", "-y", "-s", "4096", "-e", "signal=none", "-e", f"trace={calls}", "-o", str(log)),
                *(sys.executable, "-m", "cogkit", "build", str(project), "--addr", daemon.address),
                *("--progress", "plain", "-o", f"type=local,dest={destination}"),
                *("-o", f"type=tar,dest={own[2]}/out.tar"),
            ],
            cwd=tmp_path,
            env=cogkit_environment(env),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert codes == [0], done.stderr
    seen = list(changes(log))
    inside = {change for change in seen if change.path.startswith(f"{destination}/")}
    # That it sees what there is to be seen:
    assert {"linkat", "mkdirat", "symlinkat"} <= {change.call for change in inside}, done.stderr
    assert any(change.call in OPENS for change in seen if change.path.startswith(str(destination)))
    allowed = tuple(str(path) for path in (destination, *own))
    strange = {
        change
        for change in seen
        if not (f"{change.path}/".startswith(tuple(f"{path}/" for path in allowed)) or HARMLESS.fullmatch(change.path))
    }
    assert not strange, strange
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "of nobody else"


def test_the_reader_of_the_trace_sees_each_kind_of_change(strace: str, tmp_path: Path) -> None:
    program = """
import os, sys
os.chdir(sys.argv[1])
folder = os.open(".", os.O_RDONLY)
os.close(os.open("made", os.O_CREAT | os.O_WRONLY))
os.rename("made", "renamed", src_dir_fd=folder, dst_dir_fd=folder)
os.link("renamed", "linked", src_dir_fd=folder, dst_dir_fd=folder)
os.symlink("x", "soft", dir_fd=folder)
os.mkdir("with \\xe9 and, comma", dir_fd=folder)
os.utime("renamed", (1, 1), dir_fd=folder)
os.unlink("linked", dir_fd=folder)
"""
    log = tmp_path / "trace"
    calls = ",".join((*OPENS, *NAMES, *THROUGH_DESCRIPTOR))
    subprocess.run(
        [strace, "-f", "-y", "-e", f"trace={calls}", "-o", str(log), sys.executable, "-c", program, str(tmp_path)],
        check=True,
    )
    seen = {(change.call, os.path.relpath(change.path, tmp_path)) for change in changes(log)}
    wanted = {
        ("openat", "made"),
        ("renameat", "made"),
        ("renameat", "renamed"),
        ("linkat", "linked"),
        ("symlinkat", "soft"),
        ("mkdirat", "with \xe9 and, comma"),
        ("utimensat", "renamed"),
        ("unlinkat", "linked"),
    }
    assert wanted <= seen, seen
